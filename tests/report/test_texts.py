"""A text of a result is one function in one module: plain data in, text out, nothing of the engine."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from cellflow.report.text.checks import checks_text
from cellflow.report.text.dataset import dataset_text
from cellflow.report.text.prediction import prediction_text
from cellflow.report.text.prune import removed_text
from cellflow.report.text.queue import queue_text
from cellflow.report.text.score import metrics_text
from cellflow.report.text.table import number, text_table
from cellflow.report.text.training import training_text


def slowest_text(images: pd.DataFrame) -> str:
    """What a newcomer would write to show the images that took longest."""
    rows = [["seconds", "image"]]
    rows += [[number(row["seconds"], 1), row["id"]] for row in images.to_dict("records")]
    return text_table(rows, left=1)


def test_a_new_text_takes_a_few_lines() -> None:
    images = pd.DataFrame({"id": ["a", "long"], "seconds": [0.25, 12.0]})
    assert slowest_text(images).splitlines() == ["seconds  image", "    0.2  a", "   12.0  long"]


def test_training() -> None:
    chosen = {"select_metric": "competition", "best_value": 0.5}
    folds = [
        SimpleNamespace(fold=0, best_score=0.5, best_epoch=3.0, finished="epochs", **chosen),
        SimpleNamespace(fold=1, best_score=0.0, best_epoch=1.0, finished="", **chosen),
    ]
    lines = training_text(folds).splitlines()
    assert lines[0] == "fold 0: best score 0.5000 at epoch 3"
    assert lines[1].endswith("(nothing was found: too short a training, or other cells?)")
    assert lines[2] == "Time is up. The same command goes on."
    folds[0].select_metric, folds[0].best_value = "pq", 0.7
    (line,) = training_text(folds[:1]).splitlines()
    assert line == "fold 0: best PQ 0.7000 at epoch 3, where the score is 0.5000"


def test_a_fine_tuning_that_loses_to_its_start_says_so() -> None:
    chosen = {"select_metric": "competition", "best_value": 0.5, "best_score": 0.5}
    folds = [
        SimpleNamespace(fold=0, best_epoch=0.0, finished="epochs", **chosen),
        SimpleNamespace(fold=1, best_epoch=7.0, finished="epochs", **chosen),
    ]
    said = training_text(folds).splitlines()[-1]
    assert said.startswith("No epoch of fold 0 beat the model that it started from, which is kept.")
    assert "--learning_rate" in said
    assert training_text(folds[1:]).count("\n") == 0


def test_prediction(tmp_path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "b.tif").touch()
    result = SimpleNamespace(
        folder=tmp_path, masks=tmp_path / "masks", cells={"a": 1, "b": 2}, members=3,
        written=("masks/ (2 label maps)", "counts/ (numbers of cells)"), slides={},
    )  # fmt: skip
    lines = prediction_text(result).splitlines()
    assert lines[0] == "3 cells in 2 images, mean flow of 3 models"
    assert lines[1].endswith(": masks/ (2 label maps), counts/ (numbers of cells)")
    assert f"{tmp_path / 'masks' / 'b.tif'}" in lines[2]
    slide = SimpleNamespace(
        labels=Path("s/labels.zarr"), outlines=Path("s/cells.geojson"), table=Path("s/cells.csv"),
        cells=5, failed={"0_1": "damaged"},
    )  # fmt: skip
    result.slides = {"s": slide}
    text = prediction_text(result)
    assert "napari --layer-type labels s/labels.zarr" in text
    assert "drag s/cells.geojson onto it" in text
    assert "s: 1 block could not be predicted (0_1)" in text


def test_dataset() -> None:
    images = pd.DataFrame(
        {
            "n_instances": [3, 0],
            "height": [8, 16],
            "width": [9, 9],
            "channels": [1, 1],
            "cell_type": ["round", ""],
            "well": ["A", "A"],
        }
    )
    assert dataset_text(images, "well") == (
        "2 images, 3 cells, 1 image without cells, 1 cell type (round 1), 1 image without a type, "
        "1 group (well), 8 x 9 to 16 x 9 pixels (height x width)"
    )


def test_images_without_a_group_count_as_groups_of_their_own() -> None:
    images = pd.DataFrame({"well": ["A", "A", "", ""]}).assign(n_instances=1, height=8, width=8)
    text = dataset_text(images.assign(channels=1), "well")
    assert "3 groups (well), 2 images without one" in text


def test_a_difference_that_is_not_known_is_a_dash() -> None:
    """Such as that of `sq`, where no predicted cell pairs with a true one."""
    row = {"metric": "sq", "scope": "overall", "name": "all", "images": 2, "verdict": ""}
    numbers = ("mean", "low", "high", "pooled", "mean_versus", "pooled_versus", "difference")
    unknown = dict.fromkeys((*numbers, "difference_low", "difference_high"), math.nan)
    assert "nan" not in metrics_text(pd.DataFrame([row | unknown]))


def test_queue_checks_and_prune() -> None:
    table = pd.DataFrame(
        {"name": ["a"], "minutes": [float("nan")], "cv_raw": [0.25], "log": ["x.log"]}
    )
    assert queue_text(table).split() == ["name", "minutes", "cv_raw", "a", "-", "0.2500"]
    check = SimpleNamespace(what="disk", found="1 GiB", verdict="problem", advice="free some")
    assert checks_text([check]).splitlines()[-1] == "1 problem(s), marked with !"
    assert removed_text(2048, ["x stays"]) == "x stays\nRemoved: 2.0 KiB"


@pytest.mark.parametrize("module", ["runs", "cv", "thresholds", "prediction", "training", "score"])
def test_texts_import_nothing_heavy(module: str) -> None:
    program = (
        f"import sys, cellflow.report.text.{module}\n"
        "heavy = {'torch', 'sklearn', 'matplotlib', 'numba', 'cellflow.engine'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""Every command and script of the tutorials, from files to files, on made images and with trainings of seconds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from narrow import NarrowUNet
from page_blocks import ROOT, Reader, run_page
from skimage.io import imsave

from cellflow import rle_encode
from cellflow.io.images import write_labels
from cellflow.nn.checkpoint import save_model_file
from cellflow.synthetic import SyntheticImage, synthetic_dataset

pytestmark = pytest.mark.slow

SIDES = (96, 112)
CPU = ("--device", "cpu", "--amp", "off")
SECONDS = (
    *("--n_epochs", "3", "--eval_every", "3", "--bsize", "64", "--batch_size", "2"),
    *("--min_train_masks", "1", *CPU),
)
SHORTER = {
    "train": SECONDS,
    "oof": (*CPU, "--policy", "dataset"),
    "calibrate": (*CPU, "--n_thresholds", "3", "--no_extras"),
    "ensemble": CPU,
    "predict": CPU,
}
"""What is added to the commands of a page, and all in which they differ from what a reader types."""
TYPES = {"round": "shsy5y", "spindle": "astro", "spread": "cort"}


def made(count: int, seed: int) -> list[SyntheticImage]:
    return list(synthetic_dataset(count, shape=SIDES, seed=seed, per_group=2))


def save(folder: Path, item: SyntheticImage) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    imsave(folder / f"{item.id}.png", item.image, check_contrast=False)


def test_kaggle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The layout of the competition: a row per cell, images in train/, others in test/."""
    rows = []
    for item in made(12, seed=5):
        save(tmp_path / "sartorius" / "train", item)
        rows += [
            {
                "id": item.id,
                "annotation": rle_encode(item.labels == label),
                "width": SIDES[1],
                "height": SIDES[0],
                "cell_type": TYPES[item.cell_type],
                "sample_id": item.group,
            }
            for label in range(1, item.labels.max() + 1)
        ]
    pd.DataFrame(rows).to_csv(tmp_path / "sartorius" / "train.csv", index=False)
    for item in made(2, seed=6):
        save(tmp_path / "sartorius" / "test", item)
    monkeypatch.chdir(tmp_path)
    run_page(
        ROOT / "docs" / "tutorial-kaggle.md",
        capsys,
        Reader(
            SHORTER | {"train": (*SECONDS, "--diam_mean", "17"), "publish": ("--wheels", "none")}
        ),
    )
    submission = pd.read_csv(tmp_path / "predictions" / "exp" / "submission.csv")
    assert list(submission) == ["id", "predicted"]
    assert set(submission["id"]) == {item.id for item in made(2, seed=6)}


def test_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images with label maps of the same names, a table of wells, and a model of Cellpose's in its folder."""
    rows = []
    for item in made(12, seed=5):
        save(tmp_path / "my_images" / "images", item)
        write_labels(tmp_path / "my_images" / "masks" / f"{item.id}.tif", item.labels)
        rows.append({"id": item.id, "cell_type": item.cell_type, "well": item.group})
    pd.DataFrame(rows).to_csv(tmp_path / "my_images" / "table.csv", index=False)
    for item in made(3, seed=6):
        save(tmp_path / "new_images", item)
        write_labels(tmp_path / "new_masks" / f"{item.id}.tif", item.labels)
    (tmp_path / "models").mkdir()
    save_model_file(tmp_path / "models" / "cyto3", NarrowUNet.build(seed=0), {})
    monkeypatch.setenv("CELLPOSE_LOCAL_MODELS_PATH", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    run_page(ROOT / "docs" / "tutorial-folder.md", capsys, Reader(SHORTER))
    result = tmp_path / "predictions" / "mine"
    for item in made(3, seed=6):
        for file in ("masks/{}.tif", "outlines/{}.png", "rois/{}_rois.zip", "geojson/{}.geojson"):
            assert (result / file.format(item.id)).is_file()

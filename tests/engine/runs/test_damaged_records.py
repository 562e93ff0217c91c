"""Whatever happens to a file of a run or a dataset, the readers say so in our own errors."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cellflow.config import CalibrateConfig, MaskOverrides, OofConfig, RuntimeConfig, TrainConfig
from cellflow.config.calibration import GridConfig
from cellflow.config.catalog import CompareConfig, RunsConfig
from cellflow.engine.data.folds import image_groups, load_folds, validation_folds
from cellflow.engine.prediction.result_folder import ResultFolder
from cellflow.engine.publishing.publish import dataset_title
from cellflow.engine.runs.catalog import list_runs
from cellflow.engine.runs.contents import (
    check_models,
    read_table,
    run_dataset,
    run_folds,
    run_mask,
    run_policy,
)
from cellflow.engine.runs.identity import open_run
from cellflow.engine.runs.metadata import build_metadata
from cellflow.engine.runs.thresholds import read_thresholds
from cellflow.engine.segmentation.styles import read_style_models
from cellflow.engine.training.fold_result import finished_without_state
from cellflow.engine.validation.calibrate import calibrate
from cellflow.engine.validation.compare_runs import compare_runs
from cellflow.engine.validation.cv_table import cross_validation
from cellflow.engine.validation.oof import oof
from cellflow.engine.validation.oof_flows import OOF_COLUMNS, _check_rows
from cellflow.engine.validation.oof_tables import (
    fold_evaluations,
    last_epoch_scores,
    selection_biases,
)
from cellflow.errors import CellflowError
from cellflow.io.dataset import Dataset
from cellflow.io.formats.submission import read_submission
from cellflow.report.text.comparison import comparison_text
from cellflow.report.text.cv import cv_text
from cellflow.report.text.runs import runs_text
from cellflow.rng import generator
from cellflow.storage.atomic import write_json
from cellflow.storage.run_folder import RunFolder

CPU = RuntimeConfig(device="cpu", amp="off")
CASES = 40
"""Damages of each file."""
OTHERS: tuple[Any, ...] = (
    None, True, -1, 10**400, 1e400, float("nan"), 0.5, "", "text", "\x00", "0", [], ["a"], [1], {}, {"a": 1},
)  # fmt: skip
"""Values of other types than were expected."""
CELLS = ("", "nan", "text", "-1", "0.5", "1e400", "9" * 30, '"', ",", "\n", "\x00", "é", "[]")


@pytest.fixture(scope="module")
def world(trained: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, a run that is calibrated, its copy under another name, and a prediction's record."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(trained.data, folder / "data")
    shutil.copytree(trained.runs_dir / "tiny", folder / "runs" / "tiny")
    low = MaskOverrides(cellprob_threshold=-2.0, flow_threshold=0.0)
    data, runs = folder / "data", folder / "runs"
    oof(OofConfig("tiny", runs_dir=runs, data=data, mask=low, policy="dataset", runtime=CPU))
    grid = GridConfig(n_thresholds=2, flow_thresholds=(0.4,), min_sizes=(15,), extras=False)
    config = CalibrateConfig(("tiny",), runs_dir=runs, data=data, grid=grid, runtime=CPU)
    calibrate(replace(config, ensembles_dir=folder / "ensembles"))
    run = RunFolder(runs / "tiny")
    write_json(run.metadata, build_metadata(run))
    write_json(run.publication, {"to": "kaggle", "title": "tiny"})
    record = yaml.safe_load(run.record_path.read_text())
    run.write_record(record | {"data": str(data)})
    shutil.rmtree(run.flows)
    for model in run.path.glob("fold_*/*.pt"):  # readers of models have tests of their own
        model.write_bytes(b"x")
    shutil.copytree(run.path, runs / "other")
    with ResultFolder.open(folder / "result", {"a": 1}, fingerprints={"x": "1"}) as result:
        result.finish([])
    return folder


def damaged(content: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """A file cut off, with bits turned, or with a value of another type in it."""
    how = rng.integers(6)
    if how == 0:
        return content[: rng.integers(len(content))]
    if how == 1:
        flipped = bytearray(content)
        for place in rng.integers(len(content), size=3):
            flipped[place] ^= 1 << int(rng.integers(8))
        return bytes(flipped)
    if kind == ".csv":
        rows = [line.split(",") for line in content.decode().split("\n")]
        row = rows[rng.integers(len(rows))]
        row[rng.integers(len(row))] = CELLS[rng.integers(len(CELLS))]
        return "\n".join(map(",".join, rows)).encode()
    value = yaml.safe_load(content) if kind == ".yaml" else json.loads(content)
    other = OTHERS[rng.integers(len(OTHERS))]
    places = list(_places(value))
    holder, key = places[rng.integers(len(places))]
    if rng.random() < 0.2 and isinstance(holder, dict):
        del holder[key]
    elif rng.random() < 0.1:
        value = other
    else:
        holder[key] = other
    text = yaml.safe_dump(value) if kind == ".yaml" else json.dumps(value)
    return text.encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value inside lists and mappings, as what holds it and where."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


def _tables(run: RunFolder, dataset: Dataset) -> None:
    """What `oof` and `calibrate` make of the tables."""
    folds = run_folds(run, dataset)
    tables = {fold: fold_evaluations(run.fold(fold).evaluations) for fold in (0, 1)}
    last_epoch_scores(run, tables)
    selection_biases(dataset, run, folds, tables)


def _scores(run: RunFolder, dataset: Dataset) -> None:
    scores = read_table(run.calibration / "scores.csv", OOF_COLUMNS)
    _check_rows(run, scores, run_folds(run, dataset))
    cv_text(cross_validation(scores))


def _prediction(folder: Path) -> None:
    with ResultFolder.open(folder, {"a": 1}, fingerprints={"x": "1"}) as result:
        result.finish([])


def _cells(dataset: Dataset) -> None:
    assert dataset.hash
    for image_id in dataset.ids:
        dataset.instances(image_id)


def _chosen_folds(dataset: Dataset) -> list[int]:
    return validation_folds(dataset, load_folds(dataset))


def readers(folder: Path, config: TrainConfig) -> dict[str, Callable[[], object]]:
    """Readers by the file that they read, all cheap."""
    run = RunFolder(folder / "runs" / "tiny")
    training = replace(config, data=folder / "data", runs_dir=folder / "runs")

    def data() -> Dataset:
        return Dataset.open(folder / "data")

    return {
        "dataset": data,
        "cells": lambda: _cells(data()),
        "folds": lambda: _chosen_folds(data()),
        "groups": lambda: image_groups(data(), run.folds),
        "record": lambda: open_run(training, data(), [0, 1]),
        "models": lambda: check_models(run, unfinished=True),
        "run_dataset": lambda: run_dataset(run, None),
        "mask": lambda: run_mask(run),
        "tables": lambda: _tables(run, data()),
        "scores": lambda: _scores(run, data()),
        "thresholds": lambda: read_thresholds(run.thresholds),
        "policy": lambda: run_policy(run),
        "styles": lambda: read_style_models(run.fold(0).styles),
        "result": lambda: finished_without_state(0, run.fold(0)),
        "title": lambda: dataset_title(run),
        "metadata": lambda: json.dumps(build_metadata(run)),
        "runs": lambda: runs_text(list_runs(RunsConfig(runs_dir=folder / "runs"))),
        "compare": lambda: comparison_text(
            compare_runs(CompareConfig("tiny", "other", runs_dir=folder / "runs"))
        ),
        "submission": lambda: read_submission(run.oof / "predictions.csv"),
        "prediction": lambda: _prediction(folder / "result"),
    }


FILES = {
    "data/dataset.json": ("dataset", "folds"),
    "data/images.csv": ("dataset", "cells", "folds", "groups"),
    "data/instances.csv": ("cells",),
    "data/folds.csv": ("folds",),
    "data/folds.json": ("folds",),
    "runs/tiny/config.yaml": ("record", "models", "mask", "run_dataset", "metadata", "runs", "compare"),
    "runs/tiny/folds.csv": ("tables", "metadata"),
    "runs/tiny/folds.json": ("groups", "tables"),
    "runs/tiny/cv.csv": ("metadata", "runs"),
    "runs/tiny/thresholds.json": ("thresholds", "metadata", "compare"),
    "runs/tiny/metadata.json": ("metadata", "runs"),
    "runs/tiny/publication.json": ("metadata", "title"),
    "runs/tiny/fold_0/evaluations.csv": ("tables",),
    "runs/tiny/fold_0/history.csv": ("metadata", "runs", "models"),
    "runs/tiny/fold_0/summary.json": ("metadata", "runs", "result", "models"),
    "runs/tiny/fold_0/styles.json": ("styles",),
    "runs/tiny/oof/oof.json": ("policy", "metadata", "compare"),
    "runs/tiny/oof/scores.csv": ("metadata", "compare"),
    "runs/tiny/oof/predictions.csv": ("submission",),
    "runs/tiny/calibration/scores.csv": ("scores", "compare"),
    "result/prediction.json": ("prediction",),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_damage_is_told_in_our_own_words(world: Path, trained: TrainConfig, name: str) -> None:
    path, known = world / name, readers(world, trained)
    rng = generator(0, "damage", zlib.crc32(name.encode()))
    whole, told = path.read_bytes(), 0
    try:
        for _ in range(CASES):
            content = damaged(whole, path.suffix, rng)
            for reader in FILES[name]:
                path.write_bytes(content)
                try:
                    known[reader]()
                except CellflowError:
                    told += 1
                except Exception as error:  # what a user would see as a traceback
                    raise AssertionError(f"{reader}: {content[:600]!r}") from error
    finally:
        path.write_bytes(whole)
    quiet = {"title", "metadata", "runs", "result", "models"}
    assert told or quiet & set(FILES[name])  # some readers say nothing, and take None

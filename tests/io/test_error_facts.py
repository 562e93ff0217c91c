"""Errors of files carry what they say as attributes: where, what was expected, what was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellflow import FoldsConfig, PrepareConfig, make_folds, prepare
from cellflow.engine.data.folds import wanted_folds
from cellflow.errors import CellflowError
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.io.fold_table import read_fold_table
from cellflow.io.foreign_flows import read_foreign_flows
from cellflow.io.images import read_image, read_masks
from cellflow.io.tables import read_rows
from cellflow.storage.config_file import read_config_file
from cellflow.storage.run_folder import RunFolder, find_run


def raised(function: Any, *args: Any, **options: Any) -> CellflowError:
    with pytest.raises(CellflowError) as caught:
        result = function(*args, **options)
        list(result[1]) if isinstance(result, tuple) else None
    return caught.value


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def facts(error: CellflowError, *names: str) -> tuple[Any, ...]:
    return tuple(error.facts[name] for name in names)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
        for at, image in enumerate("ab"):
            tifffile.imwrite(folder / name / f"{image}.tif", np.eye(8, dtype=np.uint8) * (at + 1))
    return folder


@pytest.fixture
def data(source: Path, tmp_path: Path) -> Path:
    prepare(PrepareConfig(source=source, out=tmp_path / "data"))
    return tmp_path / "data"


def test_a_table(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "id,fold\na,0\nb\n")
    error = raised(read_rows, path, ("id", "fold"))
    assert facts(error, "path", "line", "expected", "found") == (path, 3, 2, 1)
    error = raised(read_rows, path, ("id", "group"))
    assert facts(error, "path", "line", "found") == (path, 1, ("id", "fold"))
    assert error.expected == ("id", "group")
    error = raised(read_rows, written(path, "id,id\n"), ("id",))
    assert facts(error, "path", "line", "found") == (path, 1, ["id"])
    error = raised(read_fold_table, written(path, "id,fold\na\n"))
    assert facts(error, "path", "line", "expected", "found") == (path, 2, 2, 1)
    error = raised(read_fold_table, tmp_path / "none.csv")
    assert error.path == tmp_path / "none.csv"


def test_a_dataset(data: Path, tmp_path: Path) -> None:
    path = data / "images.csv"
    whole = path.read_text()
    assert facts(raised(Dataset.open(data).image, "z"), "path", "id") == (data, "z")
    path.write_text(whole.replace("b.tif", "../b.tif"))
    error = raised(Dataset.open, data)
    assert facts(error, "path", "line", "id", "found") == (path, 3, "b", "../b.tif")
    path.write_text(whole + whole.splitlines()[-1] + "\n")
    assert facts(raised(Dataset.open, data), "path", "line", "id") == (path, 4, "b")
    path.write_text(whole)
    tifffile.imwrite(data / "images" / "a.tif", np.ones((3, 5), np.uint8))
    error = raised(Dataset.open(data).image, "a")
    assert facts(error, "path", "id") == (data / "images" / "a.tif", "a")
    assert (tuple(error.expected), error.found) == ((8, 8), (3, 5))  # type: ignore[call-overload]
    said = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(said | {"version": 99}))
    error = raised(Dataset.open, data)
    assert facts(error, "path", "found") == (data / "dataset.json", 99)
    assert raised(Dataset.open, tmp_path / "none").path == tmp_path / "none"


def test_a_damaged_annotation(data: Path) -> None:
    path = data / "instances.csv"
    path.write_text("id,annotation\na,900 1\n")
    error = raised(Dataset.open(data).instances, "a")
    assert facts(error, "path", "id") == (path, "a")
    path.write_text("id,annotation\nz,1 1\n")
    assert facts(raised(Dataset.open(data).instances, "a"), "path", "line", "id") == (path, 2, "z")


def test_folds(data: Path) -> None:
    error = raised(make_folds, FoldsConfig(data=data, k=9))
    assert facts(error, "expected", "found") == (9, 2)
    make_folds(FoldsConfig(data=data, k=2))
    assert raised(make_folds, FoldsConfig(data=data, split="holdout")).path == data / "folds.csv"
    error = raised(make_folds, FoldsConfig(data=data, k=2, group="well", overwrite=True))
    assert error.found == "well"
    error = raised(wanted_folds, ("7",), [0, 1], Dataset.open(data))
    assert facts(error, "path", "expected", "found") == (data / "folds.csv", [0, 1], [7])


def test_images_and_masks(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((4, 4), 0.5, np.float32))
    assert facts(raised(read_masks, path), "path", "found") == (path, np.dtype("float32"))
    tifffile.imwrite(path, np.full((4, 4), -3, np.int32))
    assert facts(raised(read_masks, path), "path", "expected", "found") == (path, 0, -3)
    tifffile.imwrite(path, np.zeros((9, 7, 8, 8), np.uint8))
    error = raised(read_image, path)
    assert facts(error, "path", "found") == (path, (9, 7, 8, 8))
    assert raised(read_image, written(path, "")).path == path
    assert raised(read_image, written(path, "II*\0 and no more")).path == path
    assert raised(read_image, tmp_path / "none.tif").path == tmp_path / "none.tif"


def test_flows(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, flow=np.zeros((2, 4, 4)), cellprob=np.zeros((4, 4)))
    error = raised(read_foreign_flows, path)
    assert facts(error, "path", "found") == (path, ("cellprob", "flow"))
    assert raised(FlowStore, tmp_path / "none.zarr").path == tmp_path / "none.zarr"
    store = FlowStore(tmp_path / "flows.zarr", mode="w")
    assert facts(raised(store.facts, "a"), "path", "id") == (tmp_path / "flows.zarr", "a")


def test_settings_and_runs(tmp_path: Path) -> None:
    path = written(tmp_path / "oof.yaml", "command: oof\n")
    error = raised(read_config_file, path, "train")
    assert facts(error, "path", "expected", "found") == (path, "train", "oof")
    assert raised(read_config_file, written(path, "- a\n"), "train").found is list
    (tmp_path / "runs" / "exp").mkdir(parents=True)
    run = RunFolder(tmp_path / "runs" / "exp")
    written(run.record_path, "data: x\n")
    assert raised(run.read_record).path == run.record_path
    error = raised(find_run, "epx", tmp_path / "runs")
    assert facts(error, "path", "expected", "found") == (tmp_path / "runs", ["exp"], "epx")


def test_one_problem_of_many_keeps_its_own(source: Path, tmp_path: Path) -> None:
    (source / "masks" / "b.tif").write_bytes(b"")
    error = raised(prepare, PrepareConfig(source=source, out=tmp_path / "data"))
    assert facts(error, "path", "id") == (source / "masks" / "b.tif", "b")
    error = raised(prepare, PrepareConfig(source=tmp_path / "none", out=tmp_path / "data"))
    assert error.path == tmp_path / "none"

from __future__ import annotations

import json
import pickle
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pytest

from cellflow.errors import DataError, FoldError, RleError
from cellflow.io.dataset import Dataset, DatasetWriter
from cellflow.io.fold_table import (
    fold_table_hash,
    read_fold_facts,
    read_fold_table,
    write_fold_table,
)
from cellflow.io.images import read_image, write_labels
from cellflow.io.source import FileImage
from cellflow.numeric.rle import instances_from_rles, rles_from_instances
from cellflow.storage.hashing import hash_array

IDS = ("NA", "007", "cell, of 3", "1e5")
"""Ids that spreadsheet readers like to spoil."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "data"
    target.mkdir()
    writer = DatasetWriter(target)
    for number, image_id in enumerate(IDS):
        file = tmp_path / f"{image_id}.PNG"
        pixels = np.full((6, 8), number, np.uint16)
        file.write_bytes(imagecodecs.png_encode(pixels))
        cells = instances_from_rles(["1 3", "3 4"][:number], (6, 8))
        columns = {"well": "0010", "kind": "NaN"}
        source = FileImage(image_id, file, columns)
        writer.add(source, pixels, cells, pixel_hash=hash_array(pixels))
    writer.finish("test")
    return target


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_reads_what_was_written(folder: Path) -> None:
    dataset = Dataset.open(folder)
    assert dataset.ids == sorted(IDS)
    assert len(dataset) == 4
    assert dataset.images.loc["007", "well"] == "0010"
    assert set(dataset.images["kind"]) == {"NaN"}
    assert dataset.images["n_instances"].to_dict() == {"NA": 0, "007": 1, "cell, of 3": 2, "1e5": 2}
    assert dataset.images.loc["1e5", "file"] == "1e5.png"
    assert np.array_equal(dataset.image("1e5"), np.full((6, 8), 3, np.uint16))
    assert rles_from_instances(dataset.instances("cell, of 3")) == ["1 3", "3 4"]
    assert dataset.labels("cell, of 3")[0].tolist() == [1, 1, 1, 2, 2, 2, 0, 0]
    facts = json.loads((folder / "dataset.json").read_text())
    assert facts["n_images"] == 4
    assert facts["n_instances"] == 5
    assert facts["data_hash"] == dataset.hash


def test_pickles_small_and_whole(folder: Path) -> None:
    dataset = Dataset.open(folder)
    dataset.instances("007")
    data = pickle.dumps(dataset)
    assert len(data) < 1000
    assert pickle.loads(data).hash == dataset.hash


def test_rows_in_another_order_are_the_same_data(folder: Path) -> None:
    before = Dataset.open(folder).hash
    for name in ("images.csv", "instances.csv"):
        head, *rows = (folder / name).read_text().splitlines()
        (folder / name).write_text("\n".join([head, *reversed(rows)]) + "\n")
    assert Dataset.open(folder).hash == before
    assert Dataset.open(folder).ids == sorted(IDS)


def test_columns_of_the_user_may_be_edited(folder: Path) -> None:
    before = Dataset.open(folder).hash
    edit(folder / "images.csv", "0010", "0011")
    assert Dataset.open(folder).hash == before


def test_changed_cells_are_noticed(folder: Path) -> None:
    edit(folder / "instances.csv", "3 4", "3 5")
    with pytest.raises(DataError, match="has changed since `cellflow prepare`"):
        _ = Dataset.open(folder).hash


def test_unknown_id(folder: Path) -> None:
    dataset = Dataset.open(folder)
    for read in (dataset.image, dataset.labels, dataset.instances):
        with pytest.raises(DataError, match="no image with the id '7' among its 4 images"):
            read("7")


def test_not_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found no such folder\. Make one with `cellflow prepare"):
        Dataset.open(tmp_path / "gone")
    with pytest.raises(DataError, match=r"found no dataset\.json in it"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "zarr"}', "{"])
def test_damaged_description(folder: Path, text: str) -> None:
    (folder / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset\.json: not the description of a cellflow"):
        Dataset.open(folder)


def test_newer_version(folder: Path) -> None:
    edit(folder / "dataset.json", '"version": 1', '"version": 2')
    with pytest.raises(DataError, match="version 2 of the format, this cellflow knows 1"):
        Dataset.open(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("images.csv", "n_instances", "cells", "not found: n_instances"),
        ("images.csv", ",6,8,", ",six,8,", "line 2: expected a number of at least 1 as height"),
        ("images.csv", "007,007", "NA,007", "line 4: the id 'NA' has a row already"),
    ],
)
def test_damaged_image_table(folder: Path, name: str, old: str, new: str, message: str) -> None:
    edit(folder / name, old, new)
    with pytest.raises(DataError, match=message):
        Dataset.open(folder)


def test_damaged_files(folder: Path) -> None:
    edit(folder / "instances.csv", "007,1 3", "007,1 3 9")
    with pytest.raises(RleError, match=r"instances\.csv \(image 007\)"):
        Dataset.open(folder).instances("007")
    edit(folder / "instances.csv", "007,", "008,")
    with pytest.raises(DataError, match=r"instances\.csv line 2: unknown id '008'"):
        Dataset.open(folder).instances("007")
    (folder / "images" / "007.png").write_bytes(imagecodecs.png_encode(np.zeros((8, 6), np.uint8)))
    with pytest.raises(DataError, match=r"007\.png: expected 6 x 8 .* found 8 x 6"):
        Dataset.open(folder).image("007")
    (folder / "labels" / "007.tif").unlink()
    with pytest.raises(DataError, match=r"007\.tif: there is no such file"):
        Dataset.open(folder).labels("007")
    assert read_image(folder / "images" / "NA.png").shape == (6, 8)


# -------------------------------------------------------------------------------------- fold tables


def folds_of(*numbers: int) -> pd.Series[int]:
    return pd.Series(dict(zip(IDS, numbers, strict=True)), dtype="int64", name="fold")


def test_fold_table_round_trip(folder: Path) -> None:
    dataset = Dataset.open(folder)
    with pytest.raises(
        FoldError, match=r"there is no fold table\. Make one with: cellflow folds --data "
    ):
        dataset.folds()
    write_fold_table(dataset.folds_path, folds_of(0, 1, -1, 1), {"group": None})
    assert dataset.folds().to_dict() == {"NA": 0, "007": 1, "cell, of 3": -1, "1e5": 1}
    assert list(dataset.folds().index) == sorted(IDS)
    facts = read_fold_facts(dataset.folds_path)
    assert facts == {"group": None, "hash": dataset.folds_hash()}


def test_a_sorted_table_is_the_same_table(folder: Path) -> None:
    path = folder / "folds.csv"
    write_fold_table(path, folds_of(0, 1, 0, 1), {})
    before = fold_table_hash(read_fold_table(path))
    head, *rows = path.read_text().splitlines()
    path.write_text("﻿" + "\r\n".join([head, *reversed(rows)]) + "\r\n\r\n", encoding="utf-8")
    assert fold_table_hash(read_fold_table(path, IDS)) == before
    edit(path, "1e5,1", "1e5,0")
    assert fold_table_hash(read_fold_table(path, IDS)) != before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id,fold\nx,0\ny,1\nz,1\n", ["line 4: unknown id 'z'"]),
        ("id,fold\nx,0\n", ["the image 'y' has no row; give it a fold, or -1"]),
        ("id,fold\nx,0\ny,1\nx,1\n", ["line 4: the id 'x' has a row already"]),
        ("id,fold\nx,0\ny,1.5\n", ["line 3: expected a fold number", "found '1.5'"]),
        ("id,fold\nx,0\ny,-2\n", ["line 3: expected a fold number", "found '-2'"]),
        ("id,fold\nx,0\ny,\n", ["line 3: expected a fold number", "found ''"]),
        ("id,fold\nx,0\ny,2\n", ["numbered 0, 1, ... without leaving one out; found 0, 2"]),
        ("id,fold\nx,0\ny,0\n", ["at least two folds", "found 0"]),
        ("id,fold\nx,0\ny,-1\n", ["at least two folds", "found 0"]),
        ("name,fold\nx,0\n", ["expected the columns id, fold; not found: id"]),
        ("id,fold\nx,0,3\n", ["line 2: expected 2 values, found 3"]),
        ("id,fold\nx,a\nz,0\n", ["line 2: expected", "line 3: unknown", "'y' has no row"]),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, text: str, expected: list[str]) -> None:
    path = tmp_path / "folds.csv"
    path.write_text(text)
    with pytest.raises(FoldError) as caught:
        read_fold_table(path, ["x", "y"])
    for part in ["folds.csv", *expected]:
        assert part in str(caught.value)


def test_many_problems_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "folds.csv"
    path.write_text("id,fold\n" + "".join(f"i{number},0\n" for number in range(100)))
    with pytest.raises(FoldError, match="and 80 more") as caught:
        read_fold_table(path, [])
    assert len(str(caught.value).splitlines()) == 23


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"group": ["a"]}', '{"split": 3}', "[" * 10**5])
def test_damaged_facts_are_refused_with_their_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "folds.csv"
    path.with_suffix(".json").write_text(text)
    with pytest.raises(FoldError, match=r"folds\.json: .* `cellflow folds --overwrite`"):
        read_fold_facts(path)
    path.with_suffix(".json").unlink()
    assert read_fold_facts(path) == {}


def test_labels_of_another_size(folder: Path) -> None:
    name = Dataset.open(folder).ids[0]
    write_labels(folder / "labels" / f"{name}.tif", np.ones((3, 4), np.uint8))
    with pytest.raises(
        DataError, match=rf"{name}\.tif: expected .* as images\.csv says, found 3 x 4"
    ):
        Dataset.open(folder).labels(name)

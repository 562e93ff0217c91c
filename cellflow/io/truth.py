"""Annotated cells to score against: a dataset folder, label maps, or a table in the Kaggle layout."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.io.fold_table import read_fold_facts
from cellflow.io.mask_findings import read_label_map
from cellflow.io.predictions import label_map_files
from cellflow.io.tables import Row, find_table, read_rows, whole_number
from cellflow.numeric.labels import instances_from_labels
from cellflow.numeric.mask_checks import order_of_rles
from cellflow.numeric.rle import instances_from_rles
from cellflow.types import Instances

__all__ = ["Truth", "dataset_truth", "read_truth"]

_log = logging.getLogger(__name__)

_TABLE_COLUMNS = ("id", "annotation", "width", "height")


@dataclass(frozen=True, eq=False)
class Truth:
    """Annotated cells of many images, read one image at a time.

    Attributes
    ----------
    path : Path
        Where they are.
    images : DataFrame
        A row per image, indexed by id (text), sorted; columns are what is known of the images, such as
        cell_type and groups.
    instances : callable
        Takes an id and gives its cells, which may overlap.
    fold_facts : dict
        How the folds of the dataset were made; empty where there are none.
    kind : str
        What it is, for people.
    place : callable
        Takes an id and gives the file that its cells are in.
    image : callable or None
        Takes an id and gives its image, ``(H, W)`` or ``(H, W, C)``; None where the images are not known.
    ending : str
        What the names of label maps end in beyond the id.
    """

    path: Path
    images: pd.DataFrame
    instances: Callable[[str], Instances]
    fold_facts: dict[str, object]
    kind: str
    place: Callable[[str], Path]
    image: Callable[[str], NDArray[Any]] | None = None
    ending: str = ""


def read_truth(path: Path, *, ending: str = "") -> Truth:
    """Find annotated cells.

    Parameters
    ----------
    path : Path
        Dataset folder made by `cellflow prepare`; folder of label maps, or with ``masks/`` in it; CSV
        with the columns id, annotation, width and height (1-indexed runs, column-major where cells are
        compact only then, else row-major; a row per cell; an image without cells has one row with an
        empty annotation), or a folder with ``train.csv`` in it; either may be gzipped.
    ending : str
        What the names of label maps end in, see `label_map_files`.

    Raises
    ------
    DataError
        If there are none, or a table is not what it should be.
    """
    path = Path(path)
    if (path / "dataset.json").is_file():
        return dataset_truth(Dataset.open(path))
    table = find_table(path, "train.csv")
    if table is not None:
        return _from_table(table)
    return _from_table(path) if path.is_file() else _from_label_maps(path, ending)


def dataset_truth(dataset: Dataset) -> Truth:
    """The cells of a prepared dataset."""
    facts = read_fold_facts(dataset.folds_path)
    return Truth(
        dataset.path,
        dataset.images,
        dataset.instances,
        facts,
        "dataset",
        lambda image_id: dataset.path / "labels" / f"{image_id}.tif",
        dataset.image,
    )


def _from_label_maps(folder: Path, ending: str) -> Truth:
    maps = label_map_files(folder, ending=ending)
    files = maps.files

    def read(image_id: str) -> Instances:
        return instances_from_labels(read_label_map(files[image_id]))

    images = pd.DataFrame(index=pd.Index(sorted(files), name="id", dtype=str))
    return Truth(folder, images, read, {}, maps.kind, files.__getitem__, ending=maps.ending)


def _from_table(path: Path) -> Truth:
    columns, rows = read_rows(path, _TABLE_COLUMNS)
    firsts: dict[str, Row] = {}
    annotations: dict[str, list[str]] = {}
    varying: set[str] = set()
    for row in rows:
        values = row.values
        for name in ("height", "width"):  # 64.0 in one row is 64 in another
            whole = whole_number(values[name])
            values[name] = values[name] if whole is None else str(whole)
        annotation, first = values.pop("annotation"), firsts.setdefault(values["id"], row)
        varying |= {name for name in values if values[name] != first.values[name]}
        if varying & {"width", "height"}:
            raise DataError(
                f"{path} line {row.line}: the image {values['id']} is {_size(row)} here and "
                f"{_size(first)} in line {first.line} (height x width). Correct the table."
            )
        annotations.setdefault(values["id"], [])
        annotations[values["id"]] += [annotation] if annotation else []
    if not firsts:
        raise DataError(f"{path}: expected a row per cell, found none.")
    shapes = {image_id: _shape(path, row) for image_id, row in firsts.items()}

    order = order_of_rles((annotations[image_id], shapes[image_id]) for image_id in firsts)
    if order == "F":
        _log.warning(
            "%s: the runs go column by column (read row by row, most cells fall to pieces); read so.",
            path,
        )

    def read(image_id: str) -> Instances:
        try:
            return instances_from_rles(annotations[image_id], shapes[image_id], order)
        except DataError as error:
            raise DataError(f"{path}: image {image_id}: {error}") from error

    # A column that differs between the cells of an image says nothing of the image.
    kept = [name for name in columns if name not in varying | {"annotation"}]
    images = pd.DataFrame([row.values for row in firsts.values()], columns=kept, dtype=str)
    kind = "table with a row per cell"
    return Truth(path, images.set_index("id").sort_index(), read, {}, kind, lambda _: path)


def _shape(path: Path, row: Row) -> tuple[int, int]:
    shape = whole_number(row.values["height"]) or 0, whole_number(row.values["width"]) or 0
    if min(shape) < 1:
        raise DataError(
            f"{path} line {row.line} (image {row.values['id']}): expected a height and a width of at "
            f"least 1, found {_size(row)}."
        )
    return shape


def _size(row: Row) -> str:
    return f"{row.values['height']} x {row.values['width']}"

"""The prepared dataset folder: native images, cells as runs, training labels, tables.

::

    dataset.json    format, version, source layout, counts, data hash
    images.csv      one row per image; columns beyond ours are kept as text, without blanks around it
    instances.csv   id,annotation: one row per cell, row-major 1-indexed runs
    images/         the source files, byte for byte (an image in several files becomes one file)
    labels/ID.tif   label maps; where cells overlap the pixel goes to the smaller one
    folds.csv       id,fold; made by `cellflow folds` or by hand
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow import __version__
from cellflow.errors import DataError
from cellflow.io._dataset_facts import FORMAT, VERSION, is_dataset, read_facts
from cellflow.io.channel_names import join_names, split_names
from cellflow.io.fold_table import fold_table_hash, read_fold_table
from cellflow.io.images import read_image, read_labels, write_labels
from cellflow.io.large import LargeImage, open_large_image
from cellflow.io.pixel_limit import room_for
from cellflow.io.pixel_size import PixelSize, sensible_pixel_size
from cellflow.io.source import SourceImage
from cellflow.io.tables import Row, read_rows, whole_number
from cellflow.numeric.labels import labels_from_instances, median_diameter
from cellflow.numeric.rle import instances_from_rles, rles_from_instances
from cellflow.storage.atomic import write_csv, write_json
from cellflow.storage.csv_text import csv_writer
from cellflow.storage.hashing import hash_bytes
from cellflow.types import Instances

__all__ = ["NEAR_COPY", "Dataset", "DatasetWriter", "is_dataset"]

_WHOLE_NUMBERS = ("height", "width", "channels", "n_instances")
_NUMBERS = (*_WHOLE_NUMBERS, "median_diameter")
_PIXEL_SIZE = ("pixel_height_um", "pixel_width_um")
"""Empty where it is unknown."""
_COLUMNS = (
    "id",
    "file",
    "height",
    "width",
    "channels",
    "dtype",
    "n_instances",
    "median_diameter",
    "pixel_hash",
    *_PIXEL_SIZE,
)


_NAMES = "channel_names"
"""Names of all channels, ``DAPI;GFP``; empty where they are unknown. Older datasets lack the column."""
NEAR_COPY = "near_copy_of"
"""Column of images.csv that is there where images are other forms of one: the id of the first of them."""


class Dataset:
    """A dataset folder made by `cellflow prepare`.

    Pixels, labels and cells are read when asked for; the object is small when pickled.

    Attributes
    ----------
    path : Path
        The folder.
    images : DataFrame
        One row per image, indexed by id (text), sorted: file, height, width, channels, dtype,
        n_instances, median_diameter (pixels; 0 without cells), pixel_hash, pixel_height_um and
        pixel_width_um (nan where unknown), channel_names, cell_type if known, and every column of the source as text.
    """

    def __init__(self, path: Path, images: pd.DataFrame, facts: dict[str, Any]) -> None:
        self.path = path
        self.images = images
        self._facts = facts

    @classmethod
    def open(cls, path: Path | str) -> Dataset:
        """Open a dataset folder.

        Raises
        ------
        DataError
            If it is missing, damaged, or of a newer version.
        """
        path = Path(path)
        facts = read_facts(path)
        return cls(path, _read_images_table(path / "images.csv"), facts)

    def __reduce__(self) -> tuple[Any, ...]:
        return Dataset.open, (self.path,)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}: {len(self)} images)"

    @property
    def ids(self) -> list[str]:
        """Ids of all images, sorted."""
        return [str(image_id) for image_id in self.images.index]

    computed_columns = (*_COLUMNS, _NAMES, NEAR_COPY)
    """Columns of `images` that `cellflow prepare` computes; the others came with the source."""

    @property
    def folds_path(self) -> Path:
        """Where the fold table lies."""
        return self.path / "folds.csv"

    @cached_property
    def hash(self) -> str:
        """Data hash: changes with any pixel or any cell, not with the order of rows.

        Raises
        ------
        DataError
            If images.csv or instances.csv was changed after `cellflow prepare` made the labels.
        """
        found = _data_hash(self.images["pixel_hash"].to_dict(), self._annotations)
        if found != self._facts["data_hash"]:
            text = (
                f"{self.path}: images.csv or instances.csv has changed since `cellflow prepare` "
                "wrote this dataset, so its labels no longer fit. Prepare it again from its source."
            )
            raise DataError(text, path=self.path, expected=self._facts["data_hash"], found=found)
        return found

    def image(self, image_id: str) -> NDArray[Any]:
        """Pixels of one image, native dtype, ``(H, W)`` or ``(H, W, C)``.

        Raises
        ------
        DataError
            If the id is unknown, or the file is missing, damaged or of another size than recorded.
        """
        path, most = self._image_path(image_id), room_for(math.prod(self._shape(image_id)))
        pixels = read_image(path, max_pixels=most)
        self._check_shape(image_id, pixels.shape[:2], path)
        return pixels

    def open_large(
        self, image_id: str, *, level: int = 0, pixel_size: PixelSize | None = None
    ) -> LargeImage:
        """One image, to be read box by box and closed; raises as `image` does."""
        path, most = self._image_path(image_id), room_for(math.prod(self._shape(image_id)))
        image = open_large_image(path, level=level, pixel_size=pixel_size, max_pixels=most)
        try:
            self._check_shape(image_id, image.levels[0], path)
        except DataError:
            image.close()
            raise
        return image

    def _image_path(self, image_id: str) -> Path:
        return self.path / "images" / str(self._value(image_id, "file"))

    def _check_shape(self, image_id: str, found: tuple[int, ...], path: Path) -> None:
        shape = self._shape(image_id)
        if found != shape:
            text = (
                f"{path}: expected {shape[0]} x {shape[1]} (height x width) as images.csv "
                f"says, found {found[0]} x {found[1]}. Prepare the dataset again."
            )
            raise DataError(text, path=path, id=image_id, expected=shape, found=found)

    def pixel_size(self, image_id: str) -> PixelSize | None:
        """Micrometres per pixel of one image, where its file told them."""
        return sensible_pixel_size(*(self._value(image_id, name) for name in _PIXEL_SIZE))

    def channel_names(self, image_id: str) -> tuple[str, ...]:
        """Names of all channels of one image; none where they are not known, or not all."""
        names = split_names(str(self._value(image_id, _NAMES)))
        return names if len(names) == self._value(image_id, "channels") else ()

    def labels(self, image_id: str) -> NDArray[np.int32]:
        """Label map for training, ``(H, W)`` int32: a disputed pixel belongs to the smaller cell.

        Raises
        ------
        DataError
            If the id is unknown, or the file is missing, damaged or of another size than recorded.
        """
        path = self.path / "labels" / f"{image_id}.tif"
        labels = read_labels(path, max_pixels=room_for(math.prod(self._shape(image_id))))
        self._check_shape(image_id, labels.shape, path)
        return labels

    def instances(self, image_id: str) -> Instances:
        """The cells of one image, which may overlap."""
        shape = self._shape(image_id)
        try:
            return instances_from_rles(self._annotations[image_id], shape)
        except DataError as error:
            path = self.path / "instances.csv"
            facts = error.facts | {"path": path, "id": error.id or image_id}
            raise type(error)(f"{path} (image {image_id}): {error}", **facts) from error

    def folds(self) -> pd.Series[int]:
        """Fold of every image as ``folds.csv`` says, by id; -1 is reserved.

        Raises
        ------
        FoldError
            If there is no fold table or it does not fit the images.
        """
        return read_fold_table(self.folds_path, self.ids)

    def folds_hash(self) -> str:
        """Hash of the fold table, whatever the order of its rows."""
        return fold_table_hash(self.folds())

    def _value(self, image_id: str, name: str) -> Any:
        if image_id not in self.images.index:
            text = f"{self.path}: no image with the id {image_id!r} among its {len(self)} images."
            raise DataError(text, path=self.path, id=image_id)
        return self.images.at[image_id, name]

    def _shape(self, image_id: str) -> tuple[int, int]:
        return int(self._value(image_id, "height")), int(self._value(image_id, "width"))

    @cached_property
    def _annotations(self) -> dict[str, list[str]]:
        path = self.path / "instances.csv"
        annotations: dict[str, list[str]] = {image_id: [] for image_id in self.ids}
        for row in read_rows(path, ("id", "annotation"))[1]:
            image_id = row.values["id"]
            if image_id not in annotations:
                text = f"{path} line {row.line}: unknown id {image_id!r}."
                raise DataError(text, path=path, line=row.line, id=image_id)
            annotations[image_id].append(row.values["annotation"])
        return annotations


class DatasetWriter:
    """Writes a dataset folder image by image.

    Parameters
    ----------
    folder : Path
        An empty folder; make it with `atomic_folder`, so that nothing half-written stays.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[dict[str, Any]] = []
        self._annotations: dict[str, list[str]] = {}
        for name in ("images", "labels"):
            (folder / name).mkdir()

    def add(
        self, source: SourceImage, pixels: NDArray[Any], instances: Instances, *, pixel_hash: str
    ) -> None:
        """Write one image; `pixel_hash` is `hash_array` of its pixels."""
        name = source.save_pixels(self._folder / "images", pixels)
        labels = labels_from_instances(instances)
        size, channels = source.pixel_size(), pixels.shape[2] if pixels.ndim == 3 else 1
        names = source.channel_names()
        write_labels(self._folder / "labels" / f"{source.id}.tif", labels, size)
        self._annotations[source.id] = rles_from_instances(instances)
        self._rows.append(
            {
                "id": source.id,
                "file": name,
                "height": pixels.shape[0],
                "width": pixels.shape[1],
                "channels": channels,
                "dtype": str(pixels.dtype),
                "n_instances": len(instances),
                "median_diameter": round(median_diameter(labels), 3),
                "pixel_hash": pixel_hash,
                **dict(zip(_PIXEL_SIZE, size or ("", ""), strict=True)),
                _NAMES: join_names(names) if len(names) == channels else "",
                **{_free_name(column): text for column, text in source.columns.items()},
            }
        )

    def finish(self, layout: str, copies: Mapping[str, str] | None = None) -> None:
        """Write the tables and ``dataset.json``; `copies` are images of which the first form is another."""
        if copies:
            self._rows = [row | {NEAR_COPY: copies.get(row["id"], "")} for row in self._rows]
        table = pd.DataFrame(self._rows).sort_values("id")
        write_csv(self._folder / "images.csv", table)
        with (self._folder / "instances.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv_writer(file)
            writer.writerow(["id", "annotation"])
            for image_id in sorted(self._annotations):
                writer.writerows([image_id, rle] for rle in self._annotations[image_id])
        hashes = dict(zip(table["id"], table["pixel_hash"], strict=True))
        facts = {
            "format": FORMAT,
            "version": VERSION,
            "source_layout": layout,
            "n_images": len(table),
            "n_instances": int(table["n_instances"].sum()),
            "data_hash": _data_hash(hashes, self._annotations),
            "cellflow_version": __version__,
        }
        write_json(self._folder / "dataset.json", facts)


def _free_name(column: str) -> str:
    """Name of a column of the source that does not clash with one of ours."""
    return f"source_{column}" if column in Dataset.computed_columns else column


def _data_hash(pixel_hashes: dict[Any, Any], annotations: dict[str, list[str]]) -> str:
    chunks = []
    for image_id in sorted(pixel_hashes):
        cells = sorted(annotations.get(image_id, []))
        chunks.append(f"{image_id}\n{pixel_hashes[image_id]}\n{len(cells)}".encode())
        chunks += [cell.encode() for cell in cells]
    return hash_bytes(*chunks)


def _read_images_table(path: Path) -> pd.DataFrame:
    columns, found = read_rows(path, _COLUMNS)
    rows = list(found)
    if not rows:
        message = f"{path}: expected a row per image, found none. Prepare the dataset again."
        raise DataError(message, path=path)
    numbers = {name: [_number(path, row, name) for row in rows] for name in _NUMBERS}
    seen: set[str] = set()
    for row in rows:
        image_id, file = row.values["id"], row.values["file"]
        if image_id in seen:
            text = f"{path} line {row.line}: the id {image_id!r} has a row already."
            raise DataError(text, path=path, line=row.line, id=image_id)
        if not file or Path(file).name != file or "\0" in file:
            text = (
                f"{path} line {row.line}: expected the name of a file in images/, found {file!r}."
            )
            raise DataError(text, path=path, line=row.line, id=image_id, found=file)
        seen.add(image_id)
    table = pd.DataFrame([row.values for row in rows], columns=columns, dtype=str)
    for name in _WHOLE_NUMBERS:
        table[name] = np.array(numbers[name], dtype=np.int64)
    table[_NAMES] = table.get(_NAMES, "")
    table["median_diameter"] = np.array(numbers["median_diameter"], dtype=np.float64)
    for name in _PIXEL_SIZE:
        table[name] = pd.to_numeric(table[name], errors="coerce")
    return table.set_index("id").sort_index()


def _number(path: Path, row: Row, name: str) -> float:
    """A number of one of our own columns: none is negative, and an image has at least one pixel."""
    text = row.values[name]
    try:
        number = whole_number(text) if name in _WHOLE_NUMBERS else float(text)
    except ValueError:
        number = None
    least = 1 if name in ("height", "width", "channels") else 0
    if number is None or not least <= number < math.inf:
        message = (
            f"{path} line {row.line}: expected a number of at least {least} as {name}, found {text!r}. "
            "Put the old value back, or prepare the dataset again."
        )
        raise DataError(
            message, path=path, line=row.line, id=row.values["id"], expected=least, found=text
        )
    return number

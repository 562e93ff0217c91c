"""The layout of the Sartorius competition: ``train.csv`` with one run-length row per cell, ``train/``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cellflow.errors import DataError, RleError
from cellflow.io.formats.base import ReadOptions, SourceFormat
from cellflow.io.images import IMAGE_SUFFIXES, image_shape, list_images
from cellflow.io.places import (
    KAGGLE_FOLDERS,
    TABLE,
    find_folder,
    is_kaggle_layout,
    tell_of_passed_over,
)
from cellflow.io.source import FileImage, Shape, Source, SourceImage, by_id, match_id
from cellflow.io.tables import Row, find_table, read_rows, whole_number
from cellflow.numeric.mask_checks import order_of_rles
from cellflow.numeric.rle import instances_from_rles, rle_decode
from cellflow.types import Instances

__all__ = ["KaggleTable"]

_log = logging.getLogger(__name__)

Rows = dict[str, list[Row]]
"""Rows of the table by image."""


class KaggleTable(SourceFormat):
    """``train.csv`` (1-indexed runs, a row per cell; an image without cells has one row with an empty annotation).

    To prepare it, its images are in ``train/ID.png``; width and height in the table are checked against
    them, and further columns are kept. As truth the table alone will do, under any name; it needs width
    and height.
    """

    name = "kaggle"
    uses = frozenset({"prepare", "truth"})

    def recognises(self, path: Path, options: ReadOptions) -> bool:
        """Whether table and images are there; as truth any file is a table."""
        if options.use == "prepare":
            return options.masks is None and is_kaggle_layout(path)
        return path.is_file() or find_table(path, TABLE) is not None

    def read(self, path: Path, options: ReadOptions) -> Source:
        """Read the table; runs are decoded image by image."""
        return _read_folder(path, options) if options.use == "prepare" else _read_truth(path)


@dataclass(frozen=True)
class _Cells:
    """The cells of one image, as rows of the table."""

    table: Path
    image_id: str
    column: str
    order: Literal["C", "F"]
    rows: list[Row]

    def __call__(self, shape: Shape | None) -> Instances:
        """Decode them; says which line of the table is wrong."""
        size = shape or _size(self.table, self.rows[0], self.image_id)
        for row in self.rows:
            _check_size(self.table, row, size)
        cells = [row for row in self.rows if row.values[self.column]]
        if cells and len(cells) < len(self.rows):
            empty = next(row for row in self.rows if not row.values[self.column])
            raise DataError(
                f"{self.table} line {empty.line}: an empty {self.column}, but the image has cells in "
                "other rows. Remove the row; it stands for an image without cells.",
                path=self.table,
                line=empty.line,
                id=self.image_id,
            )
        rles = [row.values[self.column] for row in cells]
        try:
            return instances_from_rles(rles, size, self.order)
        except RleError as error:
            for row, rle in zip(cells, rles, strict=True):
                try:
                    rle_decode(rle, size)
                except RleError as single:
                    raise RleError(
                        f"{self.table} line {row.line} (image {self.image_id}): {single}. "
                        "Correct or remove the row.",
                        path=self.table,
                        line=row.line,
                        id=self.image_id,
                    ) from error
            raise


# ------------------------------------------------------------------------------------- images and cells


def _read_folder(folder: Path, options: ReadOptions) -> Source:
    """Images with a row, sorted by id; those without one are left out with a warning."""
    problems, column = options.problems, options.annotation_column
    table = find_table(folder, TABLE) or folder / TABLE
    place = find_folder(folder, KAGGLE_FOLDERS) or folder / "train"
    files = by_id((FileImage(path.stem, path) for path in list_images(place)), problems)
    if not files:
        problems.add(f"{place}: no images ({', '.join(IMAGE_SUFFIXES)}) in this folder.")
    flags = {options.id_column: "--id_column", column: "--annotation_column"}
    columns, rows = read_rows(table, (options.id_column, column), options=flags)
    by_image: Rows = {}
    for row in rows:
        text = row.values[options.id_column]
        image_id = match_id(text, files)
        if image_id is None:
            problems.add(_unknown_id(table, row, text), text)
        else:
            by_image.setdefault(image_id, []).append(row)
    if not by_image:
        problems.add(f"{table}: no image of {place} has a row; expected a row per cell.")
    unannotated = sorted(files.keys() - by_image.keys())
    if by_image and unannotated:
        _log.warning(
            "%d of %d images in %s have no row in %s and are left out (%s ...). "
            "An image without cells needs a row with an empty %s.",
            *(len(unannotated), len(files), place, table.name, unannotated[0], column),
        )
    kept = _columns_of_images(table, columns, by_image, options)
    order = options.rle_order
    if order == "auto":
        order = order_of_rles(_sized(files, by_image, column))
        if order == "F":
            _log.warning(
                "%s: the runs go column by column: read row by row, most cells fall to pieces. They are "
                "read so; add --rle_order C to read them row by row.",
                table,
            )
    tell_of_passed_over(place)
    images: dict[str, SourceImage] = {
        image_id: FileImage(
            image_id,
            files[image_id].path,
            {name: rows[0].values[name] for name in kept},
            _Cells(table, image_id, column, order, rows),
        )
        for image_id, rows in sorted(by_image.items())
    }
    return Source(folder, KaggleTable.name, images)


def _unknown_id(table: Path, row: Row, text: str) -> DataError:
    return DataError(
        f"{table} line {row.line}: unknown id {text!r}: there is no "
        f"{table.parent / 'train' / (text or 'ID')}.png (or .tif, .jpg, .bmp). "
        "Add the image or remove the row.",
        path=table,
        line=row.line,
        id=text,
    )


def _sized(
    files: dict[str, FileImage], by_image: Rows, column: str
) -> Iterator[tuple[list[str], Shape]]:
    """Runs and size of the images that can be read; what is wrong with the others is told later."""
    for image_id, rows in by_image.items():
        with suppress(DataError):
            height, width = image_shape(files[image_id].path)[:2]
            yield [row.values[column] for row in rows], (height, width)


def _columns_of_images(
    table: Path, columns: list[str], by_image: Rows, options: ReadOptions
) -> list[str]:
    """Columns that have one value per image; the others describe cells and are left out."""
    used = {options.id_column, options.annotation_column, "width", "height"}
    varying = _varying(by_image) - used
    if varying:
        _log.warning(
            "Columns that differ between the cells of one image are left out: %s.",
            ", ".join(sorted(varying)),
        )
    types = options.cell_type_column
    if types in varying:
        image_id, row, first = next(
            (image_id, row, rows[0])
            for image_id, rows in by_image.items()
            for row in rows
            if row.values[types] != rows[0].values[types]
        )
        options.problems.add(
            f"{table} line {row.line}: {types} of image {image_id} is {row.values[types]!r} here "
            f"and {first.values[types]!r} above; expected one per image. Make them the same."
        )
    return [name for name in columns if name not in used | varying]


def _varying(by_image: Rows) -> set[str]:
    """Columns that differ between the rows of one image."""
    return {
        name
        for rows in by_image.values()
        for row in rows[1:]
        for name, value in row.values.items()
        if value != rows[0].values[name]
    }


# ------------------------------------------------------------------------------------------ truth alone


def _read_truth(path: Path) -> Source:
    """Cells of a table that says how large its images are."""
    table = find_table(path, TABLE) or path
    columns, rows = read_rows(table, ("id", "annotation", "width", "height"))
    by_image: Rows = {}
    for row in rows:
        by_image.setdefault(row.values["id"], []).append(row)
    if not by_image:
        raise DataError(f"{table}: expected a row per cell, found none.", path=table)
    sizes = {name: _size(table, rows[0], name) for name, rows in by_image.items()}
    for image_id, rows_of_image in by_image.items():
        _refuse_two_sizes(table, image_id, rows_of_image)
    runs = {name: [row.values["annotation"] for row in rows] for name, rows in by_image.items()}
    order = order_of_rles((runs[name], sizes[name]) for name in by_image)
    if order == "F":
        _log.warning(
            "%s: the runs go column by column (read row by row, most cells fall to pieces); read so.",
            table,
        )
    # A column that differs between the cells of an image says nothing of the image.
    left_out = _varying(by_image) - {"width", "height"} | {"id", "annotation"}
    kept = [name for name in columns if name not in left_out]
    images = {
        image_id: SourceImage(
            image_id,
            table,
            {name: rows[0].values[name] for name in kept},
            _Cells(
                table, image_id, "annotation", order,
                [row for row in rows if row.values["annotation"]] or rows,
            ),
        )
        for image_id, rows in sorted(by_image.items())
    }  # fmt: skip
    return Source(table, KaggleTable.name, images, "table with a row per cell")


def _size(table: Path, row: Row, image_id: str) -> Shape:
    height, width = (whole_number(row.values[name]) or 0 for name in ("height", "width"))
    if min(height, width) < 1:
        raise DataError(
            f"{table} line {row.line} (image {image_id}): expected a height and a width of at "
            f"least 1, found {_size_text(row)}.",
            path=table,
            line=row.line,
            id=image_id,
        )
    return height, width


def _refuse_two_sizes(table: Path, image_id: str, rows: list[Row]) -> None:
    for row in rows:
        if _size(table, row, image_id) != _size(table, rows[0], image_id):
            raise DataError(
                f"{table} line {row.line}: the image {image_id} is {_size_text(row)} here and "
                f"{_size_text(rows[0])} in line {rows[0].line} (height x width). Correct the table.",
                path=table,
                line=row.line,
                id=image_id,
            )


def _size_text(row: Row) -> str:
    return f"{row.values['height']} x {row.values['width']}"


def _check_size(table: Path, row: Row, shape: Shape) -> None:
    for name, found in (("height", shape[0]), ("width", shape[1])):
        text = row.values.get(name, "")
        if text and whole_number(text) != found:
            raise DataError(
                f"{table} line {row.line}: {name} {text}, but the image is "
                f"{shape[0]} x {shape[1]} (height x width). Replace the image or correct the table.",
                path=table,
                line=row.line,
                expected=found,
                found=text,
            )

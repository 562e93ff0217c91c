"""The layout of the Sartorius competition: ``train.csv`` with one run-length row per cell, ``train/``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

from cellflow.errors import DataError, RleError
from cellflow.io.images import IMAGE_SUFFIXES, image_info, list_images
from cellflow.io.places import tell_of_passed_over
from cellflow.io.source import Problems, Source, SourceImage, match_id
from cellflow.io.tables import Row, find_table, read_rows, whole_number
from cellflow.numeric.mask_checks import order_of_rles
from cellflow.numeric.rle import instances_from_rles, rle_decode
from cellflow.types import Instances

__all__ = ["is_kaggle_layout", "read_kaggle"]

_log = logging.getLogger(__name__)


def is_kaggle_layout(folder: Path) -> bool:
    """Whether a folder holds ``train.csv`` and ``train/``."""
    return find_table(folder, "train.csv") is not None and (folder / "train").is_dir()


def read_kaggle(
    folder: Path,
    problems: Problems,
    *,
    id_column: str = "id",
    annotation_column: str = "annotation",
    cell_type_column: str = "cell_type",
    rle_order: Literal["auto", "C", "F"] = "auto",
) -> Source:
    """Read the table and find the images.

    Parameters
    ----------
    folder : Path
        Holds ``train.csv`` (1-indexed runs, one row per cell; a row with an empty
        annotation is an image without cells) and ``train/ID.png``. The columns ``width`` and
        ``height`` are checked against the image; further columns are kept.
    problems : Problems
        Takes what is wrong with single rows.
    rle_order : {"auto", "C", "F"}
        Runs are row-major or column-major; "auto" takes the order in which cells are compact.

    Returns
    -------
    Source
        Images sorted by id. Images without a row are left out with a warning.
    """
    table = find_table(folder, "train.csv") or folder / "train.csv"
    files = _files_by_id(folder / "train", problems)
    options = {id_column: "--id_column", annotation_column: "--annotation_column"}
    columns, rows = read_rows(table, (id_column, annotation_column), options=options)
    by_image: dict[str, list[Row]] = {}
    for row in rows:
        image_id = match_id(row.values[id_column], files)
        if image_id is None:
            problems.add(_unknown_id(table, row, id_column), row.values[id_column])
        else:
            by_image.setdefault(image_id, []).append(row)
    if not by_image:
        problems.add(f"{table}: no image of {folder / 'train'} has a row; expected a row per cell.")
    unannotated = sorted(files.keys() - by_image.keys())
    if by_image and unannotated:
        _log.warning(
            "%d of %d images in %s have no row in %s and are left out (%s ...). "
            "An image without cells needs a row with an empty %s.",
            *(len(unannotated), len(files), folder / "train", table.name, unannotated[0]),
            annotation_column,
        )
    known = {id_column, annotation_column, "width", "height"}
    extra = _columns_of_images([name for name in columns if name not in known], by_image)
    if cell_type_column in columns and cell_type_column not in extra:
        problems.add(_mixed_types(table, by_image, cell_type_column))
    order = rle_order
    if order == "auto":
        order = _order(table, files, annotation_column, by_image)
    tell_of_passed_over(folder / "train")
    return Source(
        "kaggle",
        [
            SourceImage(
                id=image_id,
                file=files[image_id],
                read_instances=partial(
                    _instances, table, image_id, annotation_column, order, by_image[image_id]
                ),
                columns={name: by_image[image_id][0].values[name] for name in extra},
            )
            for image_id in sorted(by_image)
        ],
    )


def _order(
    table: Path, files: dict[str, Path], annotation_column: str, by_image: dict[str, list[Row]]
) -> Literal["C", "F"]:
    """Order of the runs, from the images that can be read; what is wrong with the others is told later."""

    def images() -> Iterator[tuple[list[str], tuple[int, int]]]:
        for image_id, rows in by_image.items():
            rles = [row.values[annotation_column] for row in rows]
            with suppress(DataError):
                info = image_info(files[image_id])
                yield rles, (info.height, info.width)

    order = order_of_rles(images())
    if order == "F":
        _log.warning(
            "%s: the runs go column by column: read row by row, most cells fall to pieces. They are read "
            "so; add --rle_order C to read them row by row.",
            table,
        )
    return order


def _files_by_id(folder: Path, problems: Problems) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in list_images(folder):
        if path.stem in files:
            problems.add(
                f"{folder}: {files[path.stem].name} and {path.name} have the same id "
                f"{path.stem!r}. Rename or remove one."
            )
        files[path.stem] = path
    if not files:
        problems.add(f"{folder}: no images ({', '.join(IMAGE_SUFFIXES)}) in this folder.")
    return files


def _unknown_id(table: Path, row: Row, id_column: str) -> str:
    text = row.values[id_column]
    return (
        f"{table} line {row.line}: unknown id {text!r}: there is no "
        f"{table.parent / 'train' / (text or 'ID')}.png (or .tif, .jpg, .bmp). "
        "Add the image or remove the row."
    )


def _columns_of_images(columns: list[str], by_image: dict[str, list[Row]]) -> list[str]:
    """Columns that have one value per image; the others describe cells and are left out."""
    varying = {
        name
        for name in columns
        for rows in by_image.values()
        if any(row.values[name] != rows[0].values[name] for row in rows)
    }
    if varying:
        _log.warning(
            "Columns that differ between the cells of one image are left out: %s.",
            ", ".join(sorted(varying)),
        )
    return [name for name in columns if name not in varying]


def _mixed_types(table: Path, by_image: dict[str, list[Row]], column: str) -> str:
    image_id, row, other = next(
        (image_id, row, rows[0].values[column])
        for image_id, rows in by_image.items()
        for row in rows
        if row.values[column] != rows[0].values[column]
    )
    return (
        f"{table} line {row.line}: {column} of image {image_id} is {row.values[column]!r} here "
        f"and {other!r} above; expected one per image. Make them the same."
    )


def _instances(
    table: Path,
    image_id: str,
    annotation_column: str,
    order: Literal["C", "F"],
    rows: list[Row],
    shape: tuple[int, int],
) -> Instances:
    """Cells of one image; says which line of the table is wrong."""
    for row in rows:
        _check_size(table, row, shape)
    cells = [row for row in rows if row.values[annotation_column]]
    if cells and len(cells) < len(rows):
        empty = next(row for row in rows if not row.values[annotation_column])
        raise DataError(
            f"{table} line {empty.line}: an empty {annotation_column}, but the image has cells in "
            f"other rows. Remove the row; it stands for an image without cells."
        )
    rles = [row.values[annotation_column] for row in cells]
    try:
        return instances_from_rles(rles, shape, order)
    except RleError as error:
        for row, rle in zip(cells, rles, strict=True):
            try:
                rle_decode(rle, shape)
            except RleError as single:
                raise RleError(
                    f"{table} line {row.line} (image {image_id}): {single}. "
                    "Correct or remove the row."
                ) from error
        raise


def _check_size(table: Path, row: Row, shape: tuple[int, int]) -> None:
    for name, found in (("height", shape[0]), ("width", shape[1])):
        text = row.values.get(name, "")
        if text and whole_number(text) != found:
            raise DataError(
                f"{table} line {row.line}: {name} {text}, but the image is "
                f"{shape[0]} x {shape[1]} (height x width). Replace the image or correct the table."
            )

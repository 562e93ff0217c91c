"""The layout of the Sartorius competition: ``train.csv`` with one run-length row per cell, ``train/``.

Also that of the Data Science Bowl of 2018: ``stage1_train_labels.csv`` with ``ImageId`` and ``EncodedPixels``, and
``stage1_train/`` with ``ID.png`` or ``ID/images/ID.png``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Literal

from cellflow.errors import DataError, RleError
from cellflow.io import places
from cellflow.io.file_names import match_id
from cellflow.io.formats.base import ReadOptions, SourceFormat
from cellflow.io.formats.label_maps import refuse_single_map
from cellflow.io.images import IMAGE_SUFFIXES, image_shape, list_images
from cellflow.io.pixel_limit import refuse_large
from cellflow.io.source import FileImage, Shape, Source, SourceImage, by_id
from cellflow.io.tables import Row, read_rows, whole_number, without_mark
from cellflow.numeric.mask_checks import order_of_rles
from cellflow.numeric.rle import instances_from_rles, rle_decode
from cellflow.types import Instances

__all__ = ["BOWL", "KaggleTable"]

_log = logging.getLogger(__name__)

Rows = dict[str, list[Row]]
"""Rows of the table by image."""
BOWL = {"id": "ImageId", "annotation": "EncodedPixels", "width": "Width", "height": "Height"}
"""Columns as the Data Science Bowl calls them."""


class KaggleTable(SourceFormat):
    """``train.csv`` (1-indexed runs, a row per cell; an image without cells has one row with an empty annotation).

    To prepare it, its images are in ``train/ID.png``, and those without a row are left out; width and height
    in the table are checked against them, and further columns are kept. As truth the table alone will do,
    under any name; it needs width and height. Columns may have the names of the Data Science Bowl.
    """

    name = "kaggle"
    uses = frozenset({"prepare", "truth"})
    heeds = frozenset({"images", "rle_order", "annotation_column"})

    def recognises(self, path: Path, options: ReadOptions) -> bool:
        """Whether table and images are there; as truth any file is a table."""
        if options.use == "prepare":
            elsewhere = options.images is not None and places.kaggle_table(path) is not None
            return options.masks is None and (elsewhere or places.is_kaggle_layout(path))
        return path.is_file() or places.kaggle_table(path) is not None

    def lies_in(self, folder: Path, options: ReadOptions) -> list[Path]:
        """The table, where the folder of its images is there too."""
        table = (
            places.kaggle_table(folder)
            if options.masks is None and places.is_kaggle_layout(folder)
            else None
        )
        return [table] if table is not None else []

    def read(self, path: Path, options: ReadOptions) -> Source:
        """Read the table; runs are decoded image by image."""
        table = places.kaggle_table(path) or path
        refuse_single_map(table)
        options = _with_names_of(table, options)
        files = _files(table, options) if options.use == "prepare" else None
        columns, by_image = _rows(table, options, files)
        if files is not None:
            _check_images(table, files, by_image, options)
        elif not by_image:
            raise DataError(f"{table}: expected a row per cell, found none.", path=table)
        column, order = options.annotation_column, options.rle_order
        cells = {
            name: _Cells(table, name, column, rows, on_image=files is not None)
            for name, rows in sorted(by_image.items())
        }
        if order == "auto":
            bowl = column == BOWL["annotation"]
            order, why = _likely_order(cells, files, bowl=bowl)
            if order == "F":
                way_out = "" if files is None else "; add --rle_order C to read them row by row"
                _log.warning(
                    "%s: the runs go column by column: %s. They are read so%s.", table, why, way_out
                )
            elif files is not None and _all_square(cells, files):
                text = "%s: all images are square, so that nothing tells whether runs go row by row or column by "
                text += "column. They are read row by row; if cells lie elsewhere than in the images, add %s."
                _log.warning(text, table, "--rle_order F")
        kept = _columns_of_images(table, columns, by_image, options)
        images: dict[str, SourceImage] = {}
        for name, rows in sorted(by_image.items()):
            known = {key: rows[0].values[key] for key in kept}
            decode = partial(cells[name].decode, order=order)
            images[name] = (
                SourceImage(name, table, known, decode)
                if files is None
                else FileImage(name, files[name].path, known, decode)
            )
        return Source(path, self.name, images, "table with a row per cell")


@dataclass(frozen=True)
class _Cells:
    """The cells of one image, as rows of the table."""

    table: Path
    image_id: str
    column: str
    rows: list[Row]
    on_image: bool
    """Whether the image is there, and says how large it is."""

    @property
    def rles(self) -> list[str]:
        return [row.values[self.column] for row in self.rows if row.values[self.column]]

    @property
    def size(self) -> Shape:
        """Height and width in the table."""
        first = self.rows[0]
        height, width = (whole_number(first.values[name]) or 0 for name in ("height", "width"))
        if min(height, width) < 1:
            found = f"{first.values['height']} x {first.values['width']}"
            text = f"expected a height and a width of at least 1, found {found}."
            raise self._error(DataError, first, f" (image {self.image_id}): {text}")
        return height, width

    def decode(self, shape: Shape | None, *, order: Literal["C", "F"]) -> Instances:
        """Decode them; says which line of the table is wrong."""
        size = shape if shape is not None and self.on_image else self.size
        self._check_sizes(size)
        cells = [row for row in self.rows if row.values[self.column]]
        if cells and len(cells) < len(self.rows):
            empty = next(row for row in self.rows if not row.values[self.column])
            text = f": an empty {self.column}, but the image has cells in other rows. Remove the row; it stands"
            raise self._error(DataError, empty, f"{text} for an image without cells.")
        try:
            return instances_from_rles(self.rles, size, order)
        except RleError as error:
            for row in cells:
                try:
                    rle_decode(row.values[self.column], size)
                except RleError as single:
                    text = f" (image {self.image_id}): {single}. Correct or remove the row."
                    raise self._error(RleError, row, text) from error
            raise
        except DataError as error:
            text = f" (image {self.image_id}): {error}. Correct the table."
            raise self._error(DataError, self.rows[0], text) from error

    def _check_sizes(self, size: Shape) -> None:
        """Refuse rows that say another size than the image, or than the first row."""
        what = "the image" if self.on_image else f"line {self.rows[0].line}"
        remedy = "Replace the image or correct" if self.on_image else "Correct"
        for row in self.rows:
            for name, expected in (("height", size[0]), ("width", size[1])):
                found = row.values.get(name, "")
                if found and whole_number(found) != expected:
                    text = (
                        f": {name} {found}, but {what} is {size[0]} x {size[1]} (height x width). "
                    )
                    raise self._error(DataError, row, f"{text}{remedy} the table.")

    def _error(self, kind: type[DataError], row: Row, text: str) -> DataError:
        where = f"{self.table} line {row.line}"
        return kind(f"{where}{text}", path=self.table, line=row.line, id=self.image_id)


def _with_names_of(table: Path, options: ReadOptions) -> ReadOptions:
    """With the names of the Data Science Bowl, where the table has these and not those of the options."""
    columns = set(read_rows(table, ())[0])
    asked = {options.id_column, options.annotation_column}
    if asked != {"id", "annotation"} or asked & columns:
        return options
    names = BOWL["id"], BOWL["annotation"]
    if not columns.issuperset(names):
        return options
    _log.info("%s: images are in the column %s, runs in %s", table, *names)
    return replace(options, id_column=names[0], annotation_column=names[1])


def _image_folder(table: Path, options: ReadOptions) -> Path:
    return options.images or places.kaggle_folder(table) or table.parent / "train"


def _files(table: Path, options: ReadOptions) -> dict[str, FileImage]:
    """Images ``ID.png`` of a folder, or ``ID/images/ID.png`` in it."""
    place = _image_folder(table, options)
    found = [FileImage(path.stem, path) for path in list_images(place)]
    if not found:
        inside = sorted(place.glob(f"*/{places.IMAGE_FOLDERS[0]}"))
        found = [FileImage(item.parent.name, path) for item in inside for path in list_images(item)]
    files = by_id(found, options.problems)
    if not files:
        endings = ", ".join(IMAGE_SUFFIXES)
        options.problems.add(f"{place}: no images ({endings}) in this folder.")
    places.tell_of_passed_over(place)
    return files


def _rows(
    table: Path, options: ReadOptions, files: dict[str, FileImage] | None
) -> tuple[list[str], Rows]:
    """Columns of the table, and its rows by image; those of unknown images are problems."""
    ids, cells = options.id_column, options.annotation_column
    flags = {ids: "--id_column", cells: "--annotation_column"}
    bowl = ids == BOWL["id"]
    sizes = [BOWL[name] if bowl else name for name in ("width", "height")]
    needed = (ids, cells, *sizes) if files is None else (ids, cells)
    columns, rows = read_rows(table, needed, options=flags if files is not None else {})
    by_image: Rows = {}
    folders: dict[str, str] = {}
    for row in map(_with_our_sizes, rows) if bowl else rows:
        text = row.values[ids]
        row.values[cells] = without_mark(row.values[cells])
        image_id = text if files is None else match_id(text, files)
        if image_id is not None:
            by_image.setdefault(image_id, []).append(row)
            first = folders.setdefault(image_id, text)
            if PureWindowsPath(first).parent != PureWindowsPath(text).parent:
                options.problems.add(
                    f"{table} line {row.line}: {first!r} above and {text!r} here are both the image {image_id!r}. Give "
                    "images of different folders different names.",
                    text,
                )
            continue
        options.problems.add(
            f"{table} line {row.line}: unknown id {text!r}: there is no "
            f"{_image_folder(table, options) / (text or 'ID')}.png (or .tif, .jpg, .bmp). "
            "Add the image or remove the row.",
            text,
        )
    if files is None:
        by_image = _without_endings(by_image)
    return [name for name in columns if not (bowl and name in sizes)], by_image


def _without_endings(by_image: Rows) -> Rows:
    """Names of files as ids, where all are names of image files without a folder, and stay apart."""
    files = {text: PureWindowsPath(text) for text in by_image}
    names = {
        path.stem
        for path in files.values()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.parent == PureWindowsPath()
    }
    if len(names) < len(by_image):
        return by_image
    return {files[text].stem: rows for text, rows in by_image.items()}


def _with_our_sizes(row: Row) -> Row:
    """A row with width and height under our names."""
    ours = {BOWL[name]: name for name in ("width", "height")}
    return Row(row.line, {ours.get(name, name): value for name, value in row.values.items()})


def _check_images(
    table: Path, files: dict[str, FileImage], by_image: Rows, options: ReadOptions
) -> None:
    """Tell of images without a row."""
    place = _image_folder(table, options)
    if not by_image:
        options.problems.add(f"{table}: no image of {place} has a row; expected a row per cell.")
        return
    unannotated = sorted(files.keys() - by_image.keys())
    if unannotated:
        _log.warning(
            "%d of %d images in %s have no row in %s and are left out (%s ...). "
            "An image without cells needs a row with an empty %s.",
            *(len(unannotated), len(files), place, table.name, unannotated[0]),
            options.annotation_column,
        )


def _sized(
    cells: dict[str, _Cells], files: dict[str, FileImage] | None
) -> Iterator[tuple[list[str], Shape]]:
    """Runs and sizes; what is wrong with an image or a size that cannot be read is reported later."""
    for name, of_image in cells.items():
        with suppress(DataError):
            shape = of_image.size if files is None else image_shape(files[name].path)
            height, width = shape[:2]
            refuse_large((height, width))
            yield of_image.rles, (height, width)


def _likely_order(
    cells: dict[str, _Cells], files: dict[str, FileImage] | None, *, bowl: bool
) -> tuple[Literal["C", "F"], str]:
    """The order of the runs, and why it is column by column."""
    if order_of_rles(_sized(cells, files)) == "F":
        return "F", "read row by row, most cells fall to pieces"
    if bowl and _all_square(cells, files):
        return (
            "F",
            "so do the Data Science Bowl's, and where all images are square nothing else tells",
        )
    return "C", ""


def _all_square(cells: dict[str, _Cells], files: dict[str, FileImage] | None) -> bool:
    """Whether there are cells, and all of them in images that are as high as wide."""
    shapes = [shape for rles, shape in _sized(cells, files) if rles]
    return bool(shapes) and all(height == width for height, width in shapes)


def _columns_of_images(
    table: Path, columns: list[str], by_image: Rows, options: ReadOptions
) -> list[str]:
    """Columns that have one value per image; the others describe cells and are left out."""
    used = {options.id_column, options.annotation_column, "width", "height"}
    odd = {
        name: (image_id, row)
        for image_id, rows in by_image.items()
        for row in rows[1:]
        for name, value in row.values.items()
        if name not in used and value != rows[0].values[name]
    }
    types = options.cell_type_column
    if odd and options.use == "prepare":
        text = "Columns that differ between the cells of one image are left out: %s."
        _log.warning(text, ", ".join(sorted(odd)))
        if types in odd:
            image_id, row = odd[types]
            options.problems.add(
                f"{table} line {row.line}: {types} of image {image_id} is {row.values[types]!r} here "
                f"and {by_image[image_id][0].values[types]!r} above; expected one per image. Make them the same."
            )
    return [name for name in columns if name not in used | odd.keys()]

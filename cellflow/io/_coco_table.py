"""What a COCO file says: its images with the masks of their cells, read in one pass."""

from __future__ import annotations

import logging
import math
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path, PureWindowsPath
from typing import Any

from cellflow.errors import DataError
from cellflow.io._coco_segments import read_segment
from cellflow.io.images import image_shape
from cellflow.io.json_entries import is_list, read_entries
from cellflow.io.pixel_limit import refuse_large
from cellflow.io.problems import Problems
from cellflow.storage.records import number_or_none
from cellflow.storage.sizes import few_text, plural, size_text
from cellflow.types import shorten

_log = logging.getLogger(__name__)

_LARGE = 100_000_000
"""Bytes from which on a file takes long enough to say that it is being read."""
_LONGEST_NAME = 1024
"""Bytes of the name of an image with its folders."""
_CROWD = "marked as iscrowd and left out: crowds are no single cells"
_ALL_CROWDS = "marked as iscrowd, as everything in this file: taken for single cells"
_NO_MASK = "without a mask (a box at most) and left out"
_NO_PIXEL = "left out, for they cover no pixel of their image"
_OUTSIDE = "reach out of their image, where they are cut off"


@dataclass(eq=False)
class ListedImage:
    """An image of the file."""

    file_name: str  # with the folders that the file has, / between them
    own_id: str  # that an export of ours gave it; empty in other files
    path: Path | None  # its file, where it was looked for and found
    shape: tuple[int, int]
    cells: list[bytes] = field(default_factory=list)  # run-length strings of COCO
    kinds: list[Any] = field(default_factory=list)  # of every cell: the id of its category
    scores: list[float] = field(default_factory=list)  # of results; NaN where it does not say


class CocoTable:
    """Images and cells of a COCO file, which is an object of annotations or a list of results.

    What cannot be used is left out and told, or one of the problems. `find` gives the file of an image by its name.
    """

    def __init__(
        self, path: Path, problems: Problems, find: Callable[[str], Path | None] = lambda name: None
    ) -> None:
        self.path = path
        self.images: dict[int | str, ListedImage] = {}
        self.categories: dict[Any, str] = {}
        self.is_list = False
        """Whether the file is a list of results, which names no images."""
        self._problems = problems
        self._find = find
        self._told: dict[str, list[str]] = {}
        self._seen: set[int | str] = set()
        self._refused: set[int | str] = set()
        self._count, self._has_cells = 0, False
        self._crowds: list[tuple[ListedImage, str, dict[str, Any]]] = []
        """Those of a file in which no single cell has been found."""

    @property
    def has_scores(self) -> bool:
        """Whether it is a list of results that says of every cell how sure it is."""
        return self.is_list and all(
            math.isfinite(score) for image in self.images.values() for score in image.scores
        )

    def read(self, results_of: CocoTable | None = None) -> None:
        """Read the file; a list of results needs a table that has its images."""
        size = self.path.stat().st_size
        if size > _LARGE:
            _log.info("%s: reading %s", self.path, size_text(size))
        if results_of is not None:
            self.categories = results_of.categories
            self.images = {
                key: ListedImage(image.file_name, image.own_id, image.path, image.shape)
                for key, image in results_of.images.items()
            }
        early = self._read_once()
        if early and self.images:  # the annotations stand before the images
            for section, entry in read_entries(self.path):
                if section == "annotations":
                    self._add_annotation(entry)
        crowds, self._crowds = self._crowds, []
        if crowds:  # as some programs mark whatever was drawn with a brush
            self._told[_ALL_CROWDS] = self._told.pop(_CROWD)
            for image, name, entry in crowds:
                self._add_cell(image, name, {**entry, "iscrowd": 0})
        for reason, names in self._told.items():
            text = "%s: %s %s: %s."
            _log.warning(text, self.path, plural(len(names), "annotation"), reason, few_text(names))

    def category(self, number: Any) -> str:
        """The name of a category, or what stands for it where the file has none."""
        return self.categories.get(number, f"category {number}")

    def keep(self, names: Sequence[str]) -> None:
        """Leave out the cells of all other categories, and say how many."""
        known = {self.category(kind) for image in self.images.values() for kind in image.kinds}
        if unknown := [name for name in names if name not in {*known, *self.categories.values()}]:
            text = f"{self.path}: no category {unknown[0]!r} (--category); there are {few_text(sorted(known))}."
            raise DataError(text, path=self.path, expected=sorted(known), found=unknown[0])
        gone: Counter[str] = Counter()
        for image in self.images.values():
            kept = [self.category(kind) in names for kind in image.kinds]
            gone.update(
                self.category(kind) for kind in compress(image.kinds, map(operator.not_, kept))
            )
            image.cells, image.scores, image.kinds = (
                list(compress(values, kept)) for values in (image.cells, image.scores, image.kinds)
            )
        if gone:
            counts = ", ".join(f"{n:,} of {name}" for name, n in sorted(gone.items()))
            _log.info("%s: left out, as --category says: %s", self.path, counts)

    def read_images(self) -> CocoTable:
        """Read all but the annotations; returns itself."""
        for section, entry in read_entries(self.path):
            self._take(section, entry)
        return self

    def _read_once(self) -> bool:
        """Read the file from its beginning; whether annotations came before the images that they are of."""
        early = False
        for section, entry in read_entries(self.path):
            if section == "":
                if not self.images:
                    break
                self._add_annotation(entry)
            elif section == "annotations":
                early |= not self.images
                if not early:
                    self._add_annotation(entry)
            else:
                self._take(section, entry)
        self.is_list = is_list(self.path)
        return early

    def _take(self, section: str, entry: Any) -> None:
        if section == "images":
            self._add_image(entry)
        elif section == "categories" and isinstance(entry, dict):
            self._add_category(entry.get("id"), str(entry.get("name") or "").strip())

    def _add_category(self, number: Any, name: str) -> None:
        if not name.isprintable():
            self._refuse(f"the category {number!r} has the name {name!r}, which no table can hold")
        elif name and isinstance(number, int | str):
            self.categories[number] = name

    def _add_image(self, entry: Any) -> None:
        known = entry if isinstance(entry, dict) else {}
        number, file_name = known.get("id"), known.get("file_name")
        if not isinstance(number, int | str) or not isinstance(file_name, str):
            self._refuse(f"an image needs an id and a file_name, found {str(entry)[:80]}")
            if isinstance(number, int | str):
                self._refused.add(number)
            return
        try:
            name = _inner_name(file_name)
            path = self._find(name)
            shape = _declared_shape(known, path)
            refuse_large(shape)
        except DataError as error:
            self._refuse(f"image {shorten(file_name, 80)!r}: {str(error).rstrip('.')}", file_name)
            self._refused.add(number)
            return
        if number in self.images:
            first = self.images[number].file_name
            self._refuse(
                f"the image id {number} comes twice, for {first!r} and {file_name!r}", file_name
            )
            return
        own_id = known.get("cellflow_id")
        own_id = own_id if isinstance(own_id, str) else ""
        self.images[number] = ListedImage(name, own_id, path, shape)

    def _add_annotation(self, entry: Any) -> None:
        self._count += 1
        if not isinstance(entry, dict):
            self._refuse(f"annotation number {self._count} is no object, but {str(entry)[:40]!r}")
            return
        name, image_id = self._name(entry.get("id")), entry.get("image_id")
        image = None
        if isinstance(image_id, int | str):
            image = self.images.get(image_id)
            if image_id in self._refused:
                return
        if not name:
            return
        if image is None:
            self._refuse(f"annotation {name} is of the image {image_id!r}, which is not in images")
            return
        self._add_cell(image, name, entry)

    def _name(self, number: Any) -> str:
        """What messages call an annotation; empty where its id is refused."""
        if number is None:  # as results are
            return f"number {self._count}"
        if not isinstance(number, int | str):
            self._refuse(f"the id of annotation number {self._count} is no whole number")
            return ""
        if number in self._seen:
            self._refuse(f"the annotation id {number!r} comes twice")
            return ""
        self._seen.add(number)
        return repr(number)

    def _add_cell(self, image: ListedImage, name: str, entry: dict[str, Any]) -> None:
        segmentation = entry.get("segmentation")
        short = f"{name} of {image.file_name}"
        if str(entry.get("iscrowd") or 0) != "0":
            self._told.setdefault(_CROWD, []).append(short)
            if not self._has_cells:
                self._crowds.append((image, name, entry))
            return
        self._has_cells, self._crowds = True, []
        if not segmentation:
            self._told.setdefault(_NO_MASK, []).append(short)
            return
        try:
            segment = read_segment(segmentation, image.shape)
        except DataError as error:
            self._refuse(
                f"annotation {name} of image {image.file_name!r}: {error}", image.file_name
            )
            return
        if not segment.counts:
            self._told.setdefault(_NO_PIXEL, []).append(short)
            return
        if segment.outside:
            self._told.setdefault(_OUTSIDE, []).append(short)
        image.cells.append(segment.counts)
        image.scores.append(_score(entry.get("score")))
        category = entry.get("category_id")
        image.kinds.append(category if isinstance(category, int | str) else None)

    def _refuse(self, text: str, name: str = "") -> None:
        error = DataError(f"{self.path}: {text}.", path=self.path, id=name or None)
        self._problems.add(error, name)


def _inner_name(file_name: str) -> str:
    """The name of a file below some folder, with ``/`` between its parts; one that leads elsewhere is refused."""
    path = PureWindowsPath(file_name)  # which takes the separators of every system
    inside = not path.anchor and ".." not in path.parts and path.name
    if not (inside and file_name.isprintable() and len(file_name.encode()) <= _LONGEST_NAME):
        text = "expected the name of a file, with folders below that of the annotations at most. Correct file_name"
        raise DataError(text)
    return path.as_posix()


def _declared_shape(entry: dict[str, Any], path: Path | None) -> tuple[int, int]:
    """Height and width that the file says, or those of the image where it says none."""
    size = entry.get("height"), entry.get("width")
    if size == (None, None) and path is not None:
        return image_shape(path)[:2]  # type: ignore[return-value]
    height, width = map(_whole, size)
    if min(height, width) < 1:
        text = f"expected a height and a width of at least 1, found {size[0]!r} x {size[1]!r}"
        raise DataError(text, found=size)
    return height, width


def _score(value: Any) -> float:
    """A finite number, NaN where it is none."""
    number = number_or_none(value) if isinstance(value, int | float) else None
    return math.nan if number is None else number


def _whole(value: Any) -> int:
    """A whole number, 0 where it is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and value % 1 == 0 else 0

"""Regions of interest: a box that was typed, or the annotations of a GeoJSON file of QuPath."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io.formats.geojson import read_regions
from cellflow.io.shapes import FARTHEST, Outline, box_of, closed, instances_from_outlines
from cellflow.storage.nearby import is_file
from cellflow.storage.sizes import few_text, plural
from cellflow.types import Box

__all__ = ["Roi", "check_roi", "mask_of", "read_roi"]

_BOX = re.compile(r"\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*")
_ORDER = "TOP,LEFT,BOTTOM,RIGHT in pixels of the finest level, such as 0,0,2048,2048"
_GRID = 256
"""Corners are rounded to so many-ths of a pixel. Moved by whole pixels they then stay the same numbers, so that
a part of the mask does not depend on the box that it was made for."""


@dataclass(frozen=True, eq=False)
class Roi:
    """Areas of an image.

    Attributes
    ----------
    outlines : tuple of Outline
        Rings of x and y in pixels; areas may overlap and leave the image.
    shape : tuple of int
        ``(H, W)`` of the image.
    """

    outlines: tuple[Outline, ...]
    shape: tuple[int, int]

    @property
    def boxes(self) -> list[Box]:
        """The smallest box around each area, cut at the edges of the image."""
        return [_box_around(outline, self.shape) for outline in self.outlines]

    @property
    def box(self) -> Box:
        """The smallest box around all areas."""
        tops, bottoms, lefts, rights = zip(*self.boxes, strict=True)
        return Box(min(tops), max(bottoms), min(lefts), max(rights))

    def at(self, factor: tuple[float, float], shape: tuple[int, int]) -> Roi:
        """The same areas in pixels of another level.

        Parameters
        ----------
        factor : (float, float)
            Pixels of this level along Y and X that make one of the other, as `LargeImage.factor` gives them.
        shape : tuple of int
            ``(H, W)`` of the other.
        """
        scale = np.array([1 / factor[1], 1 / factor[0]])
        moved = ([[ring * scale for ring in part] for part in outline] for outline in self.outlines)
        return Roi(tuple(map(_rounded, moved)), shape)


def check_roi(text: str | Path) -> None:
    """Check, of no image yet, that a region of interest is a box or a file that is there.

    Raises
    ------
    DataError
        If it is neither.
    """
    if not _BOX.fullmatch(str(text)) and not is_file(Path(text)):
        raise DataError(
            f"{text}: expected {_ORDER}, or a GeoJSON file with annotations; there is no such file.",
            path=Path(text),
        )


def read_roi(text: str | Path, shape: tuple[int, int]) -> Roi:
    """Read regions of interest.

    Parameters
    ----------
    text : str or Path
        ``TOP,LEFT,BOTTOM,RIGHT`` in pixels of the finest level, bottom and right excluded; or a GeoJSON file
        as QuPath exports it, whose annotations are taken: x and y in pixels of the finest level.
        Corners are rounded to 1/256 of a pixel.
    shape : tuple of int
        ``(H, W)`` of the finest level.

    Returns
    -------
    Roi
        At least one area, of which each meets the image.

    Raises
    ------
    DataError
        If there is neither such a box nor such a file, the box is empty or leaves the image, or an area of
        the file lies outside the image. Areas that leave it are cut at its edge.
    """
    check_roi(text)
    found = _BOX.fullmatch(str(text))
    if found:
        top, left, bottom, right = map(int, found.groups())
        _check_box(Box(top, bottom, left, right), str(text), shape)
        corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
        return Roi(([[closed(np.array(corners))]],), shape)
    path = Path(text)
    regions = read_regions(path)
    outlines = tuple(_rounded(outline) for outline in regions.cells)
    if not outlines:
        others = ", ".join(plural(count, name) for name, count in regions.left_out.items())
        raise DataError(
            f"{path}: expected an annotation with an area, found {others or 'none'}. In QuPath: draw it, "
            "select it, then File > Export objects as GeoJSON.",
            path=path,
        )
    named = zip(regions.names, outlines, strict=True)
    outside = [name for name, outline in named if _box_around(outline, shape).is_empty]
    if outside:
        message = (
            f"{path}: {plural(len(outside), 'annotation')} outside the image of {shape[0]} x {shape[1]} "
            f"(height x width): {few_text(outside)}. Were they drawn on another image, or at another scale?"
        )
        raise DataError(message, path=path, expected=shape, found=outside)
    return Roi(outlines, shape)


def mask_of(roi: Roi, box: Box) -> NDArray[np.bool_]:
    """Which pixels of a box lie in an area, by their centres.

    Parameters
    ----------
    roi : Roi
    box : Box
        In pixels of the level of `roi`.

    Returns
    -------
    (h, w) bool ndarray
        The box of the mask of the whole image.
    """
    mask = np.zeros(box.shape, dtype=bool)
    if box.is_empty:
        return mask
    shift = np.array([box.left, box.top])
    near = [
        [[ring - shift for ring in part] for part in outline]
        for outline, around in zip(roi.outlines, roi.boxes, strict=True)
        if not around.intersection(box).is_empty
    ]
    cells = instances_from_outlines(near, box.shape)
    flat = mask.ravel()
    for start, length in zip(cells.starts.tolist(), cells.lengths.tolist(), strict=True):
        flat[start : start + length] = True
    return mask


def _check_box(box: Box, text: str, shape: tuple[int, int]) -> None:
    """Refuse a box that was typed and is none of the image."""
    if box.is_empty:
        raise DataError(
            f"{text}: a box without pixels. Expected {_ORDER}: bottom and right are excluded, and larger than "
            "top and left.",
            found=box,
        )
    if box.intersection(Box(0, shape[0], 0, shape[1])) != box:
        message = (
            f"{text}: the box leaves the image of {shape[0]} x {shape[1]} (height x width). Expected {_ORDER}, "
            f"with a bottom of at most {shape[0]} and a right of at most {shape[1]}."
        )
        raise DataError(message, expected=shape, found=box)


def _rounded(outline: Outline) -> Outline:
    """An outline on the grid of corners, near enough for the libraries."""
    limit = FARTHEST / 2
    return [
        [np.rint(np.clip(ring, -limit, limit) * _GRID) / _GRID for ring in part] for part in outline
    ]


def _box_around(outline: Outline, shape: tuple[int, int]) -> Box:
    """The smallest box around an outline, as far as the image goes."""
    left, top, right, bottom = box_of(outline)
    around = Box(math.floor(top), math.ceil(bottom), math.floor(left), math.ceil(right))
    return around.intersection(Box(0, shape[0], 0, shape[1]))

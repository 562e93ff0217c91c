"""Outlines of cells as rings on the edges of pixels, and back: a pixel is inside where its centre is.

Pixel ``(y, x)`` is the square from ``(x, y)`` to ``(x + 1, y + 1)``, as ImageJ and QuPath count it. A label map
comes back from its rings to the pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric.labels import check_labels
from cellflow.types import Instances

__all__ = [
    "FARTHEST",
    "FEWEST_POINTS",
    "Outline",
    "Ring",
    "box_of",
    "closed",
    "instances_from_outlines",
    "outlines_from_labels",
    "reaches_out",
]

Ring = NDArray[np.float64]
"""``(N, 2)``: x, then y of every corner in pixels; the last is the first."""
Outline = list[list[Ring]]
"""The parts of a cell, each as its rings: a point is inside where it is inside an odd number of them. Of parts
made here the first ring goes around it and the others are its holes."""
FARTHEST = 1e9
"""Coordinates beyond this are of no image; the libraries count pixels in 32 bits."""
FEWEST_POINTS = 4
"""Points of the smallest closed ring that has an area."""
_SHEET = 2**22
"""Pixels that are painted at once."""
_OUT = np.int8(0)
"""What lies around painted pixels, of one byte as they are."""
_ALONE = Lock()
"""rasterio silences its warnings in a way that other threads undo."""


def outlines_from_labels(labels: Any) -> dict[int, Outline]:
    """The outline of every cell of a label map.

    Parts are joined by edges of pixels, not by corners, so that no ring crosses or meets itself.

    Parameters
    ----------
    labels : (H, W) integer ndarray
        0 background; gaps in the numbers are allowed, and numbers that fit 32 bits.

    Returns
    -------
    dict of int to Outline
        By number, in the order of the numbers. Corners are whole numbers.
    """
    from rasterio.features import shapes

    array = check_labels(labels).astype(np.int32, copy=False)
    found: dict[int, Outline] = {}
    if not array.any():
        return found
    with _ALONE:
        parts = list(shapes(array, mask=array > 0, connectivity=4))
    for geometry, value in parts:
        rings = [np.asarray(ring, dtype=np.float64) for ring in geometry["coordinates"]]
        found.setdefault(int(value), []).append(rings)
    return dict(sorted(found.items()))


def instances_from_outlines(outlines: Sequence[Outline], shape: tuple[int, int]) -> Instances:
    """The pixels whose centres lie inside outlines; cells may overlap.

    Parameters
    ----------
    outlines : sequence of Outline
        Finite, and within `FARTHEST`.
    shape : tuple of int
        ``(H, W)`` of the image; what lies outside is cut off.

    Returns
    -------
    Instances
        As many as there are outlines; one without a pixel's centre inside has no run.
    """
    runs = list(_runs(outlines, shape))
    none = np.zeros(0, dtype=np.int64)
    return Instances(
        shape,
        np.concatenate([none, *(starts for starts, _ in runs)]),
        np.concatenate([none, *(lengths for _, lengths in runs)]),
        np.cumsum([0, *(len(starts) for starts, _ in runs)], dtype=np.int64),
    )


def closed(points: NDArray[Any]) -> Ring:
    """Points of an outline as a ring, the first once more at its end."""
    ring = np.asarray(points, dtype=np.float64)[:, :2]
    if len(ring) and (ring[0] != ring[-1]).any():
        ring = np.concatenate([ring, ring[:1]])
    return ring


def box_of(outline: Outline) -> tuple[float, float, float, float]:
    """Smallest x and y, largest x and y."""
    points = np.concatenate([ring for part in outline for ring in part])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def reaches_out(outline: Outline, shape: tuple[int, int]) -> bool:
    """Whether centres of pixels outside the image may lie inside an outline."""
    x0, y0, x1, y1 = box_of(outline)
    return x0 < -0.5 or y0 < -0.5 or x1 > shape[1] + 0.5 or y1 > shape[0] + 0.5


@dataclass(frozen=True, eq=False)
class _Window:
    """The rows and columns of an image that an outline may cover, and its polygons moved there."""

    left: int
    top: int
    width: int
    height: int
    polygons: Outline
    alone: bool
    """Whether the outline goes on outside."""

    @classmethod
    def of(cls, outline: Outline, shape: tuple[int, int]) -> _Window:
        x0, y0, x1, y1 = box_of(outline)
        left, right = np.clip([math.floor(x0), math.ceil(x1)], 0, shape[1]).tolist()
        top, bottom = np.clip([math.floor(y0), math.ceil(y1)], 0, shape[0]).tolist()
        out = x0 < left or y0 < top or x1 > right or y1 > bottom
        rings = [[ring for ring in part if len(ring) >= FEWEST_POINTS] for part in outline]
        return cls(left, top, right - left, bottom - top, list(filter(None, rings)), out)


def _runs(
    outlines: Sequence[Outline], shape: tuple[int, int]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Starts in the flattened image, and lengths, of the runs of each cell's pixels."""
    for sheet in _sheets([_Window.of(outline, shape) for outline in outlines]):
        painted, row = _painted(sheet), 0
        for window in sheet:
            inside = painted[row : row + window.height, : window.width].view(np.int8)
            row += window.height
            edges = np.diff(inside, axis=1, prepend=_OUT, append=_OUT)
            ys, xs = np.nonzero(edges == 1)
            starts = (ys + window.top) * shape[1] + xs + window.left
            ends = starts - xs + np.nonzero(edges == -1)[1]
            new = np.ones(len(starts), dtype=bool)
            new[1:] = starts[1:] != ends[:-1]  # else a run goes on in the next row
            last = np.append(new[1:], True)[: len(new)]
            yield starts[new], ends[last] - starts[new]


def _sheets(windows: Sequence[_Window]) -> Iterator[list[_Window]]:
    """Windows that are painted at once, one below the other: a call of the library costs more than a cell."""
    sheet: list[_Window] = []
    width = height = 0
    for window in windows:
        width, height = max(width, window.width), height + window.height
        if sheet and (window.alone or sheet[-1].alone or width * height > _SHEET):
            yield sheet
            sheet, width, height = [], window.width, window.height
        sheet.append(window)
    if sheet:
        yield sheet


def _painted(sheet: Sequence[_Window]) -> NDArray[np.uint8]:
    """The windows below each other, 1 where a pixel's centre is inside."""
    from rasterio.features import rasterize

    polygons, row = [], 0
    for window in sheet:
        if window.width and window.height:
            shift = np.array([-window.left, row - window.top])
            parts = [[ring + shift for ring in part] for part in window.polygons]
            polygons += [{"type": "Polygon", "coordinates": part} for part in parts]
        row += window.height
    size = max(row, 1), max(1, *(window.width for window in sheet))
    if not polygons:
        return np.zeros(size, dtype=np.uint8)
    return np.asarray(rasterize(polygons, out_shape=size, dtype="uint8"))

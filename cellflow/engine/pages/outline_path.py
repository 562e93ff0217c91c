"""Outlines of cells as one path of SVG, in the pixels of a picture that may be smaller than its image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from cellflow.io.shapes import outlines_from_labels
from cellflow.numeric._runs import pixels_of_runs
from cellflow.types import Box, Instances

__all__ = ["box_of_cell", "cell_mask", "outline_path"]

TOLERANCE = 0.35
"""Pixels of the picture by which a line may lie beside the outline; a screen shows no less."""


def outline_path(
    instances: Instances,
    cells: Iterable[int],
    *,
    scale: float = 1.0,
    corner_yx: tuple[int, int] = (0, 0),
) -> str:
    """The outlines of some cells, holes and separate parts too, each cell by itself, so that overlaps show.

    Parameters
    ----------
    instances : Instances
    cells : iterable of int
        Their places in `instances`, from 0.
    scale : float
        Pixels of the picture for a pixel of the image.
    corner_yx : tuple of int
        Row and column of the image where the picture begins.

    Returns
    -------
    str
        For the attribute ``d`` of ``<path>``; empty where there is no cell.
    """
    return "".join(
        _ring_path((ring - corner_yx[::-1]) * scale)
        for cell in cells
        for ring in _rings(instances, cell)
    )


def box_of_cell(instances: Instances, cell: int) -> Box:
    """The smallest box around a cell."""
    starts, lengths = instances.runs(cell)
    # of the first and of the last pixel of each run
    rows, columns = np.divmod(np.stack([starts, starts + lengths - 1]), instances.shape[1])
    top, bottom = int(rows.min()), int(rows.max()) + 1
    if (rows[0] != rows[1]).any():  # a run that goes on in the next row
        return Box(top, bottom, 0, instances.shape[1])
    return Box(top, bottom, int(columns.min()), int(columns.max()) + 1)


def cell_mask(instances: Instances, cell: int, box: Box) -> NDArray[np.bool_]:
    """The pixels of a cell inside a box that holds it."""
    mask = np.zeros(box.shape, np.bool_)
    y, x = np.divmod(pixels_of_runs(*instances.runs(cell)), instances.shape[1])
    mask[y - box.top, x - box.left] = True
    return mask


def _rings(instances: Instances, cell: int) -> Iterator[NDArray[np.float64]]:
    box = box_of_cell(instances, cell)
    mask = cell_mask(instances, cell, box).astype(np.uint8)
    for outline in outlines_from_labels(mask).values():
        for part in outline:
            for ring in part:
                yield np.add(ring[:-1], (box.left, box.top))


def _ring_path(ring: NDArray[np.float64]) -> str:
    """A closed line in tenths of a pixel, each point by its distance from the one before: the shortest text."""
    points = cv2.approxPolyDP(ring.astype(np.float32)[:, None], TOLERANCE, closed=True)[:, 0]
    if len(points) < 3:  # smaller than the tolerance: a cell is never left out
        points = ring
    tenths = np.rint(10 * points).astype(np.int64)
    steps = np.diff(tenths, axis=0)
    first = "M" + " ".join(map(_tenth, tenths[0]))
    return f"{first}l{' '.join(map(_tenth, steps.ravel()))}z"


def _tenth(value: int) -> str:
    return f"{value / 10:g}"

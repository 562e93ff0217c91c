"""What may be wrong with single cells (parts, holes, overlaps, cut at the border), and its mending."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellflow.numeric._runs import (
    Ints,
    offsets_of,
    part_of_runs,
    parts_of,
    pixels_of_runs,
    runs_in_rows,
    runs_of_pixels,
    touching_runs,
)
from cellflow.numeric.mask_checks import split_parts
from cellflow.types import Instances

__all__ = ["FIXES", "CellFacts", "cell_facts", "fill_holes", "largest_parts", "split_parts"]


@dataclass(frozen=True, eq=False)
class CellFacts:
    """Facts of every cell of an image, ``(n,)`` each.

    Attributes
    ----------
    areas : int64 ndarray
        Pixels.
    parts : int64 ndarray
        Separate parts; pixels that touch at a corner are one part.
    largest_part : int64 ndarray
        Pixels of the largest of them.
    holes : int64 ndarray
        Background pixels that the cell encloses, and no other cell more closely; what another cell covers
        is no hole.
    shared : int64 ndarray
        Pixels that belong to another cell too.
    at_border : bool ndarray
        Whether it touches the border of the image, and so may go on beyond.
    """

    areas: Ints
    parts: Ints
    largest_part: Ints
    holes: Ints
    shared: Ints
    at_border: NDArray[np.bool_]


def cell_facts(instances: Instances) -> CellFacts:
    """Look at every cell of an image."""
    count = len(instances)
    owner, rows, begins, ends = runs_in_rows(instances)
    of_cell, areas = parts_of(instances)
    largest = np.zeros(count, dtype=np.int64)
    np.maximum.at(largest, of_cell, areas)
    touches = (rows == 0) | (rows == instances.shape[0] - 1)
    touches |= (begins == 0) | (ends == instances.shape[1])
    holes = np.zeros(count, dtype=np.int64)
    for cell, pixels in _holes(instances).items():
        holes[cell] = len(pixels)
    return CellFacts(
        instances.areas,
        np.bincount(of_cell, minlength=count).astype(np.int64),
        largest,
        holes,
        _shared(instances),
        np.bincount(owner[touches], minlength=count) > 0,
    )


def fill_holes(instances: Instances) -> Instances:
    """Fill what cells enclose of the background, of nested rings each its own hole; cells come to share no pixel.

    Returns
    -------
    Instances
        The same cells in the same order; the same object where there is no hole.
    """
    holes = _holes(instances)
    if not holes:
        return instances
    cells = []
    for cell, (starts, lengths) in enumerate(instances):
        if cell in holes:
            pixels = np.concatenate([pixels_of_runs(starts, lengths), holes[cell]])
            starts, lengths = runs_of_pixels(np.sort(pixels))
        cells.append((starts, lengths))
    starts, lengths = (np.concatenate(part) for part in zip(*cells, strict=True))
    counts = np.array([len(own) for own, _ in cells])
    return Instances(instances.shape, starts, lengths, offsets_of(counts))


def largest_parts(instances: Instances) -> Instances:
    """Keep the largest part of every cell, the first of several that are as large.

    Returns
    -------
    Instances
        The same cells in the same order; the same object where each is one part.
    """
    owner, rows, begins, ends = runs_in_rows(instances)
    part, n_parts = part_of_runs(instances.shape, owner, rows, begins, ends)
    if n_parts == len(instances):
        return instances
    owners, areas = parts_of(instances)
    order = np.lexsort((np.arange(n_parts), -areas, owners))
    largest = order[np.searchsorted(owners[order], np.arange(len(instances)))]
    kept = np.isin(part, largest)
    starts = (rows * instances.shape[1] + begins)[kept]
    counts = np.bincount(owner[kept], minlength=len(instances))
    return Instances(instances.shape, starts, (ends - begins)[kept], offsets_of(counts))


FIXES: Mapping[str, Any] = {
    "fill": fill_holes,
    "largest": largest_parts,
    "split": split_parts,
    "keep": lambda instances: instances,
}
"""What can be done about them, from cells to cells."""


def _shared(instances: Instances) -> Ints:
    """Pixels of every cell that another one has too."""
    covered = _cover(instances) > 1
    before = np.concatenate([[0], np.cumsum(covered)])
    per_run = before[instances.starts + instances.lengths] - before[instances.starts]
    total = np.concatenate([[0], np.cumsum(per_run)])
    return np.asarray(np.diff(total[instances.offsets]), dtype=np.int64)


def _cover(instances: Instances) -> Ints:
    """How many cells have each pixel of the flattened image."""
    size = instances.shape[0] * instances.shape[1]
    begin = np.bincount(instances.starts, minlength=size + 1)
    end = np.bincount(instances.starts + instances.lengths, minlength=size + 1)
    return np.asarray(np.cumsum(begin - end)[:size], dtype=np.int64)


def _holes(instances: Instances) -> dict[int, Ints]:
    """Cells with holes, and the background pixels in them, each given to the cell of the smallest hole it is in."""
    found = list(_enclosed(instances))
    if not found:
        return {}
    cells = np.repeat([cell for cell, *_ in found], [len(own) for _, own, _ in found])
    pixels, sizes = (np.concatenate([item[i] for item in found]) for i in (1, 2))
    order = np.lexsort((cells, sizes, pixels))
    kept = np.sort(order[np.unique(pixels[order], return_index=True)[1]])  # by cell, as they were
    own, starts = np.unique(cells[kept], return_index=True)
    return dict(zip(own.tolist(), np.split(pixels[kept], starts[1:]), strict=True))


def _enclosed(instances: Instances) -> Iterator[tuple[int, Ints, Ints]]:
    """Cells, background pixels they enclose (places in the flattened image), and sizes of the holes these are in."""
    free = _cover(instances) == 0
    owner, rows, begins, ends = runs_in_rows(instances)
    width = instances.shape[1]
    for cell in _with_loops(instances, owner, rows, begins, ends):
        own = slice(*np.searchsorted(owner, [cell, cell + 1]))
        top, left = rows[own].min(), begins[own].min()
        crop = np.zeros((rows[own].max() - top + 1, ends[own].max() - left), dtype=np.bool_)
        for row, begin, end in zip(
            rows[own] - top, begins[own] - left, ends[own] - left, strict=True
        ):
            crop[row, begin:end] = True
        holes = ndimage.label(ndimage.binary_fill_holes(crop) & ~crop)[0]
        y, x = np.nonzero(holes)
        pixels, sizes = (y + top) * width + x + left, np.bincount(holes[y, x])[holes[y, x]]
        if free[pixels].any():
            yield int(cell), pixels[free[pixels]], sizes[free[pixels]]


def _with_loops(instances: Instances, owner: Ints, rows: Ints, begins: Ints, ends: Ints) -> Ints:
    """Cells whose runs form a loop, as they do around a hole: more contacts than it takes to join them."""
    if not len(owner):
        return owner
    count = len(instances)
    upper = touching_runs(instances.shape, owner, rows, begins, ends)[0]
    contacts = np.bincount(owner[upper], minlength=count)
    parts = np.bincount(parts_of(instances)[0], minlength=count)
    return np.flatnonzero(contacts > np.bincount(owner, minlength=count) - parts)

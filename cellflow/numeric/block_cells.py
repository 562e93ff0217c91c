"""The mask step of an image too large to be held: block by block, with the cells of the whole image.

`flows_to_labels` leads pixels along the flow, takes places where many of them end for seeds, and gives each
pixel the seed that owns its end. None of that needs a label of a neighbouring block. Here a block finds
where its own pixels end (`follow_part`), the ends of all blocks are counted, and each block looks up which seed
owns the ends of its pixels (`own_ends`). A seed is a place of the whole image, so all blocks name a cell that
lies in several of them alike, and there is nothing to merge. Every pixel takes every step, as with
``method="trace"``; blocks of any size give the same cells, those of `flows_to_labels` with that method.

Places and ends are flat indices of the whole image.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellflow.numeric import _part, _regions
from cellflow.numeric._jit import run_blocks
from cellflow.numeric._measure import AREA, BOX, FIRST, measure
from cellflow.numeric.dynamics import (
    Candidates,
    candidate_errors,
    candidate_probabilities,
    check_fields,
    grown_seeds,
    unit_field,
)
from cellflow.types import Box

__all__ = [
    "CellTable",
    "check_cells",
    "count_places",
    "follow_part",
    "foreground_of",
    "own_ends",
    "part_table",
]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

REACH = 12
"""A seed grows over 5 pixels and looks 2 further: what lies farther from an end has no say in who owns it."""
_BATCH = 16384  # places that a thread follows at a time


class CellTable(NamedTuple):
    """Cells, or the parts of cells that lie in one block, ``(n,)`` each.

    `seed` is the place of the cell's seed, which names it; `area` its pixels; `box` its rows and columns
    ``(n, 4)`` in the whole image: first row, past the last row, first column, past the last column; `first`
    the place of its first pixel.
    """

    seed: Longs
    area: Longs
    box: Longs
    first: Longs


def foreground_of(
    flow: Any, cellprob: Any, threshold: float
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """Unit flow ``(h, w, 2)`` of a part, 0 outside of cells, its foreground, and the tally of `unit_field`."""
    flow, cellprob = check_fields(flow, cellprob)
    field, inside, tally = unit_field(flow, cellprob, threshold)
    return field, inside.view(np.bool_), tally


def follow_part(
    field: Floats, part: Box, places: Longs, shape: tuple[int, int], steps: int
) -> tuple[Longs, NDArray[np.bool_]]:
    """Where pixels of a part come to rest.

    Parameters
    ----------
    field : (h, w, 2) float32 ndarray
        Unit flow of the part, 0 outside of cells.
    part : Box
        Where it lies in the whole image.
    places : (n,) int64 ndarray
        Pixels to follow, within the part.
    shape : (int, int)
        Of the whole image.
    steps : int
        Steps of one unit flow each.

    Returns
    -------
    ends : (n,) int64 ndarray
        Where they come to rest.
    cut : (n,) bool ndarray
        Whether the way led out of the part, so that the end means nothing: take a larger part.
    """
    geometry = np.array([part.top, part.left, *part.shape, *shape], dtype=np.int64)
    ends, cut = np.empty_like(places), np.zeros(len(places), dtype=np.uint8)
    run_blocks(
        lambda _, a, b: _part.trace_part(field, geometry, places, a, b, steps, ends, cut),
        len(places),
        _BATCH,
    )
    return ends, cut.view(np.bool_)


def count_places(ends: Longs) -> tuple[Longs, Ints, Ints]:
    """The places where pixels end, ascending, how many do in each, and each pixel's row among them."""
    places, codes, counts = np.unique(ends, return_inverse=True, return_counts=True)
    return places, counts.astype(np.int32), codes.astype(np.int32)


def own_ends(wanted: Longs, places: Longs, counts: Longs, shape: tuple[int, int]) -> Longs:
    """The seed that owns each of some places; -1 where none does.

    Parameters
    ----------
    wanted : (n,) int64 ndarray
        Places to look up.
    places, counts : (m,) int64 ndarray
        Pixels of the whole image that end in each place within `REACH` of those; a place may be listed
        several times, its counts are summed. Others do no harm.
    shape : (int, int)
        Of the whole image.
    """
    if not len(wanted):
        return np.empty(0, dtype=np.int64)
    width = shape[1]
    rows, columns = np.divmod(wanted, width)
    window = Box(
        int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1
    ).grown(REACH, shape)
    y, x = np.divmod(places, width)
    near = (y >= window.top) & (y < window.bottom) & (x >= window.left) & (x < window.right)
    local = (y[near] - window.top) * window.shape[1] + x[near] - window.left
    ends = np.bincount(local, counts[near], window.shape[0] * window.shape[1])
    dense = ends.astype(np.int32).reshape(window.shape)
    crowded = np.flatnonzero(dense > _regions.MIN_SEED).astype(np.int32)
    seeds, owner = grown_seeds(dense, crowded)
    found = owner[rows - window.top, columns - window.left]
    seed_rows, seed_columns = np.divmod(seeds.astype(np.int64), window.shape[1])
    named = (seed_rows + window.top) * width + seed_columns + window.left
    return np.asarray(np.concatenate([[-1], named])[found], dtype=np.int64)


def part_table(labels: Ints, seeds: Longs, part: Box, shape: tuple[int, int]) -> CellTable:
    """Measure the labels 1..n of a part, whose seeds are `seeds`; all of them have pixels."""
    stats = measure(labels, len(seeds))[1:].astype(np.int64)
    y, x = np.divmod(stats[:, FIRST], labels.shape[1])
    origin = np.array([part.top, part.top, part.left, part.left])
    return CellTable(
        seeds,
        stats[:, AREA],
        stats[:, BOX] + origin,
        (y + part.top) * shape[1] + x + part.left,
    )


class CellChecks(NamedTuple):
    """What decides whether a cell stays, ``(n,)`` each, and the holes that it closes.

    `error` is its flow error and `probability` the mean probability of its pixels. `holes` are pixels that
    it encloses, as places of the whole image, and `hole_of` the row of the cell that each belongs to.
    """

    error: Floats
    probability: NDArray[np.float64]
    holes: Longs
    hole_of: Ints


def check_cells(
    labels: Ints,
    table: CellTable,
    part: Box,
    shape: tuple[int, int],
    field: Floats,
    cellprob: Floats,
) -> CellChecks:
    """Check cells of which a part holds every pixel.

    Parameters
    ----------
    labels : (h, w) int32 ndarray
        Cell ``i`` of the table has the label ``i + 1``; what else there is has others.
    table : CellTable
        The cells to check.
    part : Box
        Where the part lies in the whole image of `shape`.
    field : (h, w, 2) float32 ndarray
        Unit flow, 0 outside of cells.
    cellprob : (h, w) float32 ndarray
        Logit.
    """
    origin = np.array([part.top, part.top, part.left, part.left])
    boxes = np.ascontiguousarray((table.box - origin).astype(np.int32))
    count = len(table.seed)
    numbers = np.arange(1, count + 1, dtype=np.int32)
    candidates = Candidates(labels, table.area, boxes, numbers, field)
    errors = candidate_errors(candidates, numbers)
    own = Candidates(np.where(labels <= count, labels, 0), table.area, boxes, numbers, field)
    probability = candidate_probabilities(own, cellprob)
    holes, hole_of = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int32)]
    flags = np.zeros(int(labels.max(initial=0)) + 1, dtype=np.bool_)
    _regions.flag_holes(labels, flags)
    for number in np.flatnonzero(flags[: count + 1]):
        top, bottom, left, right = boxes[number - 1]
        mask = labels[top:bottom, left:right] == number
        y, x = np.nonzero(ndimage.binary_fill_holes(mask) & ~mask)
        holes.append((y + top + part.top).astype(np.int64) * shape[1] + x + left + part.left)
        hole_of.append(np.full(len(y), number - 1, dtype=np.int32))
    return CellChecks(errors, probability, np.concatenate(holes), np.concatenate(hole_of))

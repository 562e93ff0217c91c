"""From the flows of blocks to the cells of the whole image, see `cellflow.numeric.block_cells`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cellflow.engine.slides.cell_list import JoinedCells
from cellflow.engine.slides.store import SlideStore
from cellflow.engine.slides.work import SlideJob, Work, open_work
from cellflow.numeric.block_cells import (
    REACH,
    CellTable,
    check_cells,
    count_places,
    follow_part,
    foreground_of,
    own_ends,
    part_table,
)
from cellflow.types import Box

__all__ = ["check_owned", "find_cells", "find_ends", "owned_parts"]

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

_NEAR = 2.0
"""Diameters around a block that are looked at first; where pixels run farther, more is."""
_FEWEST = 32


def find_ends(job: SlideJob, name: str) -> None:
    """Where the pixels of a block come to rest, and how many do in each place."""
    work = open_work(job)
    plan, store = work.plan, work.store
    core = plan.grid.core(name)
    threshold = plan.mask.cellprob_threshold
    flow, cellprob = store.fields(core)
    _, inside, tally = foreground_of(flow, cellprob, threshold)
    rows, columns = np.nonzero(inside)
    pixels = (rows + core.top) * plan.shape[1] + columns + core.left
    ends, left = np.full(len(pixels), -1, dtype=np.int64), np.arange(len(pixels))
    margin = max(_FEWEST, math.ceil(_NEAR * plan.diameter))
    while len(left):
        region = core.grown(margin, plan.shape)
        field, _, _ = foreground_of(*store.fields(region), threshold)
        found, cut = follow_part(field, region, pixels[left], plan.shape, plan.steps)
        ends[left[~cut]] = found[~cut]
        left = left[cut]
        if margin >= plan.reach:
            break  # what has not come to rest here is no cell
        margin = min(2 * margin, plan.reach)
    resting = ends >= 0
    places, counts, codes = count_places(ends[resting])
    known = np.full(core.shape, -1, dtype=np.int32)
    known[rows[resting], columns[resting]] = codes
    store.write("ends", core, known)
    store.save("ends", name, places=places, counts=counts, tally=tally, lost=np.int64(len(left)))


def find_cells(job: SlideJob, name: str) -> None:
    """Which seed each pixel of a block belongs to; a cell of several blocks has one seed in all of them."""
    work = open_work(job)
    plan, store = work.plan, work.store
    core = plan.grid.core(name)
    wanted = store.load("ends", name)["places"]
    near = [
        store.load("ends", other)
        for other in plan.grid.touching(core.grown(2 * plan.reach + REACH, plan.shape))
    ]
    places = np.concatenate([item["places"] for item in near])
    counts = np.concatenate([item["counts"] for item in near]).astype(np.int64)
    seeds = own_ends(wanted, places, counts, plan.shape)
    names = np.unique(seeds[seeds >= 0])
    label = np.where(seeds >= 0, np.searchsorted(names, seeds) + 1, 0).astype(np.int32)
    labels = np.append(label, np.int32(0))[store.read("ends", core)]  # -1 is the last
    table = part_table(labels, names, core, plan.shape)
    store.write("cells", core, labels)
    store.save("cells", name, **table._asdict())


def check_owned(job: SlideJob, name: str) -> None:
    """Flow error, probability and holes of the cells whose first pixel lies in a block."""
    work = open_work(job)
    plan, store = work.plan, work.store
    joined = JoinedCells(store)
    rows = joined.owned(name)
    error = np.zeros(len(rows), dtype=np.float32)
    probability = np.zeros(len(rows), dtype=np.float64)
    holes, hole_of = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for part, chosen in owned_parts(work, name, joined.table(rows)):
        table = joined.table(rows[chosen])
        labels = labels_of(store, part, table.seed)
        flow, cellprob = store.fields(part)
        field, _, _ = foreground_of(flow, cellprob, plan.mask.cellprob_threshold)
        found = check_cells(labels, table, part, plan.shape, field, cellprob)
        error[chosen], probability[chosen] = found.error, found.probability
        holes.append(found.holes)
        hole_of.append(rows[chosen[found.hole_of]])
    store.save(
        "checks", name, rows=rows, error=error, probability=probability,
        holes=np.concatenate(holes), hole_of=np.concatenate(hole_of),
    )  # fmt: skip


def owned_parts(work: Work, name: str, table: CellTable) -> Iterator[tuple[Box, Longs]]:
    """Parts of the image that hold every pixel of cells which a block owns, and the rows of these in its table.

    Nearly all lie in one part, the block with a margin; a cell that reaches farther has a part of its own.
    """
    if not len(table.seed):
        return
    core = work.plan.grid.core(name)
    around = core.grown(max(core.shape) // 2, work.plan.shape)
    top, bottom, left, right = table.box.T
    near = (
        (top >= around.top) & (bottom <= around.bottom)
        & (left >= around.left) & (right <= around.right)
    )  # fmt: skip
    groups = [np.flatnonzero(near)] if near.any() else []
    for rows in (*groups, *(np.array([row]) for row in np.flatnonzero(~near))):
        box = Box(
            int(top[rows].min()), int(bottom[rows].max()),
            int(left[rows].min()), int(right[rows].max()),
        )  # fmt: skip
        yield box.grown(1, work.plan.shape), rows


def labels_of(store: SlideStore, part: Box, seeds: Longs) -> Ints:
    """Labels of a part: ``i + 1`` where the cell of seed ``i`` lies, one more than all of them on other cells."""
    order = np.argsort(seeds)
    out = np.zeros(part.shape, dtype=np.int32)
    for name in store.grid.touching(part):
        box = store.grid.core(name).intersection(part)
        known = store.load("cells", name)["seed"]
        at = np.minimum(np.searchsorted(seeds, known, sorter=order), len(seeds) - 1)
        own = seeds[order[at]] == known
        numbers = np.where(own, order[at] + 1, len(seeds) + 1).astype(np.int32)
        labels = np.append(np.int32(0), numbers)[store.read("cells", box)]
        rows = slice(box.top - part.top, box.bottom - part.top)
        out[rows, box.left - part.left : box.right - part.left] = labels
    return out

"""The runs of cells in rows, and the separate parts they form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cellflow.types import Instances

__all__ = [
    "Ints",
    "offsets_of",
    "owner_of_runs",
    "part_of_runs",
    "parts_of",
    "pixels_of_runs",
    "runs_in_rows",
    "runs_of_pixels",
    "touching_runs",
]

Ints = NDArray[np.int64]


def owner_of_runs(instances: Instances) -> Ints:
    """The cell that each run belongs to."""
    return np.repeat(np.arange(len(instances), dtype=np.int64), np.diff(instances.offsets))


def offsets_of(counts: Ints) -> Ints:
    """Offsets of cells that have so many runs each."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def pixels_of_runs(starts: Ints, lengths: Ints) -> Ints:
    """Places in the flattened image of the pixels of runs, in their order."""
    first = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return np.asarray(first + np.arange(len(first)), dtype=np.int64)


def runs_of_pixels(pixels: Ints) -> tuple[Ints, Ints]:
    """Starts and lengths of the runs that ascending places form."""
    first = np.flatnonzero(np.diff(pixels, prepend=-2) > 1)
    return pixels[first].astype(np.int64), np.diff(first, append=len(pixels)).astype(np.int64)


def parts_of(instances: Instances) -> tuple[Ints, Ints]:
    """Cell that each part belongs to, and pixels of each part."""
    owner, rows, begins, ends = runs_in_rows(instances)
    part, n_parts = part_of_runs(instances.shape, owner, rows, begins, ends)
    areas = np.bincount(part, weights=ends - begins, minlength=n_parts).astype(np.int64)
    owners = np.zeros(n_parts, dtype=np.int64)
    owners[part] = owner
    return owners, areas


def part_of_runs(
    shape: tuple[int, int], owner: Ints, rows: Ints, begins: Ints, ends: Ints
) -> tuple[Ints, int]:
    """Number of the part that each run lies in, in the order of the runs, and how many parts there are."""
    if not len(owner):
        return owner, 0
    pairs = touching_runs(shape, owner, rows, begins, ends)
    graph = coo_array((np.ones(len(pairs[0]), np.int8), pairs), shape=(len(owner), len(owner)))
    n_parts, part = connected_components(graph, directed=False)
    return part.astype(np.int64), int(n_parts)


def touching_runs(
    shape: tuple[int, int], owner: Ints, rows: Ints, begins: Ints, ends: Ints
) -> tuple[Ints, Ints]:
    """Pairs of runs of one cell that touch, at a corner too: the upper or left one, and the other."""
    # One number per place that grows with cell, row and column; the gap keeps rows apart.
    gap = shape[1] + 2
    base = (owner * (shape[0] + 1) + rows) * gap
    starts, stops = base + begins, base + ends
    low = np.searchsorted(stops, starts + gap, side="left")
    high = np.searchsorted(starts, stops + gap, side="right")
    counts = np.maximum(high - low, 0)
    above = np.repeat(np.arange(len(owner)), counts)
    below = np.arange(counts.sum()) + np.repeat(low - (np.cumsum(counts) - counts), counts)
    beside = np.flatnonzero(stops[:-1] == starts[1:])
    return np.concatenate([above, beside]), np.concatenate([below, beside + 1])


def runs_in_rows(instances: Instances) -> tuple[Ints, Ints, Ints, Ints]:
    """Runs cut at the ends of rows: their cell, row, first column and the column after the last."""
    width = max(1, instances.shape[1])
    owner = owner_of_runs(instances)
    first = instances.starts // width
    pieces = (instances.starts + instances.lengths - 1) // width - first + 1
    run = np.repeat(np.arange(len(owner), dtype=np.int64), pieces)
    rows = first[run] + np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begins = np.maximum(instances.starts[run] - rows * width, 0)
    ends = np.minimum((instances.starts + instances.lengths)[run] - rows * width, width)
    return owner[run], rows, begins, ends

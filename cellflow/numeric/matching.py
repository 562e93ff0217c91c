"""Overlaps between two sets of cells, counted sparsely."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.numeric._jit import kernel, run_blocks
from cellflow.numeric._runs import owner_of_runs
from cellflow.numeric.labels import bounded, instances_from_labels, measure_areas
from cellflow.types import Instances

__all__ = ["Matches", "as_instances", "match"]

Ints = NDArray[np.int64]
_NO_PAIRS = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


def as_instances(cells: Any) -> Instances:
    """Instances as they are, or those of a label map."""
    return cells if isinstance(cells, Instances) else instances_from_labels(cells)


class Matches(NamedTuple):
    """Pairs of cells that share pixels, with the areas of all cells.

    Attributes
    ----------
    truth, prediction : (P,) int64 ndarray
        0-indexed positions of the cells of each pair, sorted by truth, then by prediction.
    shared : (P,) int64 ndarray
        Pixels of both, at least 1.
    truth_areas, prediction_areas : int64 ndarray
        Pixels of every cell.
    """

    truth: Ints
    prediction: Ints
    shared: Ints
    truth_areas: Ints
    prediction_areas: Ints

    @property
    def union(self) -> Ints:
        """Pixels of either cell of each pair."""
        both = self.truth_areas[self.truth] + self.prediction_areas[self.prediction]
        return both - self.shared


def match(truth: Any, prediction: Any) -> Matches:
    """Pixels shared by every pair of cells that share any.

    The cells of either side may overlap each other. Runs are joined with runs or with a label map, and
    two label maps are read once side by side: time and memory grow with runs, pixels and touching
    pairs, never with the number of possible pairs.

    Parameters
    ----------
    truth, prediction : Instances or (H, W) integer ndarray
        Of a label map only the labels that are present count, in the order of their numbers.

    Raises
    ------
    DataError
        If the two are not of the same image size.
    """
    shapes = [
        tuple(c.shape if isinstance(c, Instances) else np.shape(c)) for c in (truth, prediction)
    ]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"truth and prediction: expected one image size, found {shapes[0]} and {shapes[1]}"
        )
    if not isinstance(truth, Instances) and not isinstance(prediction, Instances):
        return _match_maps(bounded(truth, "truth"), bounded(prediction, "prediction"))
    first = as_instances(truth)
    runs = (
        np.ascontiguousarray(first.starts),
        np.ascontiguousarray(first.lengths),
        np.ascontiguousarray(first.offsets),
    )
    if not isinstance(prediction, Instances):
        plain, top = bounded(prediction, "prediction")
        areas = measure_areas(plain, top)
        i, number, shared = _join_map(*runs, plain.reshape(-1), top)
        index = np.cumsum(areas > 0) - 1  # missing numbers are no cells
        return Matches(i, index[number], shared, first.areas, areas[areas > 0])
    owner = owner_of_runs(prediction)
    order = np.argsort(prediction.starts, kind="stable")
    starts = prediction.starts[order]
    ends = starts + prediction.lengths[order]
    reach = np.maximum.accumulate(ends) if len(ends) else ends
    pairs = _join_runs(*runs, starts, ends, reach, owner[order], len(prediction))
    return Matches(*pairs, first.areas, prediction.areas)


def _match_maps(
    truth: tuple[NDArray[np.int32], int], prediction: tuple[NDArray[np.int32], int]
) -> Matches:
    """Both maps in one pass, in blocks on several threads."""
    first, second = truth[0].reshape(-1), prediction[0].reshape(-1)
    block = max(65536, -(-first.size // 16))
    parts: list[tuple[Ints, Ints]] = [_NO_PAIRS] * max(1, -(-first.size // block))

    def count(index: int, start: int, stop: int) -> None:
        parts[index] = _count_pairs(first[start:stop], second[start:stop])

    run_blocks(count, first.size, block)
    keys, where = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
    counts = np.concatenate([part[1] for part in parts])
    # float64 sums of whole numbers below 2**53 are exact
    pixels = np.bincount(where, weights=counts, minlength=len(keys)).astype(np.int64)
    i, j = keys >> 32, keys & 0xFFFFFFFF
    areas = [
        np.bincount(index, weights=pixels, minlength=side[1] + 1).astype(np.int64)
        for index, side in ((i, truth), (j, prediction))
    ]
    both = (i > 0) & (j > 0)
    for area in areas:
        area[0] = 0
    # missing numbers are no cells
    i, j = ((np.cumsum(a > 0) - 1)[k[both]] for a, k in zip(areas, (i, j), strict=True))
    return Matches(i, j, pixels[both], areas[0][areas[0] > 0], areas[1][areas[1] > 0])


@kernel
def _count_pairs(first: NDArray[np.int32], second: NDArray[np.int32]) -> tuple[Ints, Ints]:
    """Pixels of every pair of numbers that meet, in a hash table with open addressing.

    Keys are ``first << 32 | second``; two times background is left out, so 0 marks a free place.
    """
    size = 4096
    keys = np.zeros(size, dtype=np.int64)
    counts = np.zeros(size, dtype=np.int64)
    used = 0
    i = 0
    while i < first.size:
        a = first[i]
        b = second[i]
        begin = i
        i += 1
        while i < first.size and first[i] == a and second[i] == b:
            i += 1
        key = (np.int64(a) << 32) | np.int64(b)
        if key == 0:
            continue
        if 2 * used >= size:
            old_keys = keys
            old_counts = counts
            size *= 2
            keys = np.zeros(size, dtype=np.int64)
            counts = np.zeros(size, dtype=np.int64)
            for k in range(old_keys.size):
                if old_keys[k]:
                    place = _find(keys, old_keys[k])
                    keys[place] = old_keys[k]
                    counts[place] = old_counts[k]
        place = _find(keys, key)
        if keys[place] == 0:
            keys[place] = key
            used += 1
        counts[place] += i - begin
    return keys[keys > 0], counts[keys > 0]


@kernel
def _find(keys: Ints, key: np.int64) -> int:
    """Where a key is, or the free place for it; the size of the table is a power of two."""
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    place = np.int64((mixed >> np.uint64(32)) & np.uint64(keys.size - 1))
    while keys[place] != 0 and keys[place] != key:
        place = (place + 1) & (keys.size - 1)
    return int(place)


@kernel
def _append(out: Ints, n_out: int, cell: int, touched: Ints, shared: Ints) -> Ints:
    """Write the pairs of one cell in the order of the other index and clear their counts."""
    if n_out + touched.size > out.shape[0]:
        larger = np.empty((2 * (n_out + touched.size), 3), dtype=np.int64)
        larger[:n_out] = out[:n_out]
        out = larger
    touched.sort()
    for index in touched:
        out[n_out, 0] = cell
        out[n_out, 1] = index
        out[n_out, 2] = shared[index]
        shared[index] = 0
        n_out += 1
    return out


@kernel
def _join_map(
    starts: Ints, lengths: Ints, offsets: Ints, flat: NDArray[np.int32], top: int
) -> tuple[Ints, Ints, Ints]:
    """Count the numbers of a label map under the runs of each cell."""
    shared = np.zeros(top + 1, dtype=np.int64)
    touched = np.empty(top + 1, dtype=np.int64)
    out = np.empty((256, 3), dtype=np.int64)
    n_out = 0
    for cell in range(offsets.size - 1):
        n_touched = 0
        for run in range(offsets[cell], offsets[cell + 1]):
            i = starts[run]
            end = i + lengths[run]
            while i < end:
                number = flat[i]
                begin = i
                i += 1
                while i < end and flat[i] == number:
                    i += 1
                if number > 0:
                    if shared[number] == 0:
                        touched[n_touched] = number
                        n_touched += 1
                    shared[number] += i - begin
        out = _append(out, n_out, cell, touched[:n_touched], shared)
        n_out += n_touched
    return out[:n_out, 0].copy(), out[:n_out, 1].copy(), out[:n_out, 2].copy()


@kernel
def _join_runs(
    starts: Ints,
    lengths: Ints,
    offsets: Ints,
    other_starts: Ints,
    other_ends: Ints,
    other_reach: Ints,
    other_owner: Ints,
    n_other: int,
) -> tuple[Ints, Ints, Ints]:
    """Join sorted runs; ``other_reach[i]`` is the furthest end among the runs up to i."""
    shared = np.zeros(n_other, dtype=np.int64)
    touched = np.empty(n_other, dtype=np.int64)
    out = np.empty((256, 3), dtype=np.int64)
    n_out = 0
    for cell in range(offsets.size - 1):
        n_touched = 0
        for run in range(offsets[cell], offsets[cell + 1]):
            begin = starts[run]
            end = begin + lengths[run]
            other = np.searchsorted(other_starts, end) - 1
            while other >= 0 and other_reach[other] > begin:
                common = min(end, other_ends[other]) - max(begin, other_starts[other])
                if common > 0:
                    index = other_owner[other]
                    if shared[index] == 0:
                        touched[n_touched] = index
                        n_touched += 1
                    shared[index] += common
                other -= 1
        out = _append(out, n_out, cell, touched[:n_touched], shared)
        n_out += n_touched
    return out[:n_out, 0].copy(), out[:n_out, 1].copy(), out[:n_out, 2].copy()

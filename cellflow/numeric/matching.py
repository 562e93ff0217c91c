"""Overlaps between two sets of cells, counted sparsely."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.numeric._jit import kernel
from cellflow.numeric.labels import bounded, instances_from_labels, measure_areas
from cellflow.types import Instances

__all__ = ["as_instances", "overlaps"]

Ints = NDArray[np.int64]


def as_instances(cells: Any) -> Instances:
    """Instances as they are, or those of a label map."""
    return cells if isinstance(cells, Instances) else instances_from_labels(cells)


def overlaps(truth: Any, prediction: Any) -> tuple[Ints, Ints, Ints]:
    """Pixels shared by every pair of cells that share any.

    The cells of either side may overlap each other. Runs are joined with runs, so time and memory
    grow with the number of runs and of touching pairs, never with the number of possible pairs.

    Parameters
    ----------
    truth, prediction : Instances or (H, W) integer ndarray
        Of a label map only the labels that are present count, in the order of their numbers.

    Returns
    -------
    truth_index, prediction_index : (P,) int64 ndarray
        0-indexed positions of the cells of each pair, sorted by truth, then by prediction.
    intersection : (P,) int64 ndarray
        Shared pixels, at least 1.

    Raises
    ------
    DataError
        If the two are not of the same image size.
    """
    found = match(truth, prediction)
    return found.truth, found.prediction, found.shared


class Matches(NamedTuple):
    """Pairs of cells that share pixels, see `overlaps`, with the areas of all cells."""

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
    """`overlaps` and areas in one go."""
    first = as_instances(truth)
    shape = prediction.shape if isinstance(prediction, Instances) else np.shape(prediction)
    if tuple(first.shape) != tuple(shape):
        raise DataError(
            f"truth and prediction: expected one image size, found {tuple(first.shape)} and"
            f" {tuple(shape)}"
        )
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
    owner = np.repeat(np.arange(len(prediction), dtype=np.int64), np.diff(prediction.offsets))
    order = np.argsort(prediction.starts, kind="stable")
    starts = prediction.starts[order]
    ends = starts + prediction.lengths[order]
    reach = np.maximum.accumulate(ends) if len(ends) else ends
    pairs = _join_runs(*runs, starts, ends, reach, owner[order], len(prediction))
    return Matches(*pairs, first.areas, prediction.areas)


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

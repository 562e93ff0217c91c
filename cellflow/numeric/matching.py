"""Overlaps between two sets of cells, counted sparsely."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.numeric._jit import kernel
from cellflow.numeric.labels import instances_from_labels
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
    first, second = as_instances(truth), as_instances(prediction)
    if tuple(first.shape) != tuple(second.shape):
        raise DataError(
            f"truth and prediction: expected one image size, found {tuple(first.shape)} and"
            f" {tuple(second.shape)}"
        )
    owner = np.repeat(np.arange(len(second), dtype=np.int64), np.diff(second.offsets))
    order = np.argsort(second.starts, kind="stable")
    starts = second.starts[order]
    ends = starts + second.lengths[order]
    reach = np.maximum.accumulate(ends) if len(ends) else ends
    return _join_runs(
        np.ascontiguousarray(first.starts),
        np.ascontiguousarray(first.lengths),
        np.ascontiguousarray(first.offsets),
        starts,
        ends,
        reach,
        owner[order],
        len(second),
    )


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
        if n_out + n_touched > out.shape[0]:
            larger = np.empty((2 * (n_out + n_touched), 3), dtype=np.int64)
            larger[:n_out] = out[:n_out]
            out = larger
        found = np.sort(touched[:n_touched])
        for i in range(n_touched):
            out[n_out, 0] = cell
            out[n_out, 1] = found[i]
            out[n_out, 2] = shared[found[i]]
            shared[found[i]] = 0
            n_out += 1
    return out[:n_out, 0].copy(), out[:n_out, 1].copy(), out[:n_out, 2].copy()

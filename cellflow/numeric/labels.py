"""Label maps: checks, numbering, areas, outlines, and the way to and from `Instances`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.numeric._jit import kernel
from cellflow.types import Instances

__all__ = [
    "check_labels",
    "instances_from_labels",
    "label_areas",
    "labels_from_instances",
    "median_diameter",
    "outlines",
    "renumber",
]

_MAX_LABELS = 2**31 - 2


def check_labels(labels: Any, name: str = "labels") -> NDArray[Any]:
    """Make sure that `labels` is a label map and return it as an array.

    Parameters
    ----------
    labels : (H, W) integer or bool ndarray
        0 is background. Bool counts as one cell.
    name : str
        What to call it in the message.

    Returns
    -------
    (H, W) ndarray
        The same array, of an integer dtype, not copied if it need not be.

    Raises
    ------
    DataError
        If it is not 2-D, not of an integer dtype, or has negative values.
    """
    array = np.asarray(labels)
    if array.ndim != 2:
        raise DataError(f"{name}: expected a label map of shape (H, W), found shape {array.shape}")
    if array.dtype == bool:
        return array.view(np.uint8)
    if array.dtype.kind not in "iu":
        raise DataError(
            f"{name}: expected whole numbers (0 background, 1..n cells), found dtype {array.dtype};"
            " convert it with .astype('int32') if it holds labels"
        )
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        where = np.unravel_index(int(array.argmin()), array.shape)
        raise DataError(
            f"{name}: expected labels of 0 and more, found {array.min()} at row {where[0]},"
            f" column {where[1]}"
        )
    return array


def compact(labels: Any, name: str = "labels") -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number labels 1..n in the order of their old numbers.

    Returns
    -------
    labels : (H, W) int32 ndarray
        C-contiguous and writable; the input itself if nothing had to change.
    numbers : (n,) int64 ndarray
        Old numbers, ascending.
    """
    array = check_labels(labels, name)
    top = int(array.max()) if array.size else 0
    if top > 4 * array.size + 65536:  # too sparse for a table
        numbers, inverse = np.unique(array, return_inverse=True)
        shift = 0 if numbers.size and numbers[0] == 0 else 1
        dense = (inverse.reshape(array.shape) + shift).astype(np.int32)
        return dense, numbers[numbers > 0].astype(np.int64)
    plain = np.require(array, dtype=np.int32, requirements=["C", "W"])
    present = np.zeros(top + 1, dtype=np.bool_)
    _mark_present(plain.reshape(-1), present)
    present[0] = False
    numbers = np.flatnonzero(present).astype(np.int64)
    if len(numbers) == top:
        return plain, numbers
    table = np.zeros(top + 1, dtype=np.int32)
    table[numbers] = np.arange(1, len(numbers) + 1, dtype=np.int32)
    return table[plain], numbers


def renumber(labels: Any) -> NDArray[np.int32]:
    """Number labels 1..n without gaps, in the order of their old numbers.

    Parameters
    ----------
    labels : (H, W) integer ndarray

    Returns
    -------
    (H, W) int32 ndarray
        A new array.

    Raises
    ------
    DataError
        If `labels` is not a label map.
    """
    dense, _ = compact(labels)
    return dense.copy() if np.shares_memory(dense, labels) else dense


def label_areas(labels: Any) -> NDArray[np.int64]:
    """Pixels per label, for the labels that are present, in the order of their numbers.

    Parameters
    ----------
    labels : (H, W) integer ndarray

    Returns
    -------
    (n,) int64 ndarray
    """
    dense, numbers = compact(labels)
    counts = np.bincount(dense.reshape(-1), minlength=len(numbers) + 1)
    return np.asarray(counts[1:], dtype=np.int64)


def median_diameter(labels: Any) -> float:
    """Median diameter of the cells in pixels, 0.0 when there are none.

    The diameter of a cell is that of a disc of the same area, so the value is the median of
    ``2 * sqrt(area / pi)``, as ``cellpose.utils.diameters`` defines it.

    Parameters
    ----------
    labels : (H, W) integer ndarray
    """
    areas = label_areas(labels)
    if not len(areas):
        return 0.0
    return float(np.median(np.sqrt(areas)) * 2 / np.sqrt(np.pi))


def outlines(labels: Any) -> NDArray[np.bool_]:
    """Pixels of cells that have another label, the background or the image border beside them.

    Neighbours are the four along rows and columns, so the line is inside the cell and one pixel wide.

    Parameters
    ----------
    labels : (H, W) integer ndarray

    Returns
    -------
    (H, W) bool ndarray
    """
    array = check_labels(labels)
    edge = np.zeros(array.shape, dtype=np.bool_)
    if not array.size:
        return edge
    down = array[1:] != array[:-1]
    right = array[:, 1:] != array[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    edge[[0, -1]] = True
    edge[:, [0, -1]] = True
    return edge & (array > 0)


def instances_from_labels(labels: Any) -> Instances:
    """Runs of every label, in the order of their numbers.

    Parameters
    ----------
    labels : (H, W) integer ndarray
        Gaps in the numbering are allowed; missing numbers give no instance.

    Returns
    -------
    Instances
    """
    dense, numbers = compact(labels)
    flat = dense.reshape(-1)
    counts = np.zeros(len(numbers) + 2, dtype=np.int64)
    _count_runs(flat, counts)
    offsets = np.concatenate([[0], np.cumsum(counts[1:-1])]).astype(np.int64)
    starts = np.empty(int(offsets[-1]), dtype=np.int64)
    lengths = np.empty_like(starts)
    _fill_runs(flat, offsets.copy(), starts, lengths)
    return Instances((dense.shape[0], dense.shape[1]), starts, lengths, offsets)


def labels_from_instances(instances: Instances) -> NDArray[np.int32]:
    """Paint instances into a label map; a disputed pixel goes to the smaller instance.

    Of two instances of the same area the later one wins. An instance that is left without a pixel
    vanishes and the later ones move up, so labels are 1..n without gaps.

    Parameters
    ----------
    instances : Instances

    Returns
    -------
    (H, W) int32 ndarray
    """
    n_pixels = instances.shape[0] * instances.shape[1]
    flat = np.zeros(n_pixels, dtype=np.int32)
    order = np.lexsort((np.arange(len(instances)), -instances.areas)).astype(np.int64)
    _paint(instances.starts, instances.lengths, instances.offsets, order, flat)
    dense, _ = compact(flat.reshape(instances.shape))
    return dense


@kernel
def _mark_present(flat: NDArray[np.int32], present: NDArray[np.bool_]) -> None:
    last = np.int32(-1)
    for value in flat:
        if value != last:
            present[value] = True
            last = value


@kernel
def _count_runs(flat: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
    last = np.int32(0)
    for value in flat:
        if value != last:
            counts[value] += 1  # runs of background are counted at 0 and not used
            last = value


@kernel
def _fill_runs(
    flat: NDArray[np.int32],
    cursor: NDArray[np.int64],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
) -> None:
    last = np.int32(0)
    begin = 0
    for i in range(flat.size + 1):
        value = flat[i] if i < flat.size else np.int32(0)
        if value != last:
            if last > 0:
                place = cursor[last - 1]
                cursor[last - 1] = place + 1
                starts[place] = begin
                lengths[place] = i - begin
            begin = i
            last = value


@kernel
def _paint(
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    offsets: NDArray[np.int64],
    order: NDArray[np.int64],
    flat: NDArray[np.int32],
) -> None:
    for instance in order:
        for run in range(offsets[instance], offsets[instance + 1]):
            for i in range(starts[run], starts[run] + lengths[run]):
                flat[i] = instance + 1

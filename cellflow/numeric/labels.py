"""Label maps: checks, numbering, areas, outlines, and the way to and from `Instances`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.numeric._jit import kernel
from cellflow.types import Instances

__all__ = [
    "bounded",
    "check_labels",
    "compact",
    "instances_from_labels",
    "instances_from_masks",
    "labels_from_instances",
    "median_diameter",
    "outlines",
]


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


def bounded(labels: Any, name: str = "labels") -> tuple[NDArray[np.int32], int]:
    """The map as int32 and its largest number, small enough for a table.

    C-contiguous and writable, and the input itself where that is all of this. Huge numbers with gaps
    between them are renumbered.
    """
    array = check_labels(labels, name)
    top = int(array.max()) if array.size else 0
    if top > 4 * array.size + 65536:
        numbers, inverse = np.unique(array, return_inverse=True)
        shift = 0 if numbers[0] == 0 else 1
        dense = (inverse.reshape(array.shape) + shift).astype(np.int32)
        return dense, len(numbers) - 1 + shift
    return np.require(array, dtype=np.int32, requirements=["C", "W"]), top


def compact(labels: Any, name: str = "labels") -> tuple[NDArray[np.int32], int]:
    """Number labels 1..n in the order of their old numbers; the map, as in `bounded`, and n.

    Raises
    ------
    DataError
        If `labels` is not a label map.
    """
    plain, top = bounded(labels, name)
    counts = count_runs(plain, top)
    numbers = np.flatnonzero(counts)
    if len(numbers) == top:
        return plain, top
    table = np.zeros(top + 1, dtype=np.int32)
    table[numbers] = np.arange(1, len(numbers) + 1, dtype=np.int32)
    return table[plain], len(numbers)


def count_runs(plain: NDArray[np.int32], top: int) -> NDArray[np.int64]:
    """Runs of each number, ``(top + 1,)``; 0 for the background and for numbers that are missing."""
    counts = np.zeros(top + 1, dtype=np.int64)
    _count_runs(plain.reshape(-1), counts)
    counts[0] = 0
    return counts


def measure_areas(plain: NDArray[np.int32], top: int) -> NDArray[np.int64]:
    """Pixels of each number, ``(top + 1,)``; 0 for the background."""
    areas = np.zeros(top + 1, dtype=np.int64)
    _measure_areas(plain.reshape(-1), areas)
    areas[0] = 0
    return areas


def median_diameter(labels: Any) -> float:
    """Median diameter of the cells in pixels, 0.0 when there are none.

    The diameter of a cell is that of a disc of the same area, so the value is the median of
    ``2 * sqrt(area / pi)``, as ``cellpose.utils.diameters`` defines it.

    Parameters
    ----------
    labels : (H, W) integer ndarray
    """
    areas = measure_areas(*bounded(labels))
    areas = areas[areas > 0]
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
    """
    plain, top = bounded(labels)
    counts = count_runs(plain, top)
    first = np.cumsum(counts) - counts  # the place of each number's first run
    offsets = np.concatenate([first[counts > 0], [counts.sum()]]).astype(np.int64)
    starts = np.empty(int(offsets[-1]), dtype=np.int64)
    lengths = np.empty_like(starts)
    _fill_runs(plain.reshape(-1), first, starts, lengths)
    return Instances((plain.shape[0], plain.shape[1]), starts, lengths, offsets)


def instances_from_masks(masks: Iterable[NDArray[np.bool_]], shape: tuple[int, int]) -> Instances:
    """Runs of masks of one cell each, which may overlap.

    Parameters
    ----------
    masks : iterable of (H, W) bool ndarray
    shape : tuple of int
        ``(H, W)``, which counts where there is no mask.
    """
    parts = [instances_from_labels(mask) for mask in masks]
    ends = np.cumsum([0, *(len(part.starts) for part in parts)])
    starts = [part.starts for part in parts] or [np.zeros(0, np.int64)]
    lengths = [part.lengths for part in parts] or [np.zeros(0, np.int64)]
    return Instances(shape, np.concatenate(starts), np.concatenate(lengths), ends.astype(np.int64))


def labels_from_instances(instances: Instances) -> NDArray[np.int32]:
    """Paint instances into a label map; a disputed pixel goes to the smaller instance.

    Of two instances of the same area the later one wins. An instance that is left without a pixel
    vanishes and the later ones move up, so labels are 1..n without gaps, ``(H, W)`` int32.
    """
    n_pixels = instances.shape[0] * instances.shape[1]
    flat = np.zeros(n_pixels, dtype=np.int32)
    order = np.lexsort((np.arange(len(instances)), -instances.areas)).astype(np.int64)
    _paint(instances.starts, instances.lengths, instances.offsets, order, flat)
    dense, _ = compact(flat.reshape(instances.shape))
    return dense


@kernel
def _count_runs(flat: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
    last = np.int32(0)
    for value in flat:
        if value != last:
            counts[value] += 1
            last = value


@kernel
def _measure_areas(flat: NDArray[np.int32], areas: NDArray[np.int64]) -> None:
    begin = 0
    for i in range(1, flat.size + 1):
        if i == flat.size or flat[i] != flat[begin]:
            areas[flat[begin]] += i - begin
            begin = i


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
                place = cursor[last]
                cursor[last] = place + 1
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

"""Run-length strings: 1-indexed ``start length`` pairs, row-major ("C") or column-major ("F").

"C" is the order of the Sartorius competition, "F" that of the Data Science Bowl 2018. An empty string
is a cell without a pixel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError, RleError
from cellflow.numeric._runs import pixels_of_runs, runs_of_pixels
from cellflow.numeric.labels import check_labels, compact, instances_from_labels
from cellflow.types import Instances

__all__ = [
    "instances_from_rles",
    "rle_decode",
    "rle_encode",
    "rles_from_instances",
    "rles_from_labels",
]

Order = Literal["C", "F"]
Ints = NDArray[np.int64]

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_MOST_PIXELS = 2**62
"""With which sums of places and lengths stay within int64."""
_PLAIN = re.compile(r"[0-9 ]*")


def rle_encode(mask: Any, order: Order = "C") -> str:
    """Encode one mask.

    Parameters
    ----------
    mask : (H, W) ndarray
        Bool, or integers of which everything but 0 counts.
    order : {"C", "F"}
        Row-major or column-major.

    Returns
    -------
    str
        Sorted runs that do not touch; "" for an empty mask.

    Examples
    --------
    >>> import numpy as np
    >>> from cellflow import rle_encode
    >>> mask = np.array([[0, 1, 1], [0, 0, 1]])
    >>> rle_encode(mask), rle_encode(mask, order="F")
    ('2 2 6 1', '3 1 5 2')
    """
    inside = check_labels(mask, "mask") != 0
    starts, lengths = runs_of_pixels(np.flatnonzero(inside.ravel(order=_check_order(order))))
    return " ".join(map(str, np.stack([starts + 1, lengths], axis=1).reshape(-1).tolist()))


def rle_decode(rle: str, shape: tuple[int, int], order: Order = "C") -> NDArray[np.bool_]:
    """Decode one string.

    Parameters
    ----------
    rle : str
        1-indexed ``start length`` pairs in any order, separated by white space.
    shape : tuple of int
        ``(H, W)`` of the image.
    order : {"C", "F"}
        Row-major or column-major.

    Returns
    -------
    (H, W) bool ndarray

    Raises
    ------
    RleError
        If the string is malformed, leaves the image, or covers a pixel twice.

    Examples
    --------
    >>> from cellflow import rle_decode
    >>> rle_decode("2 2 4 1", (2, 3)).astype(int)
    array([[0, 1, 1],
           [1, 0, 0]])
    """
    shape = _check_shape(shape)
    starts, lengths = _parse(rle, shape, "the string")
    flat = np.zeros(shape[0] * shape[1], dtype=np.bool_)
    flat[pixels_of_runs(starts, lengths)] = True
    return flat.reshape(shape, order=_check_order(order))


def instances_from_rles(
    rles: Sequence[str], shape: tuple[int, int], order: Order = "C"
) -> Instances:
    """Decode the strings of one image; cells may overlap each other.

    Parameters
    ----------
    rles : sequence of str
        One string a cell; "" gives a cell without a pixel.
    shape : tuple of int
        ``(H, W)`` of the image.
    order : {"C", "F"}
        Row-major or column-major.

    Raises
    ------
    RleError
        If a string is malformed, leaves the image, or covers a pixel twice; the message says which.
    """
    shape = _check_shape(shape)
    _check_order(order)
    if isinstance(rles, str):
        raise RleError("rles: expected a list of strings, one a cell, found a single string")
    parts = [_parse(rle, shape, f"string {i} of {len(rles)}") for i, rle in enumerate(rles)]
    if order == "F":
        parts = [_row_major(starts, lengths, shape) for starts, lengths in parts]
    empty = np.zeros(0, dtype=np.int64)
    return Instances(
        shape,
        np.concatenate([empty, *(starts for starts, _ in parts)]),
        np.concatenate([empty, *(lengths for _, lengths in parts)]),
        np.cumsum([0, *(len(starts) for starts, _ in parts)], dtype=np.int64),
    )


def rles_from_labels(labels: Any, order: Order = "C") -> list[str]:
    """Encode every label in one pass over the image.

    Parameters
    ----------
    labels : (H, W) integer ndarray
        Labels 1..n; missing numbers give no string.
    order : {"C", "F"}
        Row-major or column-major.

    Returns
    -------
    list of str
        One string a label, in the order of their numbers.
    """
    dense, _ = compact(labels)
    if _check_order(order) == "F":
        dense = np.ascontiguousarray(dense.T)
    return rles_from_instances(instances_from_labels(dense))


def rles_from_instances(instances: Instances) -> list[str]:
    """Encode every instance, row-major: one string each, in their order."""
    pairs = np.empty((len(instances.starts), 2), dtype=np.int64)
    pairs[:, 0] = instances.starts + 1
    pairs[:, 1] = instances.lengths
    words = list(map(str, pairs.reshape(-1).tolist()))
    ends = (2 * instances.offsets).tolist()
    return [" ".join(words[ends[i] : ends[i + 1]]) for i in range(len(instances))]


def _check_order(order: str) -> Order:
    if order == "C":
        return "C"
    if order == "F":
        return "F"
    raise RleError(f'order: expected "C" (row-major) or "F" (column-major), found {order!r}')


def _check_shape(shape: Sequence[int]) -> tuple[int, int]:
    if len(shape) != 2 or min(shape) < 0:
        raise DataError(f"shape: expected (H, W), found {tuple(shape)}")
    height, width = int(shape[0]), int(shape[1])
    if height * width > _MOST_PIXELS:
        raise DataError(f"shape: no image has {height} x {width} pixels")
    return height, width


def _parse(rle: Any, shape: tuple[int, int], where: str) -> tuple[Ints, Ints]:
    """Sorted 0-indexed runs of one string, in the string's own pixel order."""
    if not isinstance(rle, str):
        raise RleError(f"{where}: expected a run-length string, found {rle!r}")
    words = rle.split()
    if not _PLAIN.fullmatch(rle):
        for place, word in enumerate(words):
            if not _INTEGER.fullmatch(word):
                raise RleError(
                    f"{where}: expected whole numbers, found {word!r} as number {place + 1}"
                )
    if len(words) % 2:
        raise RleError(
            f"{where}: expected pairs of start and length, found {len(words)} numbers,"
            f" the last one alone ({words[-1]})"
        )
    try:
        values = np.array(words, dtype=np.int64).reshape(-1, 2)
    except (OverflowError, ValueError):
        raise RleError(f"{where}: a number is too long for any image") from None
    _check_runs(values[:, 0], values[:, 1], shape, where)
    values = values[np.argsort(values[:, 0], kind="stable")]
    return values[:, 0] - 1, values[:, 1].copy()


def _check_runs(starts: Ints, lengths: Ints, shape: tuple[int, int], where: str) -> None:
    n_pixels = shape[0] * shape[1]
    image = f"the image of {shape[0]} x {shape[1]} = {n_pixels} pixels"

    def fail(index: int, text: str) -> RleError:
        return RleError(f"{where}: run {index + 1} ({starts[index]} {lengths[index]}) {text}")

    for index in np.flatnonzero(starts < 1)[:1]:
        raise fail(index, "starts before pixel 1; starts are 1-indexed")
    for index in np.flatnonzero(lengths < 1)[:1]:
        raise fail(index, "has a length below 1")
    for index in np.flatnonzero(lengths > n_pixels - starts + 1)[:1]:
        last = int(starts[index]) + int(lengths[index]) - 1
        raise fail(index, f"ends at pixel {last}, past the end of {image}")
    order = np.argsort(starts, kind="stable")
    ends = starts[order] + lengths[order]
    for place in np.flatnonzero(ends[:-1] > starts[order][1:])[:1]:
        other = int(order[place])
        raise fail(
            int(order[place + 1]),
            f"overlaps run {other + 1} ({starts[other]} {lengths[other]}) of the same string",
        )


def _row_major(starts: Ints, lengths: Ints, shape: tuple[int, int]) -> tuple[Ints, Ints]:
    """Column-major runs as row-major runs."""
    pixels = pixels_of_runs(starts, lengths)
    if not len(pixels):
        return starts, lengths
    x, y = np.divmod(pixels, shape[0])
    return runs_of_pixels(np.sort(y * shape[1] + x))

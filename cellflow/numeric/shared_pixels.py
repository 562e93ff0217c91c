"""Images that overlap: crops and tiles of one larger image, in which the same pixels come again at an offset.

Of every image those windows are marked whose content hashes to a certain remainder (content-defined, as in
rsync and backup programs), so that two images that show the same pixels mark the same of their windows,
wherever they lie. A pair of images overlaps where most of the marks of the overlap that an offset implies are
shared; what is burnt into every image at one place, such as a scale bar, is too little of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Marks", "Overlap", "overlaps", "window_marks"]

Ints = NDArray[np.int64]

WINDOW = 8
"""Rows and columns of a window."""
_ONE_IN = 128
"""One in so many windows is marked; in images of more than `_LARGE` pixels one in twice as many for each doubling."""
_LARGE = 1 << 20
_BAND = 1 << 18
"""Pixels, about, whose windows are looked at together: their numbers take 50 times the memory of 8-bit pixels."""
_LEAST = 4
"""Marks that an overlap shares at least."""
_SHARE = 0.5
"""Part of the marks of an overlap that are shared at least."""
_COMMON = 8
"""A window that so many images have is a background or a frame."""
_ROW, _COLUMN = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_MIX = np.uint64(0xFF51AFD7ED558CCD)


class Marks(NamedTuple):
    """Marked windows of an image: hashes ``(n,)``, their upper left corners ``(n, 2)``, and the image's shape."""

    hashes: NDArray[np.uint64]
    yx: Ints
    shape: tuple[int, int]


class Overlap(NamedTuple):
    """Two images that show the same pixels: their places, and rows and columns of what both show."""

    first: int
    second: int
    height: int
    width: int


def window_marks(pixels: NDArray[Any]) -> Marks:
    """Mark the windows of an image; those that come more than once in it are left out, such as flat ones.

    Parameters
    ----------
    pixels : (H, W) or (H, W, C) ndarray
        Any numeric type.
    """
    shape = (pixels.shape[0], pixels.shape[1])
    if min(shape) < WINDOW:
        return Marks(np.zeros(0, np.uint64), np.zeros((0, 2), np.int64), shape)
    doublings = max(0, int(np.ceil(np.log2(shape[0] * shape[1] / _LARGE))))
    one_in = np.uint64(_ONE_IN << doublings)
    rows, marked, corners = max(1, _BAND // shape[1]), [], []
    for top in range(0, shape[0] - WINDOW + 1, rows):
        hashes = _window_hashes(pixels[top : top + rows + WINDOW - 1])
        y, x = np.nonzero(hashes % one_in == 0)
        marked.append(hashes[y, x])
        corners.append(np.stack([y + top, x], axis=1))
    found, first, counts = np.unique(np.concatenate(marked), return_index=True, return_counts=True)
    single = counts == 1
    return Marks(found[single], np.concatenate(corners)[first[single]].astype(np.int64), shape)


def _window_hashes(pixels: NDArray[Any]) -> NDArray[np.uint64]:
    """A number for every window, by its upper left corner."""
    hashes = _summed(_summed(_whole_numbers(pixels), _ROW).T, _COLUMN).T
    hashes = (hashes ^ (hashes >> np.uint64(29))) * _MIX
    return np.asarray(hashes ^ (hashes >> np.uint64(32)))


def overlaps(marks: Sequence[Marks]) -> list[Overlap]:
    """Pairs of images that show the same pixels, the second perhaps shifted.

    Parameters
    ----------
    marks : sequence of Marks
        What `window_marks` gave of each image.

    Returns
    -------
    list of Overlap
        In the order of the images, one for a pair.
    """
    pairs = _same_windows(marks)
    if not len(pairs):
        return []
    offsets, counts = np.unique(pairs, axis=0, return_counts=True)
    found: dict[tuple[int, int], tuple[int, Overlap]] = {}
    for (first, second, dy, dx), count in zip(offsets.tolist(), counts.tolist(), strict=True):
        if count < max(_LEAST, found.get((first, second), (0, None))[0]):
            continue
        top, left = max(0, dy), max(0, dx)
        bottom = min(marks[first].shape[0], marks[second].shape[0] + dy)
        right = min(marks[first].shape[1], marks[second].shape[1] + dx)
        own = marks[first].yx
        last = bottom - WINDOW, right - WINDOW
        inside = ((own >= (top, left)) & (own <= last)).all(axis=1)
        if count >= _SHARE * inside.sum():
            overlap = Overlap(first, second, bottom - top, right - left)
            found[first, second] = count, overlap
    return [overlap for _, overlap in found.values()]


def _same_windows(marks: Sequence[Marks]) -> Ints:
    """Pairs of equal windows of two images: both images, and the corner in the first minus that in the second."""
    if not marks:
        return np.zeros((0, 4), np.int64)
    hashes = np.concatenate([item.hashes for item in marks])
    image = np.repeat(np.arange(len(marks)), [len(item.hashes) for item in marks])
    yx = np.concatenate([item.yx for item in marks])
    order = np.argsort(hashes, kind="stable")  # within equal hashes in the order of the images
    hashes, image, yx = hashes[order], image[order], yx[order]
    starts = np.unique(hashes, return_index=True)[1]
    size = np.diff(starts, append=len(hashes))
    place = np.arange(len(hashes)) - np.repeat(starts, size)
    size = np.repeat(size, size)
    pairs = []
    for step in range(1, _COMMON):
        one = np.flatnonzero((place + step < size) & (size <= _COMMON))
        other = one + step
        pairs.append(np.column_stack([image[one], image[other], yx[one] - yx[other]]))
    return np.concatenate(pairs)


def _summed(values: NDArray[np.uint64], factor: np.uint64) -> NDArray[np.uint64]:
    """Polynomial hash of `WINDOW` values in a row, for every place along the last axis; overflow is wanted."""
    length, power = 1, factor
    while length < WINDOW:
        values = values[:, :-length] + power * values[:, length:]
        with np.errstate(over="ignore"):
            length, power = 2 * length, power * power
    return values


def _whole_numbers(pixels: NDArray[Any]) -> NDArray[np.uint64]:
    """Pixels as numbers that are equal where all channels are."""
    planes = pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]
    if planes.dtype.kind == "f":
        planes = planes.astype(np.float64).view(np.uint64).reshape(planes.shape)
    numbers = np.zeros(planes.shape[:2], np.uint64)
    for plane in range(planes.shape[2]):
        numbers = numbers * _MIX + planes[:, :, plane].astype(np.uint64)
    return numbers

"""Cells in pictures in which each has a colour of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError

__all__ = ["labels_from_colours"]

_FEW = 10
"""Pixels below which a colour is rare."""
_MOST = 0.5
"""A colour of this share of the border is the background, even where black is there too."""
_BLENDS = 0.5
"""A picture has smoothed edges from this share of rare colours on, if as many of their pixels touch others."""


def labels_from_colours(pixels: NDArray[Any]) -> NDArray[np.int64]:
    """Number the colours of a picture; the background is 0.

    The background is the colour of at least half of the border, else black, wherever it is.

    Parameters
    ----------
    pixels : (H, W, C) integer ndarray
        Each cell in a colour of its own.

    Returns
    -------
    (H, W) int64 ndarray
        1..n in the order of the colours; a colour in several places stays one cell.

    Raises
    ------
    DataError
        If colours blend into each other, so that nobody can tell to which cell a pixel belongs; or if no
        colour is that of the background.
    """
    codes = _codes(pixels)
    colours, numbers = np.unique(codes, return_inverse=True)
    numbers = numbers.reshape(codes.shape)
    counts = np.bincount(numbers.ravel(), minlength=len(colours))
    background, share = _background(numbers, black=not colours[0])
    _refuse_blends(numbers, counts, background)
    if colours[background] and share < _MOST:
        raise DataError(
            "expected the colour of the background, found no black, and no colour on half of the border (the "
            f"most frequent has {share:.0%}). Make the background black.",
            expected="black",
        )
    table = np.zeros(len(colours), dtype=np.int64)
    table[np.arange(len(colours)) != background] = np.arange(1, len(colours))
    return np.asarray(table[numbers])


def _codes(pixels: NDArray[Any]) -> NDArray[np.uint64]:
    """One number a pixel, 0 for black."""
    channels, bits = pixels.shape[2], 8 * pixels.dtype.itemsize
    if pixels.dtype.kind not in "iu" or channels * bits > 64:
        raise DataError(
            f"expected colours of 8 or 16 bits, found {channels} channels of {pixels.dtype}.",
            found=pixels.dtype,
        )
    codes = np.zeros(pixels.shape[:2], dtype=np.uint64)
    for channel in np.moveaxis(pixels, -1, 0):
        codes = (codes << np.uint64(bits)) | channel.astype(np.uint64)
    return codes


def _background(numbers: NDArray[Any], *, black: bool) -> tuple[int, float]:
    """The number of the background, and its share of the border; black is 0 where it is there."""
    border = np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]])
    counts = np.bincount(border)
    top = int(counts.argmax())
    number = 0 if black and counts[top] < _MOST * len(border) else top
    return number, counts[number] / len(border)


def _refuse_blends(numbers: NDArray[Any], counts: NDArray[Any], background: int) -> None:
    """Refuse photographs, and pictures whose edges were smoothed: most colours are rare, and touch others."""
    rare = counts < _FEW
    rare[background] = False
    if rare.sum() < max(2, _BLENDS * (len(counts) - 1)):
        return
    touches = np.zeros(numbers.shape, dtype=np.bool_)
    rows, columns = (np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])
    for one, other in (rows, columns):
        differ = numbers[one] != numbers[other]
        differ &= (numbers[one] != background) & (numbers[other] != background)
        touches[one] |= differ
        touches[other] |= differ
    inside = rare[numbers]
    if touches[inside].mean() >= _BLENDS:
        raise DataError(
            f"expected a colour for each cell, found {len(counts):,} colours, of which {int(rare.sum()):,} "
            f"have fewer than {_FEW} pixels and lie against others: edges that were smoothed, or a "
            "photograph. Export the picture without smoothing (anti-aliasing) and without JPEG, or give the "
            "label map itself.",
            found=len(counts),
        )

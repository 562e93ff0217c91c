"""Pictures that were made from one another: turned, mirrored, rescaled, brighter, flatter, compressed.

The fingerprint of an image is a small picture of it without its coarse shading, once as it is and once with
its pixels replaced by their ranks, which no monotone change of brightness alters much. Two images are
compared in the eight orientations of a square: at a quarter of the resolution to find candidates, then at
full resolution, so that images that are merely alike (fields of one well under one lamp) fall away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["SIDE", "NearCopy", "fingerprint", "first_of_copies", "near_copies"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

SIDE = 64
"""Rows and columns of a fingerprint."""
_COARSE = 16
"""Rows and columns where candidates are looked for."""
_SHADING = 8
"""Standard deviation, in pixels of a fingerprint, of what counts as shading: lamps and wells, not cells."""
_CANDIDATE, _COPY = 0.5, 0.7
"""Correlations from which on a pair is looked at again, and is a copy: see `docs/files.md` for both sides."""
_SMALLEST = 32
"""Rows and columns from which on an image shows enough to be known again."""
_FAINT = 0.005
"""Part of the contrast from which on there is something to see beside shading."""
_BLOCK = 256
_ROUNDING, _TINY = 1e-5, 1e-12
_TURNS = ("", "turned by 90 degrees", "turned by 180 degrees", "turned by 270 degrees")
_ORIENTATIONS = (
    *_TURNS,
    *(f"mirrored{', ' if turn else ''}{turn}" for turn in _TURNS),
)
"""What the second picture of a pair is of the first, in the order of `_oriented`."""


class NearCopy(NamedTuple):
    """Two images of which one was made from the other.

    Attributes
    ----------
    first, second : int
        Their places, the first before the second.
    likeness : float
        Correlation of their fingerprints, at most 1.
    how : str
        Orientation of one against the other; empty where it is the same.
    """

    first: int
    second: int
    likeness: float
    how: str


def fingerprint(pixels: NDArray[Any]) -> Floats:
    """Small picture of an image, as it is and by ranks.

    Parameters
    ----------
    pixels : (H, W) or (H, W, C) ndarray
        Any numeric type; channels are averaged.

    Returns
    -------
    (2, SIDE, SIDE) float32 ndarray
        Each of mean 0 and length 1; all zero where there is nothing to see: one value, shading alone, fewer
        than 32 rows or columns.
    """
    grey = np.asarray(pixels, dtype=np.float32)
    if grey.ndim == 3:
        grey = grey.mean(axis=2)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    if min(grey.shape) < _SMALLEST or np.ptp(small) <= _ROUNDING * np.abs(small).max():
        return np.zeros((2, SIDE, SIDE), np.float32)
    ranks = np.unique(small, return_inverse=True)[1].reshape(small.shape)
    return np.stack([_without_shading(small), _without_shading(ranks)])


def near_copies(fingerprints: Sequence[Floats]) -> list[NearCopy]:
    """Pairs of images of which one was made from the other.

    Parameters
    ----------
    fingerprints : sequence of (2, SIDE, SIDE) ndarray
        What `fingerprint` gave of each image.

    Returns
    -------
    list of NearCopy
        In the order of the images; identical images are pairs too.

    Notes
    -----
    The time grows with the square of the number of images: a third of a second of a core for 1,000 that
    differ. Pairs that are alike, as in a time series, are looked at again: a quarter of a second for 200.
    """
    found = []
    for first, seconds, prints in _candidates(fingerprints):
        likeness, how = _likeness(prints[first], prints[seconds])
        found += [
            NearCopy(first, int(seconds[at]), float(likeness[at]), _ORIENTATIONS[how[at]])
            for at in np.flatnonzero(likeness >= _COPY)
        ]
    return found


def first_of_copies(fingerprints: Sequence[Floats]) -> Ints:
    """First image of each image's set, where near copies, directly or through others, are of one set.

    Parameters
    ----------
    fingerprints : sequence of (2, SIDE, SIDE) ndarray
        What `fingerprint` gave of each image.

    Returns
    -------
    (N,) int64 ndarray
        Its own place for an image without a copy.

    Notes
    -----
    Sets of `near_copies`, without looking again at pairs that are of one set already.
    """
    firsts = np.arange(len(fingerprints), dtype=np.int64)
    for one, others, prints in _candidates(fingerprints):
        apart = others[firsts[others] != firsts[one]]
        copies = apart[_likeness(prints[one], prints[apart])[0] >= _COPY]
        joined = np.unique(firsts[[one, *copies]])
        firsts[np.isin(firsts, joined)] = joined[0]
    return firsts


def _candidates(fingerprints: Sequence[Floats]) -> Iterator[tuple[int, Ints, Floats]]:
    """Each image, some later ones like it at the coarse resolution (in some orientation, by one picture), and all."""
    if not fingerprints:
        return
    prints = np.stack(fingerprints)
    coarse = _coarse(prints)
    count = len(coarse)
    for start in range(0, count, _BLOCK):
        block = coarse[start : start + _BLOCK]
        alike = np.zeros((len(block), count - start), np.bool_)
        for picture in range(2):
            others = coarse[start:, picture].reshape(count - start, -1).T
            for turned in _oriented(block[:, picture]):
                alike |= turned.reshape(len(block), -1) @ others >= _CANDIDATE
        for row, like in enumerate(alike):
            later = start + row + 1 + np.flatnonzero(like[row + 1 :])
            for at in range(0, len(later), _BLOCK):
                yield start + row, later[at : at + _BLOCK], prints


def _likeness(one: Floats, others: Floats) -> tuple[Floats, Ints]:
    """Largest correlation of a fingerprint with each of others over orientations and the two pictures; which turn."""
    turned = np.stack(_oriented(one)).reshape(len(_ORIENTATIONS), 2, -1)
    flat = others.reshape(len(others), 2, SIDE * SIDE)
    values = np.maximum(*(turned[:, at] @ flat[:, at].T for at in range(2)))
    return np.minimum(values.max(axis=0), np.float32(1)), values.argmax(axis=0)


def _oriented(pictures: Floats) -> list[Floats]:
    """Pictures, along the first axis, in the eight orientations of a square."""
    return [
        np.rot90(side, turns, axes=(1, 2))
        for side in (pictures, pictures[:, :, ::-1])
        for turns in range(4)
    ]


def _coarse(prints: Floats) -> Floats:
    """Fingerprints at the coarse resolution, each again of mean 0 and length 1, ``(N, 2, c, c)``."""
    step = SIDE // _COARSE
    blocks = prints.reshape(len(prints), 2, _COARSE, step, _COARSE, step).mean(axis=(3, 5))
    return _normal(blocks)


def _without_shading(picture: NDArray[Any]) -> Floats:
    """A picture without its coarse parts: a smooth surface first, whose slope at the border no filter sees."""
    surfaces = _surfaces()
    plain = picture.astype(np.float32)
    plain -= (surfaces @ (surfaces.T @ plain.reshape(-1))).reshape(plain.shape)
    plain -= ndimage.gaussian_filter(plain, _SHADING, mode="reflect")
    return _normal(plain) if plain.std() > _FAINT * picture.std() else np.zeros_like(plain)


@cache
def _surfaces() -> Floats:
    """Polynomials of degree 3 at most in Y and X as orthonormal columns, ``(SIDE * SIDE, 10)``."""
    y, x = np.indices((SIDE, SIDE)).reshape(2, -1) / (SIDE - 1) * 2 - 1
    powers = [y**i * x**j for i in range(4) for j in range(4 - i)]
    return np.linalg.qr(np.stack(powers, axis=1))[0].astype(np.float32)


def _normal(pictures: Floats) -> Floats:
    """Pictures, along the last two axes, of mean 0 and length 1; all zero stays so."""
    centred = pictures - pictures.mean(axis=(-2, -1), keepdims=True)
    length = np.sqrt((centred**2).sum(axis=(-2, -1), keepdims=True))
    return np.asarray(centred / np.maximum(length, _TINY), dtype=np.float32)

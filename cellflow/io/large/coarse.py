"""Few pixels of a large image, from which its range of values is told."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.io.large.large_image import LargeImage, pieces
from cellflow.types import Box

__all__ = ["MOST_PIXELS", "CoarsePixels", "coarse_pixels"]

MOST_PIXELS = 2**26
"""Height times width of what stands for an image; one that has no more stands for itself."""
_AT_ONCE = 2**24
"""Pixels, height times width, that are read at once where rows and columns are left out."""
_SIDE = 1024


class CoarsePixels(NamedTuple):
    """What stands for an image.

    Attributes
    ----------
    pixels : (H', W') or (H', W', C) ndarray
        At most as many as were asked for, in the native dtype.
    factor : (float, float)
        Pixels of the level in use along Y and X that one of them stands for.
    level : int
        That of which they are.
    step : int
        Every so many-th row and column of it.
    """

    pixels: NDArray[Any]
    factor: tuple[float, float]
    level: int
    step: int


def coarse_pixels(image: LargeImage, most: int = MOST_PIXELS) -> CoarsePixels:
    """Read pixels from all over an image, few enough for memory.

    That is the finest level, from the level in use on, that has at most `most` pixels. It is read as a
    whole; where that is the level in use, the pixels are all that there are. Where even the
    coarsest level has more, every k-th row and column of the *coarsest* level is taken, from row and column 0
    on, with the smallest k that leaves at most `most`; for this all of that level is unpacked once, in
    boxes of about 16 million pixels.

    Parameters
    ----------
    image : LargeImage
    most : int
        Height times width.

    Returns
    -------
    CoarsePixels

    Raises
    ------
    DataError
        If the file is damaged.
    """
    levels = range(image.level, len(image.levels))
    fitting = [level for level in levels if math.prod(image.levels[level]) <= most]
    level = fitting[0] if fitting else levels[-1]
    height, width = image.levels[level]
    step = max(1, math.isqrt(height * width // most))
    while -(-height // step) * -(-width // step) > most:
        step += 1
    kept = Box(0, -(-height // step), 0, -(-width // step))
    more = () if image.channels == 1 else (image.channels,)
    pixels = np.empty((*kept.shape, *more), image.dtype)
    for box in pieces(Box(0, height, 0, width), _side(image.chunk(level), (height, width))):
        top, left = -(-box.top // step), -(-box.left // step)
        found = image.read(box, level)[top * step - box.top :: step, left * step - box.left :: step]
        pixels[top : top + found.shape[0], left : left + found.shape[1]] = found
    own, of_level = image.factor(), image.factor(level)
    factor = of_level[0] / own[0] * step, of_level[1] / own[1] * step
    return CoarsePixels(pixels, factor, level, step)


def _side(chunk: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """Height and width of boxes of whole chunks, so that each is unpacked once."""
    width = min(-(-_SIDE // chunk[1]) * chunk[1], shape[1])
    rows = max(chunk[0], _AT_ONCE // width // chunk[0] * chunk[0])
    return min(rows, shape[0]), width

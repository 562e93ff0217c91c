"""Few pixels of a large image, from which its range of values is told."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io.large.large_image import LargeImage, log, pieces
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
    known : (H', W') bool ndarray or None
        Where pixels could be read; None where all could.
    """

    pixels: NDArray[Any]
    factor: tuple[float, float]
    level: int
    step: int
    known: NDArray[np.bool_] | None = None


def coarse_pixels(
    image: LargeImage, most: int = MOST_PIXELS, *, pass_over: bool = False
) -> CoarsePixels:
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
    pass_over : bool
        Leave out chunks that are damaged or hold values that are not finite, with a warning for each, as long
        as there is another one.

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
    known = np.ones(kept.shape, np.bool_)
    boxes = list(pieces(Box(0, height, 0, width), _side(image.chunk(level), (height, width))))
    while boxes:
        box = boxes.pop()
        top, left = -(-box.top // step), -(-box.left // step)
        try:
            found = image.read(box, level)
        except DataError as error:
            if not pass_over:
                raise
            parts = list(pieces(box, image.chunk(level)))
            if len(parts) > 1:
                boxes += parts  # one of them it is
                continue
            known[top : -(-box.bottom // step), left : -(-box.right // step)] = False
            if not known.any():
                raise
            log.warning("%s The scale of values is found without it.", error)
            continue
        found = found[top * step - box.top :: step, left * step - box.left :: step]
        pixels[top : top + found.shape[0], left : left + found.shape[1]] = found
    own, of_level = image.factor(), image.factor(level)
    factor = of_level[0] / own[0] * step, of_level[1] / own[1] * step
    return CoarsePixels(pixels, factor, level, step, None if known.all() else known)


def _side(chunk: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """Height and width of boxes of whole chunks, so that each is unpacked once."""
    width = min(-(-_SIDE // chunk[1]) * chunk[1], shape[1])
    rows = max(chunk[0], _AT_ONCE // width // chunk[0] * chunk[0])
    return min(rows, shape[0]), width

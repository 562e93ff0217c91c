"""Bilinear resizing, of whole images and of boxes of them, to the same bits.

The formulas are those of ``cv2.resize(..., INTER_LINEAR)`` on x86 processors with AVX2. OpenCV has two of
them there: its own, and for 1, 3 and 4 channels that of Intel's library (IPP), where the image has more
than a row and a column. They differ by up to 5e-4 for normal noise 3,000 pixels wide, since OpenCV's own
counts places in float32. Here they give the same bits on every processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric._jit import run_blocks
from cellflow.numeric._resize import halve, mix_fused, mix_products
from cellflow.types import Box

__all__ = ["resize_linear", "resize_part", "source_box"]

Floats = NDArray[np.float32]
Shape = tuple[int, int]

_IPP_CHANNELS = (1, 3, 4)
_ROWS = 64
"""Rows of a block of a thread."""


def resize_linear(image: Any, shape: Shape) -> Floats:
    """Resize with bilinear interpolation, pixel centres at half-integers (OpenCV's INTER_LINEAR).

    Parameters
    ----------
    image : (C, H, W) ndarray
        Taken as float32.
    shape : tuple of int
        ``(H', W')``, at least 1 each.

    Returns
    -------
    (C, H', W') float32 ndarray
        A copy, as ``cellpose.transforms.resize_image`` makes it.
    """
    array = np.asarray(image, dtype=np.float32)
    whole = (array.shape[1], array.shape[2])
    return resize_part(array, _all_of(whole), whole, shape, _all_of(shape))


def source_box(new_box: Box, shape: Shape, new_shape: Shape) -> Box:
    """The pixels of an image that `resize_part` needs for a box of the resized image.

    Parameters
    ----------
    new_box : Box
        At least one pixel of the resized image.
    shape, new_shape : tuple of int
        ``(H, W)`` of the image, and what it is resized to.
    """
    if shape == new_shape:
        return new_box
    sides: list[int] = []
    pairs = ((new_box.top, new_box.bottom), (new_box.left, new_box.right))
    for (first, stop), length, new_length in zip(pairs, shape, new_shape, strict=True):
        ends = np.array([first, stop - 1])
        # The two formulas round differently, and may find neighbouring pixels.
        places = [_place(ends, length, new_length, exact=exact)[0] for exact in (True, False)]
        sides += [int(np.min(places)), int(np.max(places)) + 1]
    return Box(*sides)


def resize_part(part: Any, part_box: Box, shape: Shape, new_shape: Shape, new_box: Box) -> Floats:
    """A box of a resized image, from a part of the image: ``resize_linear(image, new_shape)`` cut to the box.

    Parameters
    ----------
    part : (C, h, w) ndarray
        Pixels of `part_box`, which holds the `source_box` of `new_box`; taken as float32.
    part_box : Box
        Where they lie in the image.
    shape, new_shape : tuple of int
        ``(H, W)`` of the image, and what it is resized to, at least 1 each.
    new_box : Box
        What is wanted of the resized image: at least one pixel.

    Returns
    -------
    (C, h', w') float32 ndarray
        To the bit the same whatever the part. A copy.
    """
    if shape == new_shape:
        return np.array(_cut(part, part_box, new_box), np.float32)
    part = np.require(part, np.float32, ("C", "W"))  # one signature for the kernels
    channels = len(part)
    out = np.empty((channels, *new_box.shape), np.float32)
    fused = channels in _IPP_CHANNELS and min(shape) > 1
    if not fused and shape == (2 * new_shape[0], 2 * new_shape[1]):
        source = np.ascontiguousarray(_cut(part, part_box, Box(*(2 * side for side in new_box))))
        run_blocks(lambda _, start, stop: halve(source, out, start, stop), out.shape[1], _ROWS)
        return out
    ys = np.arange(new_box.top, new_box.bottom)
    xs = np.arange(new_box.left, new_box.right)
    rows, down = _place(ys, shape[0], new_shape[0], exact=fused)
    columns, along = _place(xs, shape[1], new_shape[1], exact=fused)
    if not fused:
        # OpenCV weighs beyond the border in rows, but not in columns.
        along[columns[0] == columns[1]] = 0
    near_rows, near_columns = _within(rows, part_box.top), _within(columns, part_box.left)
    mix = mix_fused if fused else mix_products

    def task(_: int, start: int, stop: int) -> None:
        lines = np.empty((2, out.shape[2]), np.float32)
        mix(part, near_rows, down, near_columns, along, lines, out, start, stop)

    run_blocks(task, out.shape[1], _ROWS)
    return out


def _place(
    places: NDArray[np.int64], length: int, new_length: int, *, exact: bool
) -> tuple[NDArray[np.int64], Floats]:
    """The two pixels ``(2, n)`` that pixels of the resized axis lie between, and how far they are from the first.

    With `exact` places are float64 until the last, else float32 as OpenCV has them.
    """
    scale = length / new_length if exact else 1.0 / (new_length / length)
    at = (places + 0.5) * scale - 0.5
    if not exact:
        at = at.astype(np.float32)
    first = np.floor(at)
    way = np.asarray(at - first, dtype=np.float32)
    pair = np.stack([first, first + 1]).astype(np.int64)
    return np.clip(pair, 0, length - 1), way


def _within(places: NDArray[np.int64], start: int) -> NDArray[np.uintp]:
    """Places counted from `start`; unsigned, so that kernels look for no negative ones."""
    return np.ascontiguousarray(places - start).astype(np.uintp)


def _cut(part: Floats, part_box: Box, box: Box) -> Floats:
    return part[
        :,
        box.top - part_box.top : box.bottom - part_box.top,
        box.left - part_box.left : box.right - part_box.left,
    ]


def _all_of(shape: Shape) -> Box:
    return Box(0, shape[0], 0, shape[1])

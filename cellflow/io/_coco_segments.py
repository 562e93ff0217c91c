"""Segmentations of COCO annotations: looked at before pycocotools, which trusts them, makes masks of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.numeric.coco_rle import check_coco_rle

_SLACK = 1
"""Pixels by which a point may lie outside without a word: outlines are drawn along the border."""
_STEPS = 5
"""Points that pycocotools sets along a polygon, a pixel of its length."""
_MOST_STEPS = 1 << 26
"""Of which it takes some bytes of memory each, whatever the size of the image."""
_LEAST = 6
"""Numbers of a polygon: three points."""


class Segment(NamedTuple):
    """The pixels of an annotation."""

    counts: bytes
    """Run-length string of COCO for the whole image; empty where it covers no pixel."""
    outside: bool = False
    """Whether points lay outside of the image, so that something was cut off."""


def read_segment(segmentation: Any, shape: tuple[int, int]) -> Segment:
    """The pixels of a segmentation, as pycocotools has them.

    That is polygons, ``[[x, y, x, y, ...], ...]``, which are joined; or ``size`` and ``counts``, which are a string or
    whole numbers. The message of an error is about the segmentation alone.
    """
    mask = _pycocotools()
    height, width = shape
    if isinstance(segmentation, list):
        polygons = [part for part in segmentation if not _is_nothing(part)]
        outside = [_lies_outside(part, shape) for part in polygons]
        if not polygons:
            return Segment(b"")
        parts = mask.frPyObjects(polygons, height, width)
        encoded = parts[0] if len(parts) == 1 else mask.merge(parts)
    elif isinstance(segmentation, dict):
        outside = []
        encoded = _run_lengths(segmentation, shape)
    else:
        text = f"expected polygons or run lengths, found {type(segmentation).__name__}"
        raise DataError(text, found=segmentation)
    return Segment(encoded["counts"] if mask.area(encoded) else b"", any(outside))


def compressed(counts: Sequence[int] | NDArray[np.int64], shape: tuple[int, int]) -> bytes:
    """Run-length string of counts, column by column and background first, that cover the image."""
    plain = {"size": list(shape), "counts": counts}
    return bytes(_pycocotools().frPyObjects(plain, *shape)["counts"])


@cache
def _pycocotools() -> Any:
    return import_module("pycocotools.mask")


def _is_nothing(part: Any) -> bool:
    """Whether a polygon has fewer than three points, and so no pixel; pycocotools takes two for a box."""
    return isinstance(part, list) and len(part) < _LEAST and len(part) % 2 == 0


def _lies_outside(part: Any, shape: tuple[int, int]) -> bool:
    """Whether points of a polygon lie outside of the image, after a look at all that can be wrong with it."""
    if not isinstance(part, list):
        raise DataError(f"expected polygons as lists of numbers, found {str(part)[:40]!r}")
    if len(part) % 2:
        raise DataError(f"expected pairs of x and y, found {len(part)} numbers")
    try:
        finite = all(map(math.isfinite, part))
    except (TypeError, OverflowError):
        raise DataError("expected numbers in a polygon, found something else") from None
    if not finite:
        raise DataError("expected finite numbers in a polygon, found NaN or infinity")
    outside, span = False, 0.0
    for values, size, axis in ((part[0::2], shape[1], "x"), (part[1::2], shape[0], "y")):
        low, high = min(values), max(values)
        if low < -size or high > 2 * size:
            text = f"a point far outside of the image ({axis} from {low:g} to {high:g}, of {size} pixels)"
            raise DataError(text)
        outside |= low < -_SLACK or high > size + _SLACK
        span = max(span, high - low)
    if len(part) / 2 * span * _STEPS > _MOST_STEPS:
        _check_length(part)
    return outside


def _check_length(part: list[float]) -> None:
    points = np.array(part, dtype=np.float64).reshape(-1, 2)
    sides = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1)
    if sides.sum() * _STEPS > _MOST_STEPS:
        text = f"a polygon of {len(points)} points is {sides.sum():.3g} pixels long, which is no outline of a cell"
        raise DataError(text)


def _run_lengths(segmentation: dict[str, Any], shape: tuple[int, int]) -> dict[str, Any]:
    """Compressed counts of compressed or plain ones."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != list(shape):
        message = (
            f"run lengths for the size {size}, but the image has {list(shape)} (height, width)"
        )
        raise DataError(message, expected=list(shape), found=size)
    if isinstance(counts, str):
        text = counts.encode(errors="replace")
    elif isinstance(counts, list) and all(type(count) is int for count in counts):
        _check_plain(counts, shape)
        text = compressed(counts, shape)
    else:
        raise DataError(f"expected counts as a string or whole numbers, found {str(counts)[:40]!r}")
    check_coco_rle(text, shape)
    return {"size": size, "counts": text}


def _check_plain(counts: list[int], shape: tuple[int, int]) -> None:
    covered, n_pixels = sum(counts), shape[0] * shape[1]
    if min(chain(counts, [0])) < 0:
        raise DataError(f"a negative count ({min(counts)})", found=min(counts))
    if covered != n_pixels:
        text = f"counts of {covered} pixels for an image of {shape[0]} x {shape[1]} = {n_pixels} pixels"
        raise DataError(text, expected=n_pixels, found=covered)

"""Label maps between kernels: areas and boxes, new numbers, closed holes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric import _regions
from cellflow.numeric._jit import run_blocks

Ints = NDArray[np.int32]

AREA, BOX, FIRST = 0, slice(1, 5), 5  # columns of the statistics


def measure(labels: Ints, n_labels: int, ends: tuple[Ints, Ints] | None = None) -> Ints:
    """Area, box (rows, columns) and first pixel of labels 0..n_labels, ``(n_labels + 1, 6)``.

    With ``ends = (final, owner)`` the label map is made from them first, in place of `final`.
    """
    height = labels.shape[0]
    rows = max(64, -(-height // 8))
    parts = np.empty((max(1, -(-height // rows)), n_labels + 1, 6), dtype=np.int32)
    if ends is None:
        run_blocks(lambda i, a, b: _regions.measure_rows(labels, a, b, parts[i]), height, rows)
    else:
        final, owner = ends
        run_blocks(lambda i, a, b: _regions.label_rows(final, owner, a, b, parts[i]), height, rows)
    out: Ints = parts[0]
    for part in parts[1:]:
        out[:, 0] += part[:, 0]
        for column in (1, 3, 5):
            np.minimum(out[:, column], part[:, column], out=out[:, column])
        for column in (2, 4):
            np.maximum(out[:, column], part[:, column], out=out[:, column])
    return out


def relabel(labels: Ints, table: Ints) -> Ints:
    """``labels = table[labels]``, in place."""
    height = labels.shape[0]
    run_blocks(lambda _, a, b: _regions.relabel_rows(labels, table, a, b), height, 128)
    return labels


def close_holes(labels: Ints, boxes: Ints) -> NDArray[np.bool_]:
    """Fill holes over background, in place, for labels 1..n that are in the order of first pixels.

    Inner labels first: what lies inside another has its first pixel after it, so a larger number.

    Parameters
    ----------
    labels : (H, W) int32 ndarray
    boxes : (n, 4) int32 ndarray
        Boxes of labels 1..n.

    Returns
    -------
    (n + 1,) bool ndarray
        Which labels have pixels in the hole of another one.
    """
    flags = np.zeros(len(boxes) + 1, dtype=np.bool_)
    nested = np.zeros_like(flags)
    _regions.flag_holes(labels, flags)
    numbers = np.flatnonzero(flags)[::-1].astype(np.int32)
    _regions.fill_holes(labels, numbers, boxes[numbers - 1], nested)
    return nested

"""Kernels that follow flows through a part of an image; used by `block_cells` alone.

Points move as in `_follow`, in coordinates of the whole image: they are rounded there, so that they come
to rest where they would if the whole image were at hand, to the bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric._jit import kernel

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]
Flags = NDArray[np.uint8]


@kernel
def _advance(
    flat: Floats,
    part: Longs,
    py: Floats,
    px: Floats,
    steps: int,
    cut: Flags,
) -> None:
    """Move points by ``steps`` bilinear steps; ``part`` is top, left, rows, columns, and the whole's height and width.

    A point that leaves the part is marked in ``cut``; where it goes from there means nothing.
    """
    top = np.int32(part[0])
    left = np.int32(part[1])
    last_row = np.int32(part[2] - 1)
    last_column = np.int32(part[3] - 1)
    columns = part[3]
    last_y = np.int32(part[4] - 1)
    last_x = np.int32(part[5] - 1)
    none = np.int32(0)
    bottom = np.float32(last_y)
    right = np.float32(last_x)
    zero = np.float32(0.0)
    one = np.float32(1.0)
    for _ in range(steps):
        for i in range(py.size):
            y = py[i]
            x = px[i]
            iy = np.int32(y)
            ix = np.int32(x)
            wy = y - np.float32(iy)
            wx = x - np.float32(ix)
            down = np.int32(1) if iy < last_y else none
            beside = np.int32(1) if ix < last_x else none
            row = np.int32(iy - top)
            column = np.int32(ix - left)
            near_y = np.int32(min(max(row, none), np.int32(last_row - down)))
            near_x = np.int32(min(max(column, none), np.int32(last_column - beside)))
            if near_y != row or near_x != column:
                cut[i] = 1
            a = np.int64(near_y) * columns + near_x
            b = a + beside
            below = columns if iy < last_y else 0
            ay = np.uint64(2 * a)
            by = np.uint64(2 * b)
            cy = np.uint64(2 * (a + below))
            dy = np.uint64(2 * (b + below))
            vy = one - wy
            vx = one - wx
            waa = vy * vx
            wab = vy * wx
            wba = wy * vx
            wbb = wy * wx
            sy = flat[ay] * waa + flat[by] * wab + flat[cy] * wba + flat[dy] * wbb
            sx = (
                flat[ay + np.uint64(1)] * waa
                + flat[by + np.uint64(1)] * wab
                + flat[cy + np.uint64(1)] * wba
                + flat[dy + np.uint64(1)] * wbb
            )
            py[i] = min(bottom, max(zero, y + sy))
            px[i] = min(right, max(zero, x + sx))


@kernel
def trace_part(
    field: Floats,
    part: Longs,
    places: Longs,
    first: int,
    last: int,
    steps: int,
    ends: Longs,
    cut: Flags,
) -> None:
    """Where ``steps`` steps lead from places ``first:last``; places and ends are flat indices of the whole image.

    As `_follow._trace`, eight steps at a time. Marks in ``cut`` the points that left the part.
    """
    width = part[5]
    flat = field.reshape(-1)
    batch = 512
    buffers = np.empty((4, batch), dtype=np.float32)
    active = np.empty(batch, dtype=np.int64)
    out = np.empty(batch, dtype=np.uint8)
    for begin in range(first, last, batch):
        n = min(last, begin + batch) - begin
        py, px, old_y, old_x = buffers[0], buffers[1], buffers[2], buffers[3]
        for i in range(n):
            row = places[begin + i] // width
            py[i] = np.float32(row)
            px[i] = np.float32(places[begin + i] - row * width)
            active[i] = begin + i
            out[i] = 0
        _advance(flat, part, py[:n], px[:n], steps % 8, out[:n])
        for _ in range(steps // 8):
            old_y[:n] = py[:n]
            old_x[:n] = px[:n]
            _advance(flat, part, py[:n], px[:n], 8, out[:n])
            m = 0
            for i in range(n):
                if (py[i] == old_y[i] and px[i] == old_x[i]) or out[i]:
                    ends[active[i]] = np.int64(py[i]) * width + np.int64(px[i])
                    cut[active[i]] = out[i]
                else:
                    active[m] = active[i]
                    py[m] = py[i]
                    px[m] = px[i]
                    out[m] = out[i]
                    m += 1
            n = m
            if n == 0:
                break
        for i in range(n):
            ends[active[i]] = np.int64(py[i]) * width + np.int64(px[i])
            cut[active[i]] = out[i]

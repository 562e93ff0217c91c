"""Kernels that follow flows from every foreground pixel; used by `dynamics` alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric._jit import kernel

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@kernel
def round_to_half(value: np.float32) -> np.float32:
    """The nearest float16 as a float32 (ties to even); beyond 65504 infinite."""
    bits = np.float32(value).view(np.uint32)
    size = np.uint32(bits & np.uint32(0x7FFFFFFF))
    if size < np.uint32(0x38800000):  # subnormal in half precision: steps of 2**-24
        rounded = np.float32(np.float32(size.view(np.float32) + np.float32(0.5)) - np.float32(0.5))
        size = np.uint32(rounded.view(np.uint32))
    else:
        odd = np.uint32((size >> np.uint32(13)) & np.uint32(1))
        size = np.uint32((size + np.uint32(0xFFF) + odd) & np.uint32(0xFFFFE000))
        if size > np.uint32(0x477FE000):
            size = np.uint32(max(size, np.uint32(0x7F800000)))
    return np.uint32(size | np.uint32(bits & np.uint32(0x80000000))).view(np.float32)


@kernel
def prepare_rows(
    flow: Floats,
    cellprob: Floats,
    cut: np.float32,
    first: int,
    last: int,
    field: Floats,
    inside: NDArray[np.uint8],
    tally: NDArray[np.int64],
) -> None:
    """Unit flow ``(H, W, 2)`` of the foreground pixels, 0 elsewhere; rows ``first:last``.

    ``tally`` receives the foreground pixels, those whose flow is at least 1.5 long, and the values
    of the whole block that are not finite.
    """
    n_inside = 0
    n_long = 0
    n_bad = 0
    for y in range(first, last):
        for x in range(cellprob.shape[1]):
            logit = cellprob[y, x]
            dy = flow[0, y, x]
            dx = flow[1, y, x]
            if not (abs(dy) < np.float32(65520.0) and abs(dx) < np.float32(65520.0)):
                n_bad += 1
            if logit != logit:
                n_bad += 1
            if logit >= cut:
                dy = round_to_half(dy)
                dx = round_to_half(dx)
                n_inside += 1
                if dy * dy + dx * dx >= np.float32(2.25):
                    n_long += 1
                field[y, x, 0] = dy / np.float32(5.0)
                field[y, x, 1] = dx / np.float32(5.0)
                inside[y, x] = 1
            else:
                field[y, x, 0] = 0.0
                field[y, x, 1] = 0.0
                inside[y, x] = 0
    tally[0] = n_inside
    tally[1] = n_long
    tally[2] = n_bad


@kernel
def step_rows(
    field: Floats,
    inside: NDArray[np.uint8],
    first: int,
    last: int,
    steps: int,
    offset: np.float32,
    target: Ints,
) -> None:
    """Where ``steps`` bilinear steps lead from each foreground pixel, as a flat index.

    The position plus ``offset`` is truncated (0.5 rounds to the nearest pixel). Background pixels
    point to themselves. A pixel that comes back to exactly where it was is on a cycle: the rest of
    its steps is taken modulo the length of the cycle.
    """
    height, width = inside.shape
    bottom = np.float32(height - 1)
    right = np.float32(width - 1)
    flat = field.reshape(-1)
    for y in range(first, last):
        for x in range(width):
            if inside[y, x] == 0:
                target[y, x] = y * width + x
                continue
            py = np.float32(y)
            px = np.float32(x)
            mark_y = py
            mark_x = px
            mark_at = 0
            next_mark = 1
            t = 0
            stop = steps
            while t < stop:
                iy = np.int32(py)
                ix = np.int32(px)
                wy = py - np.float32(iy)
                wx = px - np.float32(ix)
                a = np.uint64(2 * (np.int64(iy) * width + ix))
                b = a + np.uint64(2 if ix < width - 1 else 0)
                down = np.uint64(2 * width if iy < height - 1 else 0)
                c = a + down
                d = b + down
                vy = np.float32(1.0) - wy
                vx = np.float32(1.0) - wx
                waa = vy * vx
                wab = vy * wx
                wba = wy * vx
                wbb = wy * wx
                sy = flat[a] * waa + flat[b] * wab + flat[c] * wba + flat[d] * wbb
                sx = (
                    flat[a + np.uint64(1)] * waa
                    + flat[b + np.uint64(1)] * wab
                    + flat[c + np.uint64(1)] * wba
                    + flat[d + np.uint64(1)] * wbb
                )
                py = min(bottom, max(np.float32(0.0), py + sy))
                px = min(right, max(np.float32(0.0), px + sx))
                t += 1
                if py == mark_y and px == mark_x:
                    stop = t + (stop - t) % (t - mark_at)
                    mark_y = np.float32(-1.0)
                elif t == next_mark and mark_y >= 0:
                    mark_y = py
                    mark_x = px
                    mark_at = t
                    next_mark = 2 * t
            target[y, x] = np.int32(py + offset) * width + np.int32(px + offset)


@kernel
def chase_rows(
    target: Ints, inside: NDArray[np.uint8], first: int, last: int, hops: int, final: Ints
) -> None:
    """Follow ``target`` from each foreground pixel for ``hops`` hops; -1 in the background."""
    flat = target.reshape(-1)
    width = inside.shape[1]
    for y in range(first, last):
        for x in range(width):
            if inside[y, x] == 0:
                final[y, x] = -1
                continue
            place = flat[y * width + x]
            for _ in range(hops - 1):
                following = flat[place]
                if following == place:
                    break
                place = following
            final[y, x] = place

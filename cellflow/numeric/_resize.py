"""Kernels of bilinear interpolation; used by `resize` alone.

Rows are resized first, each once, then pairs of them are mixed; all in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from cellflow.numeric._jit import kernel

__all__ = ["halve", "mix_fused", "mix_products"]

Floats = NDArray[np.float32]
Places = NDArray[np.uintp]


@intrinsic  # type: ignore[untyped-decorator]
def _fused(_: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` in float32, rounded once."""
    single = types.float32

    def make(_: Any, builder: Any, __: Any, values: Any) -> Any:
        return builder.fma(*values)

    return single(single, single, single), make


@kernel
def mix_fused(
    part: Floats,
    rows: Places,
    down: Floats,
    columns: Places,
    along: Floats,
    lines: Floats,
    out: Floats,
    start: int,
    stop: int,
) -> None:
    """Rows ``start:stop`` of `out`: the nearer pixel and a part of the way to the next, fused.

    ``rows[0], rows[1]`` are the two rows of `part` that a row of `out` lies between, and `down` how far
    it is from the first to the second; `columns` and `along` the same for columns. `lines` is
    ``(2, w)``, for the two rows.
    """
    n_channels, width = out.shape[0], out.shape[2]
    for channel in range(n_channels):
        held = np.full(2, -1, np.int64)
        for y in range(start, stop):
            for side in range(2):
                # A row is made once: the second of one pair may be the first of the next.
                row = np.int64(rows[side, y])
                if held[side] == row:
                    continue
                if side == 0 and held[1] == row:
                    lines[0, :] = lines[1, :]
                else:
                    source, line = part[channel, row], lines[side]
                    for x in range(width):
                        first = source[columns[0, x]]
                        line[x] = _fused(source[columns[1, x]] - first, along[x], first)
                held[side] = row
            way, upper, lower, target = down[y], lines[0], lines[1], out[channel, y]
            for x in range(width):
                target[x] = _fused(lower[x] - upper[x], way, upper[x])


@kernel
def mix_products(
    part: Floats,
    rows: Places,
    down: Floats,
    columns: Places,
    along: Floats,
    lines: Floats,
    out: Floats,
    start: int,
    stop: int,
) -> None:
    """As `mix_fused`, by the sum of two products, each rounded."""
    one = np.float32(1.0)
    n_channels, width = out.shape[0], out.shape[2]
    for channel in range(n_channels):
        held = np.full(2, -1, np.int64)
        for y in range(start, stop):
            for side in range(2):
                row = np.int64(rows[side, y])
                if held[side] == row:
                    continue
                if side == 0 and held[1] == row:
                    lines[0, :] = lines[1, :]
                else:
                    source, line = part[channel, row], lines[side]
                    for x in range(width):
                        share = along[x]
                        first = source[columns[0, x]] * (one - share)
                        line[x] = first + source[columns[1, x]] * share
                held[side] = row
            way, upper, lower, target = down[y], lines[0], lines[1], out[channel, y]
            rest = one - way
            for x in range(width):
                target[x] = upper[x] * rest + lower[x] * way


@kernel
def halve(part: Floats, out: Floats, start: int, stop: int) -> None:
    """Rows ``start:stop`` of `out`: the means of squares of 2 x 2 pixels, added row by row."""
    n_channels, width = out.shape[0], out.shape[2]
    quarter = np.float32(0.25)
    for channel in range(n_channels):
        for y in range(start, stop):
            upper, lower, target = part[channel, 2 * y], part[channel, 2 * y + 1], out[channel, y]
            for x in range(width):
                total = (upper[2 * x] + upper[2 * x + 1]) + lower[2 * x]
                target[x] = (total + lower[2 * x + 1]) * quarter

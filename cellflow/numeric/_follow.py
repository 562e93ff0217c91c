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
    of the whole block that are not finite. Without branches, so that it runs on vectors.
    """
    zero = np.float32(0.0)
    limit = np.float32(65520.0)
    for y in range(first, last):
        n_inside = 0
        n_long = 0
        n_good = 0
        row_y = flow[0, y]
        row_x = flow[1, y]
        logits = cellprob[y]
        out = field[y]
        cell = inside[y]
        for x in range(logits.size):
            logit = logits[x]
            dy = round_to_half(row_y[x])
            dx = round_to_half(row_x[x])
            is_cell = logit >= cut
            is_long = dy * dy + dx * dx >= np.float32(2.25)
            n_good += (abs(row_y[x]) < limit) & (abs(row_x[x]) < limit) & (logit == logit)
            n_inside += is_cell
            n_long += is_cell & is_long
            out[x, 0] = dy / np.float32(5.0) if is_cell else zero
            out[x, 1] = dx / np.float32(5.0) if is_cell else zero
            cell[x] = np.uint8(is_cell)
        tally[0] += n_inside
        tally[1] += n_long
        tally[2] += logits.size - n_good


@kernel
def _advance(
    flat: Floats, height: int, width: int, py: Floats, px: Floats, steps: int, stride: np.float32
) -> None:
    """Move points by ``steps`` bilinear steps of ``stride``, clamped to the image.

    A stride of 1 multiplies by 1, which changes nothing. Written to run on vectors of points.
    """
    bottom = np.float32(height - 1)
    right = np.float32(width - 1)
    zero = np.float32(0.0)
    one = np.float32(1.0)
    last_y = np.int32(height - 1)
    last_x = np.int32(width - 1)
    for _ in range(steps):
        for i in range(py.size):
            y = py[i]
            x = px[i]
            iy = np.int32(y)
            ix = np.int32(x)
            wy = y - np.float32(iy)
            wx = x - np.float32(ix)
            a = np.int64(iy) * width + ix
            b = a + (1 if ix < last_x else 0)
            down = width if iy < last_y else 0
            ay = np.uint64(2 * a)
            by = np.uint64(2 * b)
            cy = np.uint64(2 * (a + down))
            dy = np.uint64(2 * (b + down))
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
            py[i] = min(bottom, max(zero, y + stride * sy))
            px[i] = min(right, max(zero, x + stride * sx))


@kernel
def _trace(
    flat: Floats,
    height: int,
    width: int,
    places: Ints,
    steps: int,
    out: Ints,
    pace: Floats,
    buffers: Floats,
    active: Ints,
) -> None:
    """Where ``steps`` steps lead from each place (flat indices); positions are truncated at the end.

    ``pace`` is how far each went in its last eight steps, in pixels along the longer axis; infinite
    if there were fewer.

    Steps are taken eight at a time. A point that is where it was eight steps before is at rest or on
    a cycle whose length divides eight: all further eights lead there again, so it is done.
    """
    n = places.size
    py = buffers[0]
    px = buffers[1]
    old_y = buffers[2]
    old_x = buffers[3]
    for i in range(n):
        row = places[i] // width
        py[i] = np.float32(row)
        px[i] = np.float32(places[i] - row * width)
        active[i] = i
        pace[i] = np.float32(np.inf)
    _advance(flat, height, width, py[:n], px[:n], steps % 8, np.float32(1.0))
    for _ in range(steps // 8):
        old_y[:n] = py[:n]
        old_x[:n] = px[:n]
        _advance(flat, height, width, py[:n], px[:n], 8, np.float32(1.0))
        m = 0
        for i in range(n):
            pace[active[i]] = max(abs(py[i] - old_y[i]), abs(px[i] - old_x[i]))
            if py[i] == old_y[i] and px[i] == old_x[i]:
                out[active[i]] = np.int32(py[i]) * width + np.int32(px[i])
            else:
                active[m] = active[i]
                py[m] = py[i]
                px[m] = px[i]
                m += 1
        n = m
        if n == 0:
            break
    for i in range(n):
        out[active[i]] = np.int32(py[i]) * width + np.int32(px[i])


@kernel
def trace_places(
    field: Floats, places: Ints, first: int, last: int, steps: int, out: Ints, pace: Floats
) -> None:
    """`_trace` for places ``first:last``."""
    height, width = field.shape[:2]
    flat = field.reshape(-1)
    batch = 512
    buffers = np.empty((4, batch), dtype=np.float32)
    active = np.empty(batch, dtype=np.int32)
    for begin in range(first, last, batch):
        end = min(last, begin + batch)
        _trace(
            flat, height, width, places[begin:end], steps, out[begin:end], pace[begin:end],
            buffers, active,
        )  # fmt: skip


@kernel
def trace_rows(
    field: Floats, inside: NDArray[np.uint8], first: int, last: int, steps: int, final: Ints
) -> None:
    """Where ``steps`` steps lead from each foreground pixel of rows ``first:last``; -1 elsewhere."""
    height, width = inside.shape
    flat = field.reshape(-1)
    batch = 512
    buffers = np.empty((4, batch), dtype=np.float32)
    active = np.empty(batch, dtype=np.int32)
    places = np.empty(batch, dtype=np.int32)
    out = np.empty(batch, dtype=np.int32)
    pace = np.empty(batch, dtype=np.float32)
    ends = final.reshape(-1)
    cells = inside.reshape(-1)
    n = 0
    stop = last * width
    for place in range(first * width, stop + 1):
        if place < stop and cells[place]:
            places[n] = place
            n += 1
        elif place < stop:
            ends[place] = -1
        if n == batch or place == stop:
            _trace(flat, height, width, places[:n], steps, out, pace, buffers, active)
            for i in range(n):
                ends[places[i]] = out[i]
            n = 0


@kernel
def jump_rows(
    field: Floats,
    inside: NDArray[np.uint8],
    first: int,
    last: int,
    steps: int,
    stride: np.float32,
    target: Ints,
) -> None:
    """The pixel nearest to where ``steps`` steps lead from each foreground pixel of ``first:last``.

    Background pixels point to themselves.
    """
    height, width = inside.shape
    flat = field.reshape(-1)
    batch = 512
    py = np.empty(batch, dtype=np.float32)
    px = np.empty(batch, dtype=np.float32)
    places = np.empty(batch, dtype=np.int32)
    half = np.float32(0.5)
    for y in range(first, last):
        for begin in range(0, width, batch):
            n = 0
            for x in range(begin, min(width, begin + batch)):
                target[y, x] = y * width + x
                places[n] = x
                n += inside[y, x]
            for i in range(n):
                py[i] = np.float32(y)
                px[i] = np.float32(places[i])
            _advance(flat, height, width, py[:n], px[:n], steps, stride)
            for i in range(n):
                target[y, places[i]] = np.int32(py[i] + half) * width + np.int32(px[i] + half)


@kernel
def chase_rows(
    target: Ints,
    inside: NDArray[np.uint8],
    first: int,
    last: int,
    hops: int,
    final: Ints,
    is_end: NDArray[np.uint8],
) -> None:
    """Follow ``target`` from each foreground pixel for ``hops`` hops; -1 in the background.

    Marks the places where anything ends in ``is_end``; threads may mark the same place.
    """
    flat = target.reshape(-1)
    width = inside.shape[1]
    for y in range(first, last):
        for x in range(width):
            if inside[y, x] == 0:
                final[y, x] = -1
                continue
            place = flat[np.uint64(y * width + x)]
            for _ in range(hops - 1):
                following = flat[np.uint64(place)]
                if following == place:
                    break
                place = following
            final[y, x] = place
            is_end[np.uint64(place)] = 1


@kernel
def number_rows(numbers: Ints, first: int, last: int, final: Ints, pixels: Ints) -> None:
    """Replace ends by their ``numbers`` (at the end's place) in rows ``first:last`` and count each.

    ``pixels`` receives the counts, -1 in ``final`` stays.
    """
    flat = numbers.reshape(-1)
    for y in range(first, last):
        for x in range(final.shape[1]):
            if final[y, x] >= 0:
                number = flat[np.uint64(final[y, x])]
                final[y, x] = number
                pixels[np.uint64(number)] += 1


@kernel
def settle_rows(field: Floats, rest: Ints, first: int, last: int, steps: int, final: Ints) -> Ints:
    """Replace the numbers of ends by the places where they come to rest; rows ``first:last``.

    Where that place is -1, the pixel takes all its ``steps`` steps itself. Returns where these pixels
    came to rest.
    """
    height, width = final.shape
    flat = field.reshape(-1)
    ends = final.reshape(-1)[first * width : last * width]
    alone = np.empty(ends.size, dtype=np.int32)
    n = 0
    for i in range(ends.size):
        if ends[i] >= 0:
            ends[i] = rest[np.uint64(ends[i])]
            if ends[i] < 0:
                alone[n] = i
                n += 1
    out = np.empty(n, dtype=np.int32)
    batch = 512
    buffers = np.empty((4, batch), dtype=np.float32)
    pace = np.empty(batch, dtype=np.float32)
    active = np.empty(batch, dtype=np.int32)
    for begin in range(0, n, batch):
        end = min(n, begin + batch)
        places = alone[begin:end] + np.int32(first * width)
        _trace(flat, height, width, places, steps, out[begin:end], pace, buffers, active)
    for i in range(n):
        ends[alone[i]] = out[i]
    return out

"""Where pixels come to rest: by every one of their steps, or by the short cut."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric import _follow, _regions
from cellflow.numeric._jit import run_blocks

__all__ = ["Stops", "take_all_steps", "take_jumps"]

# A jump: so many bilinear steps, each of so many unit flows, then the nearest pixel. Chosen on real
# flows, see docs/performance.md.
JUMP_STEPS = 4
JUMP_STRIDE = 2
# Fewer pixels that come to rest in one place may be there by the jumps alone; ten make a seed.
FEW = 150
# Pixels in eight steps. What is slower does not leave its pixel in 200 steps: it is at rest.
MAX_PACE = np.float32(0.03)
# Part of the foreground pixels. Where more of them are ends, jumps bring so few together that nearly all
# would be traced from their own place in any case.
MANY_ENDS = 0.1

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


class Stops(NamedTuple):
    """Where pixels come to rest.

    `final` is that place as a flat index, ``(H, W)``, -1 in the background; `counts` the pixels at rest in
    each place, ``(H, W)``; `crowded` the places, unsorted, with enough of them for a seed.
    """

    final: Ints
    counts: Ints
    crowded: Ints


def take_all_steps(field: Floats, inside: NDArray[np.uint8], steps: int, rows: int) -> Stops:
    """Every step of every pixel."""
    final = np.empty(inside.shape, dtype=np.int32)
    run_blocks(
        lambda _, a, b: _follow.trace_rows(field, inside, a, b, steps, final), len(inside), rows
    )
    counts = np.zeros(inside.shape, dtype=np.int32)
    return Stops(final, counts, _regions.count_ends(final.reshape(-1), counts.reshape(-1)))


def take_jumps(field: Floats, inside: NDArray[np.uint8], steps: int, rows: int) -> Stops:
    """Jump from pixel to pixel for half of the steps, then trace the few pixels that this leads to.

    A jump is `JUMP_STEPS` steps of `JUMP_STRIDE`, rounded to a pixel, so after it a pixel shares the way of
    another one. Jumps end in a handful of pixels near each sink (or stop early where the flow is too
    weak to leave a pixel); from there the other half of the steps is exact again, and pixels come to
    rest where a full trace leads them, or are traced from their own place, see `_settle`.
    """
    height, width = inside.shape
    jump = JUMP_STEPS * JUMP_STRIDE
    hops = (steps - steps // 2) // int(jump)
    if hops == 0:
        return take_all_steps(field, inside, steps, rows)
    stride = np.float32(JUMP_STRIDE)
    final = np.empty((height, width), dtype=np.int32)
    target = np.empty((height, width), dtype=np.int32)
    run_blocks(
        lambda _, a, b: _follow.jump_rows(field, inside, a, b, JUMP_STEPS, stride, target),
        height,
        rows,
    )
    is_end = np.zeros(height * width, dtype=np.uint8)
    run_blocks(
        lambda _, a, b: _follow.chase_rows(target, inside, a, b, hops, final, is_end),
        height,
        rows,
    )
    ends = np.flatnonzero(is_end).astype(np.int32)
    if len(ends) > MANY_ENDS * np.count_nonzero(inside.view(np.bool_)):
        del target, final, is_end  # two images of memory
        return take_all_steps(field, inside, steps, rows)
    rest, pace = np.empty_like(ends), np.empty(len(ends), dtype=np.float32)
    left = steps - hops * int(jump)
    run_blocks(
        lambda _, a, b: _follow.trace_places(field, ends, a, b, left, rest, pace), len(ends), 4096
    )
    target.reshape(-1)[ends] = np.arange(len(ends), dtype=np.int32)
    pixels = _number_ends(target, final, len(ends))
    target.fill(0)
    return _settle(field, final, target, pixels, rest, pace, steps, rows)


def _number_ends(numbers: Ints, final: Ints, n_ends: int) -> NDArray[np.int64]:
    """Replace the ends in `final` by their numbers, in place, and count the pixels of each."""
    height = len(final)
    blocks = int(np.clip(final.size // max(n_ends, 1), 1, 16))  # at most one more image in memory
    rows = -(-height // blocks)
    parts = np.zeros((-(-height // rows), n_ends), dtype=np.int32)
    run_blocks(lambda i, a, b: _follow.number_rows(numbers, a, b, final, parts[i]), height, rows)
    return np.asarray(parts.sum(axis=0), dtype=np.int64)


def _settle(
    field: Floats,
    final: Ints,
    counts: Ints,
    pixels: NDArray[np.int64],
    rest: Ints,
    pace: Floats,
    steps: int,
    rows: int,
) -> Stops:
    """Lead pixels to where their ends come to rest, and trace one by one those for which that may be wrong.

    Pixels that jumps have brought together stay together, although their own ways may part. Along the
    bottom of a valley with hardly any flow along it, for one, jumps are rounded to none: all pixels
    above and below a place of it wait there until only half of their steps are left, come to a stop
    on the way, and count as a seed; their label is a strip one pixel wide across the valley, which
    agrees with its flow. So an end counts only if it is at rest, and as one of so many pixels that
    their exact ways would not scatter into fewer than a seed needs.

    Parameters
    ----------
    final : (H, W) int32 ndarray
        Number of the end of each foreground pixel, -1 elsewhere; overwritten.
    counts : (H, W) int32 ndarray
        Zeros; overwritten.
    pixels, rest, pace : (n,) ndarray
        Pixels of each end, where it comes to rest (overwritten), and how fast it moves there.
    """
    places, at = np.unique(rest, return_inverse=True)
    together = np.bincount(at, pixels, len(places))[at]
    sure = (pace <= MAX_PACE) & (together >= FEW)
    known = np.bincount(at[sure], pixels[sure], len(places)).astype(np.int32)
    counts.reshape(-1)[places] = known
    rest[~sure] = -1
    alone: list[Ints] = [places[:0]] * -(-len(final) // rows)

    def settle(index: int, first: int, last: int) -> None:
        alone[index] = _follow.settle_rows(field, rest, first, last, steps, final)

    run_blocks(settle, len(final), rows)
    more = [_regions.count_ends(part, counts.reshape(-1)) for part in alone]
    return Stops(final, counts, np.concatenate([places[known > _regions.MIN_SEED], *more]))

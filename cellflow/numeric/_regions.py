"""Kernels over the regions of a label map: seeds, sizes, boxes, holes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric._jit import kernel

Ints = NDArray[np.int32]

MIN_SEED = 10  # a seed needs more pixels than this
MIN_GROW = 2  # and grows over places with more pixels than this


@kernel
def count_ends(final: Ints, counts: Ints) -> Ints:
    """Count how many pixels end at each place; returns the places that may be seeds, unsorted."""
    places = np.empty(1024, dtype=np.int32)
    n = 0
    i = 0
    while i < final.size:
        place = final[i]
        begin = i
        i += 1
        while i < final.size and final[i] == place:  # neighbours mostly end together
            i += 1
        if place < 0:
            continue
        before = counts[place]
        counts[place] = before + i - begin
        if before <= MIN_SEED < counts[place]:
            if n == places.size:
                larger = np.empty(2 * n, dtype=np.int32)
                larger[:n] = places
                places = larger
            places[n] = place
            n += 1
    return places[:n].copy()


@kernel
def keep_peaks(counts: Ints, places: Ints, is_peak: NDArray[np.bool_]) -> None:
    """Which places hold the largest count of their 5 x 5 surroundings (equal counts all pass)."""
    height, width = counts.shape
    for i in range(places.size):
        cy = places[i] // width
        cx = places[i] - cy * width
        here = counts[cy, cx]
        peak = True
        for y in range(max(0, cy - 2), min(height, cy + 3)):
            for x in range(max(0, cx - 2), min(width, cx + 3)):
                if counts[y, x] > here:
                    peak = False
        is_peak[i] = peak


@kernel
def grow_seeds(counts: Ints, seeds: Ints, owner: Ints) -> None:
    """Grow each seed 5 times by one pixel over counts above 2; later seeds overwrite earlier ones."""
    height, width = counts.shape
    reached = np.empty((11, 11), dtype=np.int8)
    for k in range(seeds.size):
        cy = seeds[k] // width
        cx = seeds[k] - cy * width
        reached[:] = 0
        reached[5, 5] = 1
        owner[cy, cx] = k + 1
        for turn in range(1, 6):
            for wy in range(max(5 - turn, 5 - cy), min(5 + turn + 1, height - cy + 5)):
                for wx in range(max(5 - turn, 5 - cx), min(5 + turn + 1, width - cx + 5)):
                    if reached[wy, wx] or counts[cy + wy - 5, cx + wx - 5] <= MIN_GROW:
                        continue
                    near = False
                    for ny in range(max(0, wy - 1), min(11, wy + 2)):
                        for nx in range(max(0, wx - 1), min(11, wx + 2)):
                            if 0 < reached[ny, nx] <= turn:
                                near = True
                    if near:
                        reached[wy, wx] = turn + 1
                        owner[cy + wy - 5, cx + wx - 5] = k + 1


@kernel
def label_rows(final: Ints, owner: Ints, first: int, last: int, stats: Ints) -> None:
    """Replace ends by the label that owns them and measure the labels of rows ``first:last``.

    ``stats[label]`` is area, first row, past the last row, first column, past the last column, and
    the flat index of the first pixel. `final` becomes the label map.
    """
    width = final.shape[1]
    flat = owner.reshape(-1)
    for y in range(first, last):
        for x in range(width):
            if final[y, x] >= 0:
                final[y, x] = flat[final[y, x]]
            else:
                final[y, x] = 0
    _measure(final, first, last, stats)


@kernel
def measure_rows(labels: Ints, first: int, last: int, stats: Ints) -> None:
    """Statistics of the labels of rows ``first:last``, see `label_rows`."""
    _measure(labels, first, last, stats)


@kernel
def _measure(labels: Ints, first: int, last: int, stats: Ints) -> None:
    height, width = labels.shape
    for k in range(stats.shape[0]):
        stats[k, 0] = 0
        stats[k, 1] = height
        stats[k, 2] = 0
        stats[k, 3] = width
        stats[k, 4] = 0
        stats[k, 5] = np.int32(2**31 - 1)
    for y in range(first, last):
        x = 0
        while x < width:
            label = labels[y, x]
            begin = x
            x += 1
            while x < width and labels[y, x] == label:
                x += 1
            if label == 0:
                continue
            stat = stats[label]
            stat[0] += x - begin
            stat[1] = min(stat[1], y)
            stat[2] = max(stat[2], y + 1)
            stat[3] = min(stat[3], begin)
            stat[4] = max(stat[4], x)
            stat[5] = min(stat[5], y * width + begin)


@kernel
def relabel_rows(labels: Ints, table: Ints, first: int, last: int) -> None:
    """``labels = table[labels]`` on rows ``first:last``."""
    for y in range(first, last):
        for x in range(labels.shape[1]):
            if labels[y, x] > 0:
                labels[y, x] = table[labels[y, x]]


@kernel
def flag_holes(labels: Ints, flags: NDArray[np.bool_]) -> None:
    """Mark labels that may enclose a hole.

    The uppermost row of a hole is a gap between two runs of the label under pixels that all belong
    to it. Labels without such a gap have no hole; a notch that opens downwards has one too, so the
    mark only says where to look.
    """
    height, width = labels.shape
    last_row = np.full(flags.size, -1, dtype=np.int32)
    last_end = np.zeros(flags.size, dtype=np.int32)
    for y in range(height):
        x = 0
        while x < width:
            label = labels[y, x]
            begin = x
            x += 1
            while x < width and labels[y, x] == label:
                x += 1
            if label == 0:
                continue
            if last_row[label] == y and y > 0 and not flags[label]:
                covered = True
                for gap in range(last_end[label], begin):
                    if labels[y - 1, gap] != label:
                        covered = False
                        break
                if covered:
                    flags[label] = True
            last_row[label] = y
            last_end[label] = x


@kernel
def fill_holes(labels: Ints, numbers: Ints, boxes: Ints, nested: NDArray[np.bool_]) -> None:
    """Give background pixels that a label encloses to it, label after label.

    Enclosed means: no 4-connected way over pixels of other labels or background leads out of the
    label's box. Pixels of other labels stay, and those labels are marked in ``nested``.
    """
    for i in range(numbers.size):
        number = numbers[i]
        top = boxes[i, 0]
        left = boxes[i, 2]
        height = boxes[i, 1] - top
        width = boxes[i, 3] - left
        outside = np.zeros((height, width), dtype=np.bool_)
        stack = np.empty((height * width, 2), dtype=np.int32)
        n = 0
        for y in range(height):
            for x in range(width):
                on_edge = y == 0 or x == 0 or y == height - 1 or x == width - 1
                if on_edge and labels[top + y, left + x] != number:
                    outside[y, x] = True
                    stack[n, 0] = y
                    stack[n, 1] = x
                    n += 1
        while n > 0:
            n -= 1
            cy = stack[n, 0]
            cx = stack[n, 1]
            for turn in range(4):
                y = cy + (turn == 0) - (turn == 1)
                x = cx + (turn == 2) - (turn == 3)
                if y < 0 or x < 0 or y >= height or x >= width or outside[y, x]:
                    continue
                if labels[top + y, left + x] != number:
                    outside[y, x] = True
                    stack[n, 0] = y
                    stack[n, 1] = x
                    n += 1
        for y in range(height):
            for x in range(width):
                label = labels[top + y, left + x]
                if outside[y, x] or label == number:
                    continue
                if label == 0:
                    labels[top + y, left + x] = number
                else:
                    nested[label] = True

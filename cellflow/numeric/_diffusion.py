"""Kernels for the heat diffusion inside cells, shared by the training targets and the flow check.

Heat enters at the centre of a cell and spreads to its pixels alone by a 3 x 3 mean, as in
``cellpose.dynamics.masks_to_flows_cpu``. Each cell is worked on in a copy of its own box with a border
of one pixel, so neighbours cannot reach each other. The box is held as one flat vector: the border is
kept at zero, which makes it harmless that the last pixel of a row lies beside the first of the next,
and lets one long loop without branches do an iteration. For the same reason rows need not lie as far apart
as the box is wide, see `_stride`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric._jit import kernel

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

# Heat per iteration. Far from the centre of a long thin cell heat falls below the smallest float32
# when 1 enters; directions do not depend on it.
_SOURCE = np.float32(2.0**90)


@kernel
def _center(labels: Ints, number: int, box: Ints) -> tuple[int, int, int]:
    """Pixel of the label nearest to its mean position (the first in raster order), and its area.

    Distances are taken from the box's corner, as upstream: where the cell lies does not change them.
    """
    top = box[0]
    left = box[2]
    area = 0
    sum_y = 0
    sum_x = 0
    for y in range(box[0], box[1]):
        in_row = 0
        for x in range(box[2], box[3]):
            if labels[y, x] == number:
                in_row += 1
                sum_x += x - left
        area += in_row
        sum_y += in_row * (y - top)
    mean_y = sum_y / area
    mean_x = sum_x / area
    best_y = top + int(np.ceil(mean_y - 0.5))
    best_x = left + int(np.ceil(mean_x - 0.5))
    if labels[best_y, best_x] == number:
        return best_y, best_x, area
    best = 1e300
    for y in range(box[0], box[1]):
        for x in range(box[2], box[3]):
            if labels[y, x] == number:
                distance = (x - left - mean_x) ** 2 + (y - top - mean_y) ** 2
                if distance < best:
                    best = distance
                    best_y = y
                    best_x = x
    return best_y, best_x, area


@kernel
def _reachable_box(labels: Ints, number: int, box: Ints, start_y: int, start_x: int) -> Ints:
    """Box of the 8-connected part that holds the start; heat goes nowhere else."""
    height = box[1] - box[0]
    width = box[3] - box[2]
    seen = np.zeros((height, width), dtype=np.bool_)
    stack = np.empty((height * width, 2), dtype=np.int32)
    stack[0, 0] = start_y
    stack[0, 1] = start_x
    seen[start_y - box[0], start_x - box[2]] = True
    n = 1
    out = np.array([start_y, start_y + 1, start_x, start_x + 1], dtype=np.int32)
    while n > 0:
        n -= 1
        cy = stack[n, 0]
        cx = stack[n, 1]
        out[0] = min(out[0], cy)
        out[1] = max(out[1], cy + 1)
        out[2] = min(out[2], cx)
        out[3] = max(out[3], cx + 1)
        for y in range(max(box[0], cy - 1), min(box[1], cy + 2)):
            for x in range(max(box[2], cx - 1), min(box[3], cx + 2)):
                if labels[y, x] == number and not seen[y - box[0], x - box[2]]:
                    seen[y - box[0], x - box[2]] = True
                    stack[n, 0] = y
                    stack[n, 1] = x
                    n += 1
    return out


@kernel
def _stride(labels: Ints, number: int, box: Ints, ends: Ints) -> int:
    """How far apart the rows of the flat box must lie, at most the box's width with its border.

    Rows of a slanting or slender cell may reach into the empty ends of their neighbours, as long as none
    of the nine places that a pixel's mean is made of holds a pixel of the cell that is not its neighbour:
    no sum changes, and the vector is shorter. ``ends`` is for the first column and the one past the last
    of each row.
    """
    height = box[1] - box[0]
    width = box[3] - box[2] + 2
    for y in range(height):
        low = width
        high = 0
        for x in range(box[2], box[3]):
            if labels[box[0] + y, x] == number:
                low = min(low, x - box[2])
                high = x - box[2] + 1
        ends[y, 0] = low
        ends[y, 1] = high
    stride = 1
    for y in range(-1, height + 1):  # a row that is read, and what is read of it
        low = width
        high = -1
        for near in range(max(0, y - 1), min(height, y + 2)):
            if ends[near, 1] > 0:
                low = min(low, ends[near, 0] - 1)
                high = max(high, ends[near, 1] + 1)
        for away in range(1, height + 1):  # rows so far away must not be met there
            if stride * away >= width:
                break
            if y + away < height and ends[max(0, y + away), 1] > 0 and y + away >= 0:
                stride = max(stride, -((ends[y + away, 0] - high) // away))
            if y - away >= 0 and ends[y - away, 1] > 0:
                stride = max(stride, -((low - ends[y - away, 1]) // away))
    return int(min(stride, width))


@kernel
def _spread(heat: Floats, column: Floats, share: Floats, source: int, width: int, n: int) -> None:
    """``n`` iterations on a flat box; ``share`` is 1/9 inside the cell and 0 elsewhere.

    ``width`` is the distance of its rows.
    """
    size = heat.size
    for t in range(n):
        heat[source] += _SOURCE
        # heat has come at most t + 1 rows and columns far
        low = max(width + 1, source - (t + 1) * (width + 1))
        high = min(size - width, source + (t + 1) * (width + 1) + 1)
        above = heat[low - width : high - width]
        here = heat[low:high]
        below = heat[low + width : high + width]
        middle = column[low:high]
        for i in range(high - low):
            middle[i] = above[i] + here[i] + below[i]
        left = column[low - 1 : high - 1]
        right = column[low + 1 : high + 1]
        inside = share[low:high]
        for i in range(high - low):
            here[i] = inside[i] * (left[i] + middle[i] + right[i])


@kernel
def _diffuse(
    labels: Ints, number: int, box: Ints, buffers: Floats, ends: Ints
) -> tuple[int, int, int, int, int, int]:
    """Heat of one cell into ``buffers[0]``.

    Returns the first row and column of the box worked on, its padded height and width, the distance of
    its rows in the buffer, and the area of the label.
    """
    center_y, center_x, area = _center(labels, number, box)
    n_iterations = 2 * ((box[1] - box[0] + 2) + (box[3] - box[2] + 2))
    if (box[1] - box[0]) * (box[3] - box[2]) > 16 * area + 4096:
        box = _reachable_box(labels, number, box, center_y, center_x)
    height = box[1] - box[0] + 2
    width = box[3] - box[2] + 2
    stride = _stride(labels, number, box, ends)
    size = (height - 1) * stride + width
    heat = buffers[0, :size]
    column = buffers[1, : size + 1]
    share = buffers[2, :size]
    heat[:] = 0
    column[:] = 0
    share[:] = 0
    for y in range(box[0], box[1]):
        first = (y - box[0] + 1) * stride + 1
        for x in range(ends[y - box[0], 0], ends[y - box[0], 1]):
            if labels[y, box[2] + x] == number:
                share[first + x] = np.float32(1.0 / 9.0)
    source = (center_y - box[0] + 1) * stride + center_x - box[2] + 1
    _spread(heat, column, share, source, stride, n_iterations)
    return box[0], box[2], height, width, stride, area


@kernel
def _buffers(boxes: Ints, first: int, last: int) -> Floats:
    largest = 0
    for i in range(first, last):
        size = (boxes[i, 1] - boxes[i, 0] + 2) * (boxes[i, 3] - boxes[i, 2] + 2)
        largest = max(largest, size)
    return np.empty((3, largest + 1), dtype=np.float32)


@kernel
def _row_ends(boxes: Ints, first: int, last: int) -> Ints:
    tallest = 0
    for i in range(first, last):
        tallest = max(tallest, boxes[i, 1] - boxes[i, 0])
    return np.empty((tallest, 2), dtype=np.int32)


@kernel
def flow_cells(
    labels: Ints, numbers: Ints, boxes: Ints, first: int, last: int, unit_flow: Floats
) -> None:
    """Write the unit flow of cells ``first:last`` into ``(2, H, W)``."""
    buffers = _buffers(boxes, first, last)
    ends = _row_ends(boxes, first, last)
    for i in range(first, last):
        number = numbers[i]
        row, column, height, width, stride, _ = _diffuse(labels, number, boxes[i], buffers, ends)
        heat = buffers[0]
        for y in range(1, height - 1):
            for x in range(1, width - 1):
                if labels[row + y - 1, column + x - 1] != number:
                    continue
                at = y * stride + x
                dy = np.float64(heat[at + stride]) - np.float64(heat[at - stride])
                dx = np.float64(heat[at + 1]) - np.float64(heat[at - 1])
                length = np.sqrt(dy * dy + dx * dx)
                if length > 0:
                    unit_flow[0, row + y - 1, column + x - 1] = dy / length
                    unit_flow[1, row + y - 1, column + x - 1] = dx / length


@kernel
def check_cells(
    labels: Ints, numbers: Ints, boxes: Ints, first: int, last: int, field: Floats, errors: Floats
) -> None:
    """Mean squared difference between the unit flow of cells ``first:last`` and ``field``."""
    buffers = _buffers(boxes, first, last)
    ends = _row_ends(boxes, first, last)
    for i in range(first, last):
        number = numbers[i]
        box = boxes[i]
        row, column, height, width, stride, area = _diffuse(labels, number, box, buffers, ends)
        heat = buffers[0]
        total = 0.0
        for y in range(box[0], box[1]):
            for x in range(box[2], box[3]):
                if labels[y, x] != number:
                    continue
                away_y = np.float64(field[y, x, 0])
                away_x = np.float64(field[y, x, 1])
                in_y = y - row + 1
                in_x = x - column + 1
                if 0 < in_y < height - 1 and 0 < in_x < width - 1:
                    at = in_y * stride + in_x
                    dy = np.float64(heat[at + stride]) - np.float64(heat[at - stride])
                    dx = np.float64(heat[at + 1]) - np.float64(heat[at - 1])
                    length = np.sqrt(dy * dy + dx * dx)
                    if length > 0:
                        away_y -= dy / length
                        away_x -= dx / length
                total += float(away_y * away_y + away_x * away_x)
        errors[i] = total / area

"""Run-length masks of COCO: counts of background and cell in turn, column by column, and their strings.

pycocotools turns strings into pixels, one whole image a cell. Here the counts themselves are needed: to check
that they cover just the image before anything else reads them, and to make row-major runs of a thousand cells
without a thousand images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import RleError
from cellflow.numeric._jit import kernel
from cellflow.numeric._runs import offsets_of
from cellflow.numeric.labels import instances_from_labels
from cellflow.types import Instances

__all__ = ["check_coco_rle", "coco_counts_from_labels", "instances_from_coco_rles"]

Ints = NDArray[np.int64]
Codes = NDArray[np.uint8]

_STRING = re.compile(rb"(?:[P-o]{0,6}[0-O])*")
"""Numbers of 5 bits a character, the lowest first; all but the last character of a number are of the upper half."""


def check_coco_rle(text: bytes, shape: tuple[int, int]) -> None:
    """Make sure that a string is well formed and its counts cover just the pixels of an image.

    Parameters
    ----------
    text : bytes
        Counts as pycocotools writes them.
    shape : tuple of int
        ``(H, W)`` of the image.

    Raises
    ------
    RleError
        If it is malformed, has a negative count, or covers more or fewer pixels.
    """
    if not _STRING.fullmatch(text):
        raise RleError("counts that are no run-length string of COCO")
    counts = _counts([text])[0]
    covered, n_pixels = int(counts.sum()), shape[0] * shape[1]
    if (counts < 0).any():
        raise RleError(f"a negative count ({counts.min()})")
    if covered != n_pixels:
        raise RleError(
            f"counts of {covered} pixels for an image of {shape[0]} x {shape[1]} = {n_pixels} pixels",
            expected=n_pixels,
            found=covered,
        )


def instances_from_coco_rles(texts: Sequence[bytes], shape: tuple[int, int]) -> Instances:
    """Decode the strings of one image; cells may overlap each other.

    Parameters
    ----------
    texts : sequence of bytes
        Counts, one string a cell, that pycocotools made or `check_coco_rle` has passed.
    shape : tuple of int
        ``(H, W)`` of the image.

    Returns
    -------
    Instances
        In the order of the strings; a string without a pixel gives a cell without a run.
    """
    counts, cells = _counts(texts)
    n_runs = np.zeros(len(texts), dtype=np.int64)
    nothing = np.zeros(0, dtype=np.int64)
    _row_runs(counts, cells, shape, n_runs, nothing, nothing)
    offsets = offsets_of(n_runs)
    starts = np.empty(offsets[-1], dtype=np.int64)
    lengths = np.empty_like(starts)
    if len(starts):
        _row_runs(counts, cells, shape, offsets[:-1].copy(), starts, lengths)
    return Instances(shape, starts, lengths, offsets)


def coco_counts_from_labels(labels: NDArray[np.int32]) -> list[Ints]:
    """Counts of every label, column by column and background first, in the order of the numbers.

    Parameters
    ----------
    labels : (H, W) int32 ndarray
        Missing numbers give no counts.
    """
    columns = instances_from_labels(np.ascontiguousarray(labels.T))
    found = []
    for starts, lengths in columns:
        edges = np.stack([starts, starts + lengths], axis=1).reshape(-1)
        counts = np.diff(edges, prepend=0, append=labels.size)
        found.append(counts if counts[-1] else counts[:-1])
    return found


def _counts(texts: Sequence[bytes]) -> tuple[Ints, Ints]:
    """Counts of all strings, and where those of each begin and end, ``(n + 1,)``."""
    codes = np.frombuffer(b"".join(texts), dtype=np.uint8)
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    counts = np.empty(len(codes), dtype=np.int64)
    cells = np.zeros(len(texts) + 1, dtype=np.int64)
    used = _decode(codes, ends, counts, cells)
    return counts[:used], cells


@kernel
def _decode(codes: Codes, ends: Ints, counts: Ints, cells: Ints) -> int:
    """Numbers of the strings: 5 bits a character, from the third on what was added to the last but one."""
    n = 0
    for cell in range(ends.size - 1):
        first = n
        value = np.int64(0)
        bits = 0
        for i in range(ends[cell], ends[cell + 1]):
            code = np.int64(codes[i]) - 48
            value |= (code & 31) << bits
            bits += 5
            if code & 32:
                continue
            if code & 16:
                value -= np.int64(1) << bits
            counts[n] = value + counts[n - 2] if n - first > 2 else value
            n += 1
            value = np.int64(0)
            bits = 0
        cells[cell + 1] = n
    return n


@kernel
def _paint(counts: Ints, height: int) -> tuple[int, int, NDArray[np.bool_]]:
    """First row, first column and pixels of the box around a cell; a box without columns where it is empty."""
    top, bottom, left, right = height, 0, 0, 0
    start = 0
    for i, count in enumerate(counts):
        end = start + count
        if i % 2 == 1 and count > 0:
            one_column = start // height == (end - 1) // height
            top = min(top, start % height if one_column else 0)
            bottom = max(bottom, (end - 1) % height + 1 if one_column else height)
            left = left if right else start // height
            right = (end - 1) // height + 1
        start = end
    box = np.zeros((max(0, bottom - top), right - left), dtype=np.bool_)
    start = 0
    for i, count in enumerate(counts):
        if i % 2 == 1:
            for pixel in range(start, start + count):
                box[pixel % height - top, pixel // height - left] = True
        start += count
    return top, left, box


@kernel
def _row_runs(
    counts: Ints, cells: Ints, shape: tuple[int, int], places: Ints, starts: Ints, lengths: Ints
) -> None:
    """Row-major runs of every cell.

    Without room in `starts` they are counted only: `places` grows by their number. Else they are written
    from `places` on.
    """
    height, width = shape
    for cell in range(cells.size - 1):
        top, left, box = _paint(counts[cells[cell] : cells[cell + 1]], height)
        last = -1
        for y in range(box.shape[0]):
            begin = -1
            for x in range(box.shape[1] + 1):
                inside = x < box.shape[1] and box[y, x]
                if inside and begin < 0:
                    begin = x
                elif not inside and begin >= 0:
                    start = (top + y) * width + left + begin
                    new = start != last  # else the last run goes on in this row
                    last = start + x - begin
                    begin = -1
                    if starts.size and new:
                        starts[places[cell]] = start
                    places[cell] += new
                    if starts.size:
                        lengths[places[cell] - 1] = last - starts[places[cell] - 1]

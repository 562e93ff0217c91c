"""Cells from colours, against loops over pixels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io.formats.label_maps import same_cells
from cellflow.numeric.colours import labels_from_colours
from cellflow.numeric.labels import instances_from_masks

PALETTE = np.array([(0, 0, 0), (255, 255, 255), (9, 0, 0), (0, 9, 0), (0, 0, 9), (200, 100, 0)])


def blocks(numbers: list[int], width: int) -> NDArray[np.uint8]:
    """Squares of 4 x 4 pixels in colours of the palette: too many pixels for smoothed edges."""
    rows = np.resize(np.array(numbers), (-(-len(numbers) // width), width))
    return PALETTE[np.kron(rows, np.ones((4, 4), int))].astype(np.uint8)


def slow_labels(pixels: NDArray[np.uint8]) -> NDArray[np.int64] | None:
    """The cells; None where nobody can tell the background."""
    height, width = pixels.shape[:2]
    colours = [[tuple(map(int, pixels[y, x])) for x in range(width)] for y in range(height)]
    border = Counter(
        [*colours[0], *colours[-1], *(row[0] for row in colours), *(row[-1] for row in colours)]
    )
    most = max(border.values())
    background = min(colour for colour in border if border[colour] == most)
    everywhere = {colour for row in colours for colour in row}
    if 2 * most < sum(border.values()):
        background = (0, 0, 0)
    if background not in everywhere:
        return None
    others = sorted(everywhere - {background})
    return np.array(
        [[0 if c == background else 1 + others.index(c) for c in row] for row in colours], np.int64
    )


@given(st.lists(st.integers(0, 5), min_size=1, max_size=24), st.integers(1, 6))
def test_colours_are_numbered(numbers: list[int], width: int) -> None:
    pixels = blocks(numbers, width)
    expected = slow_labels(pixels)
    if expected is None:
        with pytest.raises(DataError, match="found no black, and no colour on half of the border"):
            labels_from_colours(pixels)
        return
    found = labels_from_colours(pixels)
    assert np.array_equal(found, expected)
    assert np.array_equal(labels_from_colours(pixels.astype(np.uint16) * 257), found)


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint32)]
)
def test_other_numbers_are_no_colours(pixels: NDArray[np.generic]) -> None:
    with pytest.raises(DataError, match="expected colours of 8 or 16 bits, found 3 channels of"):
        labels_from_colours(pixels)


def test_a_gradient_is_no_cells() -> None:
    ramp = np.add.outer(np.arange(60), np.arange(0, 180, 3)).astype(np.uint8)
    with pytest.raises(DataError, match="have fewer than 10 pixels and lie against others"):
        labels_from_colours(np.dstack([ramp, ramp.T, 255 - ramp]))


def test_small_cells_that_touch_none_are_cells() -> None:
    pixels = np.zeros((40, 40, 3), np.uint8)
    for number, (y, x) in enumerate(np.ndindex(8, 8), 1):
        pixels[5 * y + 1 : 5 * y + 3, 5 * x + 1 : 5 * x + 3] = number * 3, number, 255 - number
    assert labels_from_colours(pixels).max() == 64


MAPS = st.lists(st.integers(0, 3), min_size=6, max_size=6)


@given(MAPS, MAPS)
def test_same_cells(one: list[int], other: list[int]) -> None:
    def cells(values: list[int]) -> set[frozenset[int]]:
        return {
            frozenset(i for i, value in enumerate(values) if value == number)
            for number in set(values) - {0}
        }

    maps = [np.array(values).reshape(2, 3) for values in (one, other)]
    assert same_cells(*maps) == (cells(one) == cells(other))
    assert not same_cells(maps[0], maps[1].T)
    assert same_cells(maps[0], maps[0] * 7)


@given(st.lists(st.lists(st.booleans(), min_size=12, max_size=12).filter(any), max_size=4))
def test_masks_of_one_cell_each(masks: list[list[bool]]) -> None:
    arrays = [np.array(mask).reshape(3, 4) for mask in masks]
    cells = instances_from_masks(arrays, (3, 4))
    assert len(cells) == len(masks) and cells.shape == (3, 4)
    for mask, (starts, lengths) in zip(masks, cells, strict=True):
        pixels = [p for s, n in zip(starts, lengths, strict=True) for p in range(s, s + n)]
        assert pixels == np.flatnonzero(mask).tolist()

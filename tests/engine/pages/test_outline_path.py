"""Outlines as paths of SVG: what a painter makes of them is the cell again."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellflow.engine.pages.outline_path import box_of_cell, cell_mask, outline_path
from cellflow.numeric.labels import instances_from_labels
from cellflow.types import Instances


def rings_of(path: str) -> list[np.ndarray]:
    rings = []
    for ring in re.findall(r"M([^M]*)z", path):
        numbers = [float(part) for part in re.findall(r"-?[\d.]+", ring)]
        rings.append(np.cumsum(np.reshape(numbers, (-1, 2)), axis=0))
    return rings


def painted(path: str, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre is inside an odd number of rings."""
    canvas = np.zeros(shape, np.int64)
    for ring in rings_of(path):
        for y, x in np.ndindex(shape):
            inside = cv2.pointPolygonTest(ring.astype(np.float32), (x + 0.5, y + 0.5), False) > 0
            canvas[y, x] += inside
    return canvas % 2 == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_a_cell_comes_back_from_its_path(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random((7, 9)) < 0.5).astype(np.uint8)
    if not labels.any():
        return
    cells = instances_from_labels(labels)
    assert (painted(outline_path(cells, [0]), labels.shape) == labels).all()
    top, bottom, left, right = box = box_of_cell(cells, 0)
    rows = np.flatnonzero(labels.any(axis=1))
    assert (top, bottom) == (rows.min(), rows.max() + 1)
    assert (cell_mask(cells, 0, box) == labels[top:bottom, left:right]).all()


def test_a_run_that_goes_on_in_the_next_row() -> None:
    cells = Instances((3, 4), np.array([2]), np.array([5]), np.array([0, 1]))
    wanted = np.zeros(12, bool)
    wanted[2:7] = True
    assert (painted(outline_path(cells, [0]), (3, 4)) == wanted.reshape(3, 4)).all()


def test_small_cells_stay_when_the_picture_shrinks() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[10, 10] = 1
    labels[20:30, 20:30] = 2
    path = outline_path(instances_from_labels(labels), [0, 1], scale=0.25, corner_yx=(8, 8))
    small, large = rings_of(path)
    assert len(small) == 4 and small.min() == pytest.approx(0.5, abs=0.1)
    assert large.min(axis=0) == pytest.approx([3, 3]) and large.max(axis=0) == pytest.approx(
        [5.5, 5.5]
    )

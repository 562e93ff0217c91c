from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellflow.io.shapes import (
    Outline,
    closed,
    instances_from_outlines,
    outlines_from_labels,
    reaches_out,
)
from cellflow.numeric.labels import instances_from_labels, labels_from_instances
from cellflow.types import Instances

SMALL_MAPS = hnp.arrays(
    np.int32,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.sampled_from([0, 0, 1, 1, 2, 70_000]),
)


def geometry(outline: Outline) -> shapely.MultiPolygon:
    return shapely.MultiPolygon([shapely.Polygon(part[0], part[1:]) for part in outline])


def same(one: Instances, other: Instances) -> bool:
    fields = ("starts", "lengths", "offsets")
    return one.shape == other.shape and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in fields
    )


@settings(max_examples=300, deadline=None)
@given(labels=SMALL_MAPS)
def test_labels_come_back_to_the_pixel_and_rings_are_valid(labels: np.ndarray) -> None:
    outlines = outlines_from_labels(labels)
    assert list(outlines) == [number for number in np.unique(labels) if number]
    back = instances_from_outlines(list(outlines.values()), labels.shape)
    assert same(back, instances_from_labels(labels))
    for number, outline in outlines.items():
        area = geometry(outline)
        assert shapely.is_valid(area), shapely.is_valid_reason(area)
        assert area.area == np.count_nonzero(labels == number)
        assert all((ring == np.round(ring)).all() for part in outline for ring in part)


def test_corners_belong_to_two_parts_and_holes_that_touch_are_holes() -> None:
    labels = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 1]])
    assert [len(part) for part in outlines_from_labels(labels)[1]] == [1, 1]
    ring = np.ones((6, 6), int)
    ring[2, 2] = ring[3, 3] = 0
    area = geometry(outlines_from_labels(ring)[1])
    assert shapely.is_valid(area)
    assert area.area == 34


points = st.tuples(*[st.floats(-3, 12, allow_nan=False).map(lambda value: round(value, 3))] * 2)


@settings(max_examples=200, deadline=None)
@given(ring=st.lists(points, min_size=3, max_size=7, unique=True))
def test_a_pixel_is_inside_where_its_centre_is(ring: list[tuple[float, float]]) -> None:
    """Against a count of the edges left of each centre; centres on an edge may go either way."""
    shape = (8, 10)
    corners = closed(np.array(ring))
    found = labels_from_instances(instances_from_outlines([[[corners]]], shape))
    for y, x in np.ndindex(shape):
        if shapely.LineString(corners).distance(shapely.Point(x + 0.5, y + 0.5)) > 1e-6:
            assert found[y, x] == edges_left_of(x + 0.5, y + 0.5, corners) % 2, (y, x)


def edges_left_of(x: float, y: float, ring: np.ndarray) -> int:
    count = 0
    for (x0, y0), (x1, y1) in pairwise(ring):
        if (y0 <= y) != (y1 <= y):
            count += bool(x0 + (y - y0) * (x1 - x0) / (y1 - y0) < x)
    return count


def test_outlines_far_outside_take_no_memory_and_are_cut() -> None:
    far = 9e8
    wide = [[closed(np.array([(-far, 2), (far, 2), (far, 4), (-far, 4)]))]]
    away = [[closed(np.array([(far, far), (far, far - 5), (far - 5, far)]))]]
    cells = instances_from_outlines([wide, away], (8, 10))
    assert cells.areas.tolist() == [20, 0]
    assert reaches_out(wide, (8, 10))
    assert not reaches_out([[closed(np.array([(0, 0), (10, 0), (10, 8)]))]], (8, 10))


def test_what_has_no_area_has_no_pixel() -> None:
    line = [[closed(np.array([(1, 1), (5, 5)]))]]
    dot = [[closed(np.array([(1.1, 1.1), (1.2, 1.1), (1.2, 1.2)]))]]
    assert instances_from_outlines([line, dot], (8, 8)).areas.tolist() == [0, 0]
    assert len(instances_from_outlines([], (8, 8))) == 0
    assert outlines_from_labels(np.zeros((3, 4), int)) == {}


@pytest.mark.parametrize("size", [512])
def test_many_cells_are_quick(size: int) -> None:
    """115 cells here; 2048 x 2048 with 1,849 take 0.2 s to outlines and 0.8 s back."""
    step = 48
    labels = np.zeros((size, size), np.int32)
    y, x = np.mgrid[-step // 2 : step // 2, -step // 2 : step // 2]
    for number, (top, left) in enumerate(np.ndindex(size // step, size // step), 1):
        place = labels[top * step : (top + 1) * step, left * step : (left + 1) * step]
        place[(y / 20) ** 2 + (x / 14) ** 2 < 1] = number
    before = time.perf_counter()
    back = instances_from_outlines(list(outlines_from_labels(labels).values()), labels.shape)
    assert time.perf_counter() - before < 2
    assert same(back, instances_from_labels(labels))

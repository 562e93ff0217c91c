"""Regions of interest, typed or drawn in QuPath."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellflow.errors import DataError
from cellflow.io.roi import Roi, mask_of, read_roi
from cellflow.types import Box

SHAPE = (60, 80)
RING = [[10.0, 5.0], [70.3, 8.0], [60.0, 50.7], [3.2, 44.0], [10.0, 5.0]]
HOLE = [[20.0, 15.0], [40.0, 15.0], [40.0, 30.0], [20.0, 30.0], [20.0, 15.0]]


def write(path: Path, *geometries: Any, kind: str = "annotation") -> Path:
    features = [
        {
            "type": "Feature",
            "geometry": geometry,
            "properties": {"objectType": kind, "name": f"area {i}"},
        }
        for i, geometry in enumerate(geometries, 1)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def inside(rings: list[Any], x: float, y: float) -> bool:
    """Slow and obvious: whether a ray from a point crosses the rings an odd number of times."""
    crossed = False
    for ring in rings:
        for (x0, y0), (x1, y1) in pairwise(ring):
            if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                crossed = not crossed
    return crossed


def test_a_box_that_was_typed() -> None:
    roi = read_roi(" 3, 4,20,31 ", SHAPE)
    assert roi.box == Box(top=3, bottom=20, left=4, right=31) and roi.boxes == [roi.box]
    expected = np.zeros(SHAPE, bool)
    expected[3:20, 4:31] = True
    assert np.array_equal(mask_of(roi, Box(0, 60, 0, 80)), expected)
    assert mask_of(roi, roi.box).all() and not mask_of(roi, Box(20, 60, 0, 80)).any()
    assert mask_of(roi, Box(5, 5, 0, 4)).shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("3,4,3,31", "a box without pixels"),
        ("20,4,3,31", "a box without pixels.*TOP,LEFT,BOTTOM,RIGHT"),
        ("0,0,61,80", r"leaves the image of 60 x 80 \(height x width\).*a right of at most 80"),
        ("-1,0,6,8", "leaves the image"),
        ("0,0,80,60", "leaves the image"),
        ("3,4,5", r"expected TOP,LEFT,BOTTOM,RIGHT in pixels.* or a GeoJSON file.*no such file"),
        ("nowhere.geojson", "there is no such file"),
    ],
)
def test_boxes_that_are_refused(text: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_roi(text, SHAPE)


def test_annotations_of_qupath(tmp_path: Path) -> None:
    path = write(tmp_path / "a.geojson", polygon(RING, HOLE), polygon(HOLE))
    roi = read_roi(path, SHAPE)
    assert roi.boxes == [Box(5, 51, 3, 71), Box(15, 30, 20, 40)] and roi.box == Box(5, 51, 3, 71)
    alone = Roi(roi.outlines[:1], SHAPE)
    expected = np.array(
        [[inside([RING, HOLE], x + 0.5, y + 0.5) for x in range(80)] for y in range(60)]
    )
    whole = Box(0, 60, 0, 80)
    assert np.array_equal(mask_of(alone, whole), expected)
    expected[15:30, 20:40] = True  # what one leaves out another may take
    assert np.array_equal(mask_of(roi, whole), expected)


points = st.tuples(st.floats(-30, 110, width=32), st.floats(-30, 90, width=32))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(points, min_size=3, max_size=7), min_size=1, max_size=3),
    *[st.integers(0, 60)] * 2,
    *[st.integers(0, 80)] * 2,
)
def test_a_part_of_the_mask_does_not_depend_on_its_box(
    rings: list[Any], top: int, bottom: int, left: int, right: int
) -> None:
    outlines = tuple([[np.rint(np.array([*ring, ring[0]]) * 256) / 256]] for ring in rings)
    roi = Roi(outlines, SHAPE)
    box = Box(min(top, bottom), max(top, bottom), min(left, right), max(left, right))
    whole = mask_of(roi, Box(0, 60, 0, 80))
    assert np.array_equal(mask_of(roi, box), whole[box.slices])
    inner = roi.box.intersection(Box(0, 60, 0, 80))
    assert whole.sum() == mask_of(roi, inner).sum()  # nothing lies outside its box


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30
)
@given(st.floats(0, 90_000), st.floats(0, 90_000))
def test_far_from_the_origin(tmp_path: Path, x: float, y: float) -> None:
    """Blocks of a slide see the same edge."""
    shape = (100_000, 100_000)
    ring = [[x, y], [x + 900.4, y + 333.3], [x + 100.7, y + 1000.1], [x, y]]
    roi = read_roi(write(tmp_path / "a.geojson", polygon(ring)), shape)
    box = roi.box
    whole = mask_of(roi, box)
    row, column = box.top + box.shape[0] // 3, box.left + box.shape[1] // 2
    for part in (
        Box(box.top, row, box.left, column),
        Box(row, box.bottom, box.left, column),
        Box(row, box.bottom, column, box.right),
    ):
        at = (
            slice(part.top - box.top, part.bottom - box.top),
            slice(part.left - box.left, part.right - box.left),
        )
        assert np.array_equal(mask_of(roi, part), whole[at])


def test_pixels_of_another_level(tmp_path: Path) -> None:
    roi = read_roi("8,4,40,60", SHAPE).at((2.0, 4.0), (30, 20))
    assert roi.box == Box(top=4, bottom=20, left=1, right=15) and roi.shape == (30, 20)
    assert mask_of(roi, roi.box).all() and mask_of(roi, Box(0, 30, 0, 20)).sum() == 16 * 14


def test_files_without_areas_of_the_image(tmp_path: Path) -> None:
    far = [[x + 100, y] for x, y in RING]
    path = write(tmp_path / "a.geojson", polygon(RING), polygon(far))
    with pytest.raises(
        DataError, match=r"1 annotation outside the image of 60 x 80 .*area 2.*another scale"
    ):
        read_roi(path, SHAPE)
    path = write(tmp_path / "b.geojson", polygon(RING), polygon(RING), kind="detection")
    with pytest.raises(DataError, match="expected an annotation with an area, found 2 detections"):
        read_roi(path, SHAPE)
    path = write(tmp_path / "c.geojson", {"type": "Point", "coordinates": [1, 2]})
    with pytest.raises(DataError, match="expected an annotation with an area, found 1 point"):
        read_roi(path, SHAPE)
    (tmp_path / "d.geojson").write_text("{")
    with pytest.raises(DataError, match=r"d\.geojson: expected GeoJSON"):
        read_roi(tmp_path / "d.geojson", SHAPE)


def test_an_area_that_leaves_the_image_is_cut(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.geojson", polygon([[-5, -5], [20, -5], [20, 10], [-5, 10], [-5, -5]])
    )
    roi = read_roi(path, SHAPE)
    assert roi.box == Box(0, 10, 0, 20) and mask_of(roi, Box(0, 60, 0, 80)).sum() == 200

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellflow.errors import DataError
from cellflow.io.formats.geojson import read_geojson, write_geojson
from cellflow.io.found_outlines import cells_of
from cellflow.numeric.labels import compact, labels_from_instances

SQUARE = [[1, 1], [5, 1], [5, 5], [1, 5], [1, 1]]
HOLE = [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]


def feature(geometry: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def polygon(*rings: list[list[float]]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def moved(ring: list[list[float]], by: float) -> list[list[float]]:
    return [[x + by, y + by] for x, y in ring]


def save(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def collection(*features: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


def areas(path: Path, shape: tuple[int, int] = (20, 30)) -> list[int]:
    return cells_of(read_geojson(path), shape, path=path, image_id="x").areas.tolist()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(labels=hnp.arrays(np.int32, (7, 9), elements=st.sampled_from([0, 1, 1, 2, 70_000])))
def test_label_maps_survive_and_every_outline_is_valid(tmp_path: Path, labels: np.ndarray) -> None:
    path = tmp_path / "x.geojson"
    write_geojson(path, labels, "x")
    back = cells_of(read_geojson(path), (7, 9), path=path, image_id="x")
    assert np.array_equal(labels_from_instances(back), compact(labels)[0])
    areas = shapely.from_geojson(path.read_text())  # all of it, by another reader
    parts = list(areas.geoms)
    assert all(map(shapely.is_valid, parts))
    assert [part.area for part in parts] == [np.sum(labels == n) for n in np.unique(labels) if n]


def test_what_qupath_reads(tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[2:12, 2:12] = 1
    labels[4:10, 4:10] = 0
    labels[2:5, 20:24] = labels[14:18, 20:22] = 2
    path = tmp_path / "x.geojson"
    measured = {1: {"area": 64.0, "area_um2": float("nan")}, 2: {"confidence": 0.5}}
    write_geojson(path, labels, "x", cell_type="round", measurements=measured)
    content = json.loads(path.read_text())
    assert content["type"] == "FeatureCollection"
    one, two = content["features"]
    assert one["properties"] == {
        "objectType": "detection",
        "name": "1",
        "classification": {"name": "round"},
        "measurements": {"area": 64.0},
    }
    assert (one["geometry"]["type"], two["geometry"]["type"]) == ("Polygon", "MultiPolygon")
    assert [len(ring) for ring in one["geometry"]["coordinates"]] == [5, 5]
    assert uuid.UUID(one["id"]).version == 5
    before = path.read_bytes()
    write_geojson(path, labels, "x", cell_type="round", measurements=measured)
    assert path.read_bytes() == before
    write_geojson(path, labels, "y")
    other = json.loads(path.read_text())["features"]
    assert len({item["id"] for item in (one, two, *other)}) == 4
    assert "classification" not in other[0]["properties"]
    write_geojson(path, np.zeros((3, 3), int), "x")
    assert json.loads(path.read_text())["features"] == []


@pytest.mark.parametrize("wrap", [collection, lambda *all_: list(all_), lambda one: one])
def test_wrappings(tmp_path: Path, wrap: Any) -> None:
    path = save(tmp_path / "x.geojson", wrap(feature(polygon(SQUARE, HOLE))))
    assert areas(path) == [12]


def test_bare_geometry_and_parts(tmp_path: Path) -> None:
    both = {
        "type": "MultiPolygon",
        "coordinates": [[SQUARE, HOLE], [moved(SQUARE, 8)], [moved(SQUARE, 10)]],
    }
    assert areas(save(tmp_path / "x.geojson", both)) == [12 + 16 + 16 - 4]
    several = {"type": "GeometryCollection", "geometries": [polygon(SQUARE), both]}
    assert areas(save(tmp_path / "x.geojson", several)) == [16 + 28]


def test_objects_of_all_versions(tmp_path: Path) -> None:
    cell = feature(polygon(SQUARE), objectType="cell", classification={"name": "Tumor"})
    cell["nucleusGeometry"] = polygon(HOLE)
    old = feature(polygon(moved(SQUARE, 6)), object_type="detection")
    oldest = feature(polygon(moved(SQUARE, 12)), name="mine")
    oldest["id"] = "PathDetectionObject"
    derived = feature(
        polygon(moved(SQUARE, 3)),
        objectType="detection",
        classification={"names": ["Tumor", "Positive"], "color": [1, 2, 3]},
    )  # fmt: skip
    path = save(tmp_path / "x.geojson", collection(cell, old, oldest, derived))
    found = read_geojson(path)
    assert found.types == ["Tumor", "", "", "Tumor: Positive"]
    assert found.names[2] == "mine"
    assert found.left_out == {"nucleus outline": 1}
    assert areas(path) == [16] * 4


def test_what_is_no_cell_is_counted(tmp_path: Path) -> None:
    region = feature(polygon(moved(SQUARE, 0), HOLE), objectType="annotation")
    around = feature(polygon([[0, 0], [20, 0], [20, 20], [0, 20], [0, 0]]), objectType="annotation")
    beside = feature(polygon(moved(SQUARE, 14)), objectType="annotation", name="tumour")
    path = save(
        tmp_path / "x.geojson",
        collection(
            feature(polygon(moved(SQUARE, 7)), objectType="detection", name="found"),
            around,
            beside,
            region,
            feature({"type": "Point", "coordinates": [3, 3]}),
            feature({"type": "MultiPoint", "coordinates": [[3, 3], [4, 4]]}),
            feature({"type": "LineString", "coordinates": [[3, 3], [4, 4]]}),
            feature(polygon(SQUARE), objectType="tile"),
            feature(polygon(SQUARE), objectType="tmaCore"),
            feature(polygon(SQUARE), classification={"name": "Ignore*"}),
            feature(None),
            feature({"type": "Polygon", "coordinates": []}),
        ),
    )
    found = read_geojson(path)
    assert found.left_out == {
        "region annotation": 3,
        "point": 2,
        "line": 1,
        "tile": 1,
        "TMA core": 1,
        "'Ignore*' object": 1,
        "empty object": 2,
    }
    assert found.names == ["found"]
    assert len(found.cells) == 1


def test_annotations_alone_are_cells_even_one_inside_another(tmp_path: Path) -> None:
    path = save(
        tmp_path / "x.geojson",
        collection(feature(polygon(SQUARE)), feature(polygon(HOLE))),
    )
    assert areas(path) == [16, 4]


def test_names_and_classes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "x.geojson"
    item = feature(polygon(SQUARE), name="a\nb\ud800", classification={"name": " T\udfff\x00 "})
    found = read_geojson(save(path, item))
    assert (found.names, found.types) == (["a?b?"], ["T??"])


def test_planes_of_a_stack(tmp_path: Path) -> None:
    on = [polygon(SQUARE) | {"plane": {"c": -1, "z": z, "t": 0}} for z in (2, 3)]
    path = save(tmp_path / "x.geojson", collection(feature(on[0]), feature(on[0])))
    assert areas(path) == [16, 16]
    with pytest.raises(DataError, match=r"several slices.*slice 2 time 0, slice 3 time 0"):
        areas(save(path, collection(*map(feature, on))))


def test_far_outside_is_cut_and_elsewhere_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wide = polygon([[-8e8, 2], [8e8, 2], [8e8, 4], [-8e8, 4], [-8e8, 2]])
    path = save(tmp_path / "x.geojson", collection(feature(wide, name="wide")))
    assert areas(path) == [60]
    assert "1 outline (wide)" in caplog.text
    away = feature(polygon(moved(SQUARE, 500)), name="away")
    with pytest.raises(DataError, match=r"outside the image x of 20 x 30.*away \(x 501 to 505"):
        areas(save(path, collection(away)))
    nowhere = polygon([[0, 0], [1e300, 0], [1e300, 4], [0, 0]])
    with pytest.raises(DataError, match="no place in an image"):
        areas(save(path, collection(feature(nowhere))))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected GeoJSON, found something else"),
        ("[" * 100_000, "expected GeoJSON, found something else"),
        ('{"shapes": [], "version": "5"}', "found an object with 'shapes', 'version'"),
        ("7", "found int"),
        ("[7]", "feature 1: expected a feature, found int"),
        ('[{"type": "Feature", "geometry": {"type": "Curve"}}]', "unknown type 'Curve'"),
        ('[{"type": "Feature", "geometry": {"type": "Polygon"}}]', "coordinates"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [3]]]}', "geometry cannot be read"),
        ('{"type": "Polygon", "coordinates": [[["a", "b"]]]}', "geometry cannot be read"),
        ('{"type": "Polygon", "coordinates": [[[NaN, 1], [2, 2], [1, 2]]]}', "no list of"),
        (f'{{"type": "Polygon", "coordinates": [[[1{"0" * 400}, 1], [2, 2]]]}}', "cannot be read"),
        ('{"type": "Polygon", "coordinates": 5}', "geometry cannot be read"),
        (
            '{"type": "GeometryCollection", "geometries": [' * 300 + "]}" * 300,
            "cannot be read|found something else|outline|point",
        ),
    ],
)
def test_what_is_no_geojson(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.geojson"
    path.write_text(text)
    try:
        found = read_geojson(path)
    except DataError as error:
        assert error.path == path
        with pytest.raises(DataError, match=said):
            read_geojson(path)
    else:
        assert not found.cells and said.endswith("point")

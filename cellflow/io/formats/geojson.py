"""GeoJSON of QuPath (0.2 to 0.6): ``X.geojson`` or ``X.json``, objects with outlines in pixels of the full image."""

from __future__ import annotations

import hashlib
import json
import math
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io._damage import unreadable
from cellflow.io.formats.outline_files import OutlineFiles
from cellflow.io.found_outlines import FoundOutlines, printable
from cellflow.io.shapes import Outline, closed, outlines_from_labels
from cellflow.storage.atomic import write_text

__all__ = [
    "COLLECTION_END",
    "COLLECTION_HEAD",
    "GeoJson",
    "begins_as_geojson",
    "detection",
    "read_geojson",
    "read_regions",
    "write_geojson",
]

COLLECTION_HEAD, COLLECTION_END = '{"type": "FeatureCollection", "features": [\n', "\n]}\n"
"""What stands around the features of a file, which are joined by a comma and a line break."""

_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "cellflow:outlines")
"""Name space of the ids of cells."""
_GEOMETRIES = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon")
_HEAD = 2**16
_GEOJSON = re.compile(
    rb'"type"\s*:\s*"(Feature(Collection)?|(Multi)?Polygon)"|"(images|annotations|categories)"\s*:\s*[\[{]'
)
"""What GeoJSON begins with, and COCO."""
_LARGE, _END = 2**26, 4096
"""Bytes of a file whose end is looked at first, and of that end."""
_CELLS = ("cell", "detection")
_NO_CELLS = {"tile": "tile", "tmacore": "TMA core", "root": "root object"}
"""Objects that are no cells, and what they are called."""
_IGNORED = "*"
"""At the end of a class: QuPath measures nothing in such areas."""


class GeoJson(OutlineFiles):
    """Annotations, detections and cells of QuPath; outlines may overlap.

    The class of the objects is the cell type, see `OutlineFiles`. Of cells the whole cell counts, not the
    nucleus. Where there are detections or cells, annotations are regions, and no cells.
    """

    name = "geojson"
    suffixes: ClassVar[tuple[str, ...]] = (".geojson", ".json")
    folders: ClassVar[tuple[str, ...]] = ("geojson",)
    expected: ClassVar[str] = "{0}.geojson"
    empty: ClassVar[str] = 'with "features": []'

    def is_one(self, path: Path) -> bool:
        """Whether a file is named so, or a ``.json`` begins like one, as QuPath before 0.3 and scripts name it."""
        return path.suffix.lower() == ".geojson" or begins_as_geojson(path)

    def found(self, path: Path) -> FoundOutlines:
        """The objects of a file."""
        return read_geojson(path)


def begins_as_geojson(path: Path) -> bool:
    """Whether a json file is GeoJSON, and not COCO, by what comes first in it."""
    try:
        with path.open("rb") as file:
            found = _GEOJSON.search(file.read(_HEAD))
    except OSError:
        return False
    return found is not None and found.group(1) is not None


@dataclass(frozen=True, eq=False)
class _Object:
    """An object with an area."""

    name: str
    kind: str
    cell_type: str
    outline: Outline


def read_geojson(path: Path) -> FoundOutlines:
    """Read a FeatureCollection, a list of features, one feature or one geometry.

    Points, lines, tiles, cores, objects of an ignored class (``Ignore*``), and annotations in a file with
    detections or cells are counted, and no cells.

    Raises
    ------
    DataError
        If it is no GeoJSON, or an outline in it is none.
    """
    result = FoundOutlines()
    objects = _objects(path, result)
    detected = any(item.kind in _CELLS for item in objects)
    for item in objects:
        if detected and item.kind not in _CELLS:
            result.left_out["region annotation"] += 1
        else:
            result.add(item.name, item.outline, item.cell_type)
    return result


def read_regions(path: Path) -> FoundOutlines:
    """Read the areas of annotations as regions; detections and cells are counted, and no regions.

    Raises
    ------
    DataError
        If it is no GeoJSON, or an outline in it is none.
    """
    result = FoundOutlines()
    for item in _objects(path, result):
        if item.kind in _CELLS:
            result.left_out[item.kind] += 1
        else:
            result.add(item.name, item.outline, item.cell_type)
    return result


def _objects(path: Path, result: FoundOutlines) -> list[_Object]:
    """The objects of a file that have an area; `result` counts the others."""
    objects: list[_Object] = []
    for number, feature in enumerate(_features(path), 1):
        found = _object(path, number, feature, result)
        if isinstance(found, str):
            result.left_out[found] += 1
        else:
            objects.append(found)
    return objects


def write_geojson(
    path: Path,
    labels: NDArray[Any],
    image_id: str,
    *,
    cell_type: str = "",
    measurements: Mapping[int, Mapping[str, float]] | None = None,
) -> None:
    """Write the outline of every cell as a detection, atomically.

    Parameters
    ----------
    path : Path
        File to write.
    labels : (H, W) integer ndarray
    image_id : str
        The image. With number and outline it makes the id of a cell, a UUID: the same cell has the same id
        whenever it is written.
    cell_type : str
        Class of all cells; empty for none.
    measurements : mapping, optional
        By number of the cell what was measured, by name; values that are not finite are left out.
    """
    known = measurements or {}
    lines = ",\n".join(
        detection(number, outline, image_id, cell_type=cell_type, measured=known.get(number))
        for number, outline in outlines_from_labels(labels).items()
    )
    write_text(path, f"{COLLECTION_HEAD}{lines}{COLLECTION_END}")


def detection(
    number: int,
    outline: Outline,
    image_id: str,
    *,
    cell_type: str = "",
    measured: Mapping[str, float] | None = None,
) -> str:
    """The feature of one cell, in one line; parameters as those of `write_geojson`."""
    geometry = _geometry(outline)
    digest = hashlib.sha256(json.dumps(geometry).encode()).hexdigest()
    properties: dict[str, Any] = {"objectType": "detection", "name": str(number)}
    if cell_type:
        properties["classification"] = {"name": cell_type}
    finite = {
        name: float(value) for name, value in (measured or {}).items() if math.isfinite(value)
    }
    if finite:
        properties["measurements"] = finite
    feature = {
        "type": "Feature",
        "id": str(uuid.uuid5(_IDS, f"{image_id}/{number}/{digest}")),
        "geometry": geometry,
        "properties": properties,
    }
    return json.dumps(feature, ensure_ascii=False)


def _geometry(outline: Outline) -> dict[str, Any]:
    parts = [[ring.astype(np.int64).tolist() for ring in part] for part in outline]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def _features(path: Path) -> Iterator[Any]:
    """The features of a file, whatever they are wrapped in."""
    try:
        _refuse_unended(path)
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        text = f"{path}: expected GeoJSON, found something else ({error}). Export it again."
        raise DataError(text, path=path) from error
    kind = content.get("type") if isinstance(content, dict) else None
    if isinstance(content, list):
        return iter(content)
    if kind == "FeatureCollection" and isinstance(content.get("features"), list):
        return iter(content["features"])
    if kind == "Feature":
        return iter([content])
    if kind in (*_GEOMETRIES, "GeometryCollection"):
        return iter([{"type": "Feature", "geometry": content}])
    raise DataError(
        f"{path}: expected GeoJSON (a FeatureCollection, a list of features, or one), found "
        f"{_what_is(content)}. In QuPath: File > Export objects as GeoJSON.",
        path=path,
    )


def _refuse_unended(path: Path) -> None:
    """Refuse a large file that does not end as JSON does, before memory is taken for all of it."""
    size = path.stat().st_size
    if size > _LARGE:
        with path.open("rb") as file:
            file.seek(size - _END)
            if not file.read().rstrip().endswith((b"]", b"}")):
                raise ValueError(f"its {size:,} bytes do not end in a bracket")


def _what_is(content: Any) -> str:
    if isinstance(content, dict):
        return f"an object with {', '.join(map(repr, list(content)[:5])) or 'nothing'}"
    return type(content).__name__


def _object(path: Path, number: int, feature: Any, result: FoundOutlines) -> _Object | str:
    """An object with an area, or what it is instead."""
    where = f"{path}: feature {number}"
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise DataError(f"{where}: expected a feature, found {_what_is(feature)}.", path=path)
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    kind = _kind(feature, properties)
    if kind in _NO_CELLS:
        return _NO_CELLS[kind]
    cell_type = _class_name(properties.get("classification"))
    if cell_type.endswith(_IGNORED):
        return f"{cell_type!r} object"
    geometry = feature.get("geometry")
    if not isinstance(geometry, dict):
        return "empty object"
    try:
        outline = _outline(geometry)
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{where}: the geometry cannot be read ({error}). Expected rings of [x, y] in pixels; export it again.",
            path=path,
        ) from error
    if not outline:
        return "line" if "Line" in str(geometry.get("type")) else "point"
    if not any(len(ring) for part in outline for ring in part):
        return "empty object"
    plane = geometry.get("plane")
    if isinstance(plane, dict):
        result.planes.add(f"slice {plane.get('z', 0)} time {plane.get('t', 0)}")
    else:
        result.planes.add("slice 0 time 0")
    if feature.get("nucleusGeometry"):
        result.left_out["nucleus outline"] += 1
    name = properties.get("name")
    text = str(name) if isinstance(name, (str, int, float)) else str(feature.get("id", number))
    return _Object(text, kind, cell_type, outline)


def _kind(feature: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """What an object is: ``objectType``; before 0.4 ``object_type``, in 0.2 the id (PathCellObject)."""
    legacy = str(feature.get("id", ""))
    found = (
        properties.get("objectType")
        or properties.get("object_type")
        or properties.get("type")
        or (legacy if legacy.startswith("Path") or legacy.startswith("TMA") else "annotation")
    )
    return str(found).lower().replace("_", "").removeprefix("path").removesuffix("object")


def _class_name(classification: Any) -> str:
    """The class of an object, ``Tumor: Positive`` for a derived one."""
    if not isinstance(classification, dict):
        return ""
    names = classification.get("names")
    if isinstance(names, list):
        return printable(": ".join(map(str, names))).strip()
    return printable(str(classification.get("name") or "")).strip()


def _outline(geometry: Mapping[str, Any]) -> Outline:
    """The parts of a geometry; empty for points and lines."""
    kind = geometry["type"]
    if kind == "GeometryCollection":
        return [part for item in geometry["geometries"] for part in _outline(item)]
    if kind in ("Polygon", "MultiPolygon"):
        polygons = [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]
        return [[_ring(points) for points in polygon] for polygon in polygons]
    if kind not in _GEOMETRIES:
        raise ValueError(f"unknown type {kind!r}")
    return []


def _ring(points: Any) -> NDArray[np.float64]:
    array = np.array(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] < 2 or not np.isfinite(array).all():
        raise ValueError("a ring that is no list of [x, y]")
    return closed(array)

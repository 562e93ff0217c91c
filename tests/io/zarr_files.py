"""OME-Zarr images as other programs write them, made here with zarr and JSON alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

Attributes = dict[str, Any]
AXES = {
    "t": {"name": "t", "type": "time"},
    "c": {"name": "c", "type": "channel"},
    **{name: {"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"},
}
PIXEL = {"t": 1.0, "c": 1.0, "z": 2.0, "y": 0.5, "x": 0.25}


def write_group(path: Path, attributes: Attributes, version: str) -> None:
    """A group with attributes of OME-Zarr."""
    path.mkdir(parents=True, exist_ok=True)
    if version == "0.5":
        content = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {"ome": {"version": "0.5", **attributes}},
        }
        (path / "zarr.json").write_text(json.dumps(content))
    else:
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps(attributes))


def multiscales(axes: str, levels: int = 1, **more: Any) -> Attributes:
    """Metadata of an image with square levels."""
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {
                    "type": "scale",
                    "scale": [PIXEL[a] * (2**level if a in "yx" else 1) for a in axes],
                }
            ],
        }
        for level in range(levels)
    ]
    facts = {"axes": [AXES[name] for name in axes], "datasets": datasets, "version": "0.4"}
    return {"multiscales": [facts], **more}


def write_image(
    path: Path,
    pixels: NDArray[Any],
    axes: str = "cyx",
    *,
    version: str = "0.5",
    names: tuple[str, ...] = (),
    labels: dict[str, NDArray[Any]] | None = None,
    levels: int = 2,
    **options: Any,
) -> Path:
    """An image, with label maps by their names."""
    more = {"omero": {"channels": [{"label": name} for name in names]}} if names else {}
    write_group(path, multiscales(axes, levels, **more), version)
    for level in range(levels):
        step = tuple(slice(None, None, 2**level if name in "yx" else 1) for name in axes)
        write_array(path / str(level), pixels[step], version, **options)
    if labels:
        write_group(path / "labels", {"labels": list(labels)}, version)
    for name, label_map in (labels or {}).items():
        place = path / "labels" / name
        facts = multiscales("yx", **{"image-label": {"source": {"image": "../../"}}})
        write_group(place, facts, version)
        sides = {"chunks": options["chunks"][-2:]} if "chunks" in options else {}
        write_array(place / "0", label_map, version, **sides)
    return path


def write_array(path: Path, pixels: NDArray[Any], version: str, **options: Any) -> None:
    form: Any = 3 if version == "0.5" else 2
    options = {"chunks": tuple(min(16, n) for n in pixels.shape)} | options
    array = zarr.create_array(
        str(path), shape=pixels.shape, dtype=pixels.dtype, zarr_format=form, **options
    )
    array[...] = pixels


def write_plate(
    path: Path, pixels: NDArray[Any], wells: tuple[str, ...], version: str, **more: Any
) -> Path:
    """A plate with two fields a well, of which the second is the first upside down."""
    write_group(path, {"plate": {"wells": [{"path": well} for well in wells]}}, version)
    for well in wells:
        fields = {"well": {"images": [{"path": "0"}, {"path": "1"}]}}
        write_group(path / well, fields, version)
        for field, turned in (("0", pixels), ("1", pixels[..., ::-1, :])):
            write_image(path / well / field, np.ascontiguousarray(turned), version=version, **more)
    return path

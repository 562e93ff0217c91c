"""What OME-Zarr 0.5 says of images and label maps, https://ngff.openmicroscopy.org/0.5."""

from __future__ import annotations

from typing import Any

from cellflow.io.pixel_size import PixelSize

__all__ = ["VERSION", "axes_facts", "ome_attributes", "transformations"]

VERSION = "0.5"


def ome_attributes(**facts: Any) -> dict[str, Any]:
    """Attributes of a group."""
    return {"ome": {"version": VERSION, **facts}}


def axes_facts(names: str, pixel_size: PixelSize | None) -> list[dict[str, str]]:
    """Names, kinds and units of axes, of which each has one letter."""
    unit = {} if pixel_size is None else {"unit": "micrometer"}
    return [
        {"name": name, "type": "channel"}
        if name == "c"
        else {"name": name, "type": "space", **unit}
        for name in names
    ]


def transformations(axes: str, pixel: PixelSize, factor: int) -> list[dict[str, Any]]:
    """Size of a pixel of a level, and where the centre of its first one lies in the finest level."""
    sizes = [{"c": 1.0, "y": pixel.height, "x": pixel.width}[name] for name in axes]
    scale = [size * (1 if name == "c" else factor) for name, size in zip(axes, sizes, strict=True)]
    shift = [
        0.0 if name == "c" else size * (factor - 1) / 2
        for name, size in zip(axes, sizes, strict=True)
    ]
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    return steps if factor == 1 else [*steps, {"type": "translation", "translation": shift}]

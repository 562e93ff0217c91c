"""What OME-Zarr 0.5 says of images and label maps, https://ngff.openmicroscopy.org/0.5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellflow.io.pixel_size import PixelSize

VERSION = "0.5"


def ome_attributes(**facts: Any) -> dict[str, Any]:
    """Attributes of a group."""
    return {"ome": {"version": VERSION, **facts}}


def image_attributes(
    name: Mapping[str, str], axes: str, levels: int, pixel_size: PixelSize | None, **facts: Any
) -> dict[str, Any]:
    """Attributes of the group of an image whose levels each have half the sides of the one before."""
    pixel = pixel_size or PixelSize(1, 1)
    datasets = [
        {"path": str(number), "coordinateTransformations": _steps(axes, pixel, 2**number)}
        for number in range(levels)
    ]
    multiscale = {**name, "axes": _axes_facts(axes, pixel_size), "datasets": datasets}
    return ome_attributes(multiscales=[multiscale], **facts)


def _axes_facts(names: str, pixel_size: PixelSize | None) -> list[dict[str, str]]:
    """Names, kinds and units of axes, of which each has one letter."""
    unit = {} if pixel_size is None else {"unit": "micrometer"}
    space = {"type": "space", **unit}
    return [{"name": name, **({"type": "channel"} if name == "c" else space)} for name in names]


def _steps(axes: str, pixel: PixelSize, factor: int) -> list[dict[str, Any]]:
    """Size of a pixel of a level, and where the centre of its first one lies in the finest level."""
    sides = {"y": pixel.height, "x": pixel.width}
    scale = [sides[name] * factor if name in sides else 1.0 for name in axes]
    shift = [sides[name] * (factor - 1) / 2 if name in sides else 0.0 for name in axes]
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    return steps if factor == 1 else [*steps, {"type": "translation", "translation": shift}]

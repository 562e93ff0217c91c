"""A label map as an OME-Zarr image of its own, with smaller levels, written box by box.

The specification is https://ngff.openmicroscopy.org/0.5; viewers take it for labels by ``image-label``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from cellflow.io._ngff import VERSION, image_attributes
from cellflow.io.pixel_size import PixelSize
from cellflow.storage.atomic import naming
from cellflow.types import Box

__all__ = ["LabelPyramid", "create_label_pyramid", "level_shapes"]

_SMALLEST = 512
"""Side at which there is no smaller level, in pixels."""


def level_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Shapes of all levels, finest first: each half of the one before, rounded up, until no side is longer than 512."""
    shapes = [shape]
    while max(shapes[-1]) > _SMALLEST:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes


def create_label_pyramid(
    path: Path,
    shape: tuple[int, int],
    *,
    chunk: int,
    largest: int,
    image: Path | None = None,
    pixel_size: PixelSize | None = None,
) -> LabelPyramid:
    """Make the groups and arrays of a label map; every pixel is background.

    Parameters
    ----------
    path : Path
        Folder; its name should end in .zarr.
    shape : (int, int)
        ``(H, W)`` of the finest level.
    chunk : int
        Side of a chunk in pixels; boxes on this grid are written independently of each other.
    largest : int
        Largest number of a label; the smallest unsigned type that holds it is taken.
    image : Path, optional
        OME-Zarr image that the labels belong to; an image of another kind cannot be named there.
    pixel_size : PixelSize, optional
        Micrometres per pixel.
    """
    shapes = level_shapes(shape)
    name = {"name": path.stem, "type": "nearest"}
    facts: dict[str, Any] = {"version": VERSION}
    if image is not None:
        facts["source"] = {"image": str(image)}
    attributes = image_attributes(name, "yx", len(shapes), pixel_size, **{"image-label": facts})
    with naming(path):
        zarr.create_group(path, attributes=attributes, overwrite=True)
        for number, level in enumerate(shapes):
            zarr.create_array(
                path / str(number),
                shape=level,
                chunks=(chunk, chunk),
                dtype=np.min_scalar_type(largest),
                fill_value=0,
                compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
                dimension_names=["y", "x"],
            )
    return LabelPyramid(path)


class LabelPyramid:
    """A label map that is written and read box by box.

    Parameters
    ----------
    path : Path
        Folder that `create_label_pyramid` has made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrays: dict[int, zarr.Array[Any]] = {}

    def _level(self, level: int) -> zarr.Array[Any]:
        if level not in self._arrays:
            self._arrays[level] = zarr.open_array(self.path / str(level), mode="r+")
        return self._arrays[level]

    def shape(self, level: int) -> tuple[int, int]:
        """``(H, W)`` of a level."""
        height, width = self._level(level).shape
        return height, width

    def read(self, box: Box, level: int = 0) -> NDArray[Any]:
        """Labels of a box."""
        return np.asarray(self._level(level)[box.slices])

    def write(self, box: Box, labels: NDArray[Any], level: int = 0) -> None:
        """Write the labels of a box."""
        array = self._level(level)
        with naming(self.path):
            array[box.slices] = labels.astype(array.dtype, copy=False)

    def remove_leftovers(self) -> None:
        """Remove the parts of chunks that writers have left which were killed; there must be none at work."""
        for path in self.path.rglob("*.partial"):
            path.unlink(missing_ok=True)

    def shrink(self, box: Box, level: int) -> None:
        """Fill a box of a level from the one below it: every second pixel of that."""
        height, width = self.shape(level - 1)
        finer = Box(
            2 * box.top, min(2 * box.bottom, height), 2 * box.left, min(2 * box.right, width)
        )
        self.write(box, self.read(finer, level - 1)[::2, ::2], level)

"""TIFF, OME-TIFF and BigTIFF, read by tiles, strips, or straight from the file where nothing is packed."""

from __future__ import annotations

import math
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellflow.io._damage import damage_told
from cellflow.io._image_header import turned_shape, unturned_box
from cellflow.io._tiff import Plane, open_plane, refuse_cut_off, refuse_swollen_claim
from cellflow.io.large._tiff_parts import Parts, parts_of
from cellflow.io.large.large_image import LargeImage, check_chunk_size, log
from cellflow.io.pixel_size import PixelSize
from cellflow.types import Box

__all__ = ["TiffImage", "open_tiff"]


class TiffImage(LargeImage):
    """A TIFF file that is open: levels in SubIFDs or in pages of their own.

    Which series it is, which axes are channels, palettes, alpha and orientation are those of whole reads.

    Parameters
    ----------
    path : Path
    levels : list of (Plane, Parts)
        Finest first.
    files : ExitStack
        What closes the files; taken over.
    """

    kind: ClassVar[str] = "TIFF"

    def __init__(
        self,
        path: Path,
        levels: list[tuple[Plane, Parts]],
        files: ExitStack,
        *,
        level: int = 0,
        pixel_size: PixelSize | None = None,
    ):
        self._levels = levels
        first = levels[0][0]
        height_width = tuple((plane.shape[0], plane.shape[1]) for plane, _ in levels)
        channels = first.shape[2] if len(first.shape) == 3 else 1
        dtype = np.dtype(np.uint8) if first.indexed else first.series.dtype
        super().__init__(path, height_width, channels, dtype, level=level, pixel_size=pixel_size)
        self._files = files.pop_all()

    def chunk(self, level: int | None = None) -> tuple[int, int]:
        """A tile or strip; 1 x 1 where pixels are not packed."""
        plane, parts = self._levels[self._known(level)]
        return turned_shape(parts.chunk, plane.orientation)

    def _pixels(self, box: Box, level: int) -> NDArray[Any]:
        plane, parts = self._levels[level]
        height, width = plane.stored_shape[:2]
        stored = parts.read(unturned_box(box, plane.orientation, (height, width)))
        return plane.shown(stored)

    def close(self) -> None:
        """Close the files."""
        self._levels = []
        self._files.close()


def open_tiff(
    path: Path, *, level: int = 0, pixel_size: PixelSize | None = None
) -> TiffImage | None:
    """Open a TIFF; None for one that can only be read whole, such as a stack of rows.

    Raises
    ------
    DataError
        As `cellflow.io.images.read_image`, but for its size; and if its tiles or strips are too large.
    """
    image: TiffImage | None = None
    with damage_told(path, TiffImage.kind), ExitStack() as stack:
        plane = stack.enter_context(open_plane(path))
        refuse_cut_off(plane)
        files = tifffile.FileCache(lock=threading.RLock())
        stack.callback(files.clear)
        levels = _levels(path, plane, files)
        if levels:
            image = TiffImage(path, levels, stack, level=level, pixel_size=pixel_size)
    return image


def _levels(path: Path, plane: Plane, files: tifffile.FileCache) -> list[tuple[Plane, Parts]]:
    """All levels with what reads them, of which damaged ones end them; none if it can only be read whole."""
    finest = _checked_parts(path, plane, files)
    if finest is None:
        return []
    found = [(plane, finest)]
    try:
        for item in plane.smaller():
            parts = _checked_parts(path, item, files)
            if parts is None:
                break
            found.append((item, parts))
    except Exception as error:  # damaged files make the library raise nearly every kind of error
        log.warning("%s: level %d and those after it cannot be read (%s)", path, len(found), error)
    return found


def _checked_parts(path: Path, plane: Plane, files: tifffile.FileCache) -> Parts | None:
    """What reads a level, if its tiles or strips can be unpacked."""
    parts = parts_of(plane, files)
    if parts is not None and parts.chunk_shape:
        refuse_swollen_claim(plane, path, parts.chunk_shape)
        size = math.prod(parts.chunk_shape) * plane.series.dtype.itemsize
        check_chunk_size(size, "tiles" if plane.page.is_tiled else "strips")
    return parts

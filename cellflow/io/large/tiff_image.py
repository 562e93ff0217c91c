"""TIFF, OME-TIFF and BigTIFF, read by tiles, strips, or straight from the file where nothing is packed."""

from __future__ import annotations

import math
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellflow.io._damage import damage_told
from cellflow.io._image_header import turned_shape, unturned_box
from cellflow.io._tiff import Plane, open_plane, refuse_cut_off, refuse_swollen_claim
from cellflow.io.large.large_image import LargeImage, check_chunk_size, cut, log, pieces
from cellflow.io.pixel_size import PixelSize
from cellflow.types import Box

__all__ = ["TiffImage", "open_tiff"]

_PAGE_AXES = 5
"""Of the normalised shape of a page: planes of samples, depth, height, width, samples beside each other."""


class Parts(Protocol):
    """Where the pixels of a level are read."""

    chunk: tuple[int, int]
    """Rows and columns that are unpacked at once."""
    chunk_shape: tuple[int, ...]
    """The same with all samples; empty where nothing is unpacked."""

    def read(self, box: Box) -> NDArray[Any]:
        """Pixels ``(h, w)`` or ``(h, w, C)`` of a box as they are stored."""
        ...


def parts_of(plane: Plane, files: tifffile.FileCache) -> Parts | None:
    """How to read parts of a level; None where it can only be read whole."""
    series = plane.series
    if any(len(page.dataoffsets) == 0 for page in series.pages):
        raise ValueError("missing data offset")
    if series.transform is not None:
        return None
    if series.dataoffset is not None and not series.is_multifile:
        return _Mapped(plane)
    page = series.keyframe
    _, depth, height, width, contiguous = page.shaped
    channels = plane.stored_shape[2] if len(plane.order) == 3 else 1
    planes = len(series.pages) * page.shaped[0]
    whole_pages = (depth, height, width) == (1, *plane.stored_shape[:2])
    if len(page.shaped) != _PAGE_AXES or not whole_pages or planes * contiguous != channels:
        return None
    return _Chunks(plane, files)


class _Mapped:
    """Pixels that lie in the file as they do in memory."""

    chunk = (1, 1)
    chunk_shape: tuple[int, ...] = ()

    def __init__(self, plane: Plane):
        series = plane.series
        parent = series.keyframe.parent
        file, dtype = Path(parent.filehandle.path), np.dtype(parent.byteorder + series.dtype.char)
        stored = np.memmap(file, dtype, "r", series.dataoffset, series.shape)
        self._pixels = plane.ordered(stored)

    def read(self, box: Box) -> NDArray[Any]:
        found = self._pixels[box.slices]
        return np.array(found, dtype=found.dtype.newbyteorder("="))


class _Chunks:
    """Tiles or strips, each unpacked as a whole and one at a time."""

    def __init__(self, plane: Plane, files: tifffile.FileCache):
        self._page, self._files = plane.series.keyframe, files
        self._pages = [(page, page.dataoffsets, page.databytecounts) for page in plane.series.pages]
        self._channels = plane.stored_shape[2] if len(plane.order) == 3 else 1
        self._grey = len(plane.order) == 2
        self._decode = self._page.decode
        self.chunk_shape = self._page.chunks
        tiled = self._page.is_tiled
        height, width = plane.stored_shape[:2]
        strip = min(self._page.rowsperstrip, height), width
        self.chunk = (self._page.tilelength, self._page.tilewidth) if tiled else strip
        self._rows, self._columns = (
            -(-length // size) for length, size in zip((height, width), self.chunk, strict=True)
        )

    def read(self, box: Box) -> NDArray[Any]:
        out = np.empty((*box.shape, self._channels), self._page.dtype)
        planes, beside = self._page.shaped[0], self._page.shaped[-1]
        for piece in pieces(box, self.chunk):
            row, column = piece.top // self.chunk[0], piece.left // self.chunk[1]
            corner = Box(row * self.chunk[0], piece.bottom, column * self.chunk[1], piece.right)
            for number in range(len(self._pages) * planes):
                page, plane = divmod(number, planes)
                index = (plane * self._rows + row) * self._columns + column
                found = self._chunk(page, index)
                part = found if found is None else found[(0, *cut(piece, corner))]
                channels = slice(number * beside, (number + 1) * beside)
                out[(*cut(piece, box), channels)] = self._page.nodata if part is None else part
        return out[..., 0] if self._grey else out

    def _chunk(self, number: int, index: int) -> NDArray[Any] | None:
        """A tile or strip ``(1, h, w, samples)``; None for one that is not stored."""
        page, offsets, counts = self._pages[number]
        offset, count = (
            (offsets[index], counts[index]) if index < min(len(offsets), len(counts)) else (0, 0)
        )
        if not offset or not count:
            return None
        data = self._files.read(page.parent.filehandle, offset, count)
        if len(data) < count:
            raise ValueError(f"expected {count:,} bytes at {offset:,}, found {len(data):,}")
        more: dict[str, Any] = {}
        if page.jpegtables is not None:
            more["jpegtables"] = page.jpegtables
        if self._page.jpegheader is not None:
            more["jpegheader"] = self._page.jpegheader
        found: NDArray[Any] | None = self._decode(data, index, **more)[0]
        return found


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
        shapes = [plane.shape for plane, _ in levels]
        dtype = np.dtype(np.uint8) if first.indexed else first.series.dtype
        super().__init__(path, shapes, dtype, level=level, pixel_size=pixel_size)
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

"""Slides of scanners (SVS, NDPI, MRXS, SCN, BIF, VMS, DICOM ...), read by OpenSlide."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError, PackageError
from cellflow.io._damage import damage_told
from cellflow.io.large.large_image import LargeImage, check_chunk_size, cut, pieces
from cellflow.io.pixel_size import PixelSize, sensible_pixel_size
from cellflow.types import Box

__all__ = ["SlideImage"]

_TILE = 512
"""Rows and columns that are read at once, on one grid for all boxes.

The place of a box is told to OpenSlide in whole pixels of the finest level. On a coarser level it may
lie between two pixels, and OpenSlide interpolates; a pixel must not depend on the box that it is read with.
"""
_WHITE = 255


class SlideImage(LargeImage):
    """A slide, as RGB on white: what was not scanned is white.

    At the finest level these are the pixels of the file. Where a coarser level is no whole number of times
    smaller, OpenSlide shifts it by less than half a pixel of the finest level, and interpolates.
    """

    kind: ClassVar[str] = "slide"

    def __init__(self, path: Path, *, level: int = 0, pixel_size: PixelSize | None = None):
        self._library = _openslide()
        self._lock = threading.Lock()
        with damage_told(path, self.kind):
            self._slide = self._open(path)
            sizes = [(height, width, 3) for width, height in self._slide.level_dimensions]
            self._scales = [float(scale) for scale in self._slide.level_downsamples]
            facts = dict(self._slide.properties)
            for number in range(len(sizes)):
                tile = f"openslide.level[{number}].tile"
                sides = [int(facts.get(f"{tile}-{side}", 0)) for side in ("height", "width")]
                check_chunk_size(sides[0] * sides[1] * 4, "tiles")
        self._mpp = facts.get("openslide.mpp-y"), facts.get("openslide.mpp-x")
        super().__init__(path, sizes, np.dtype(np.uint8), level=level, pixel_size=pixel_size)

    def chunk(self, level: int | None = None) -> tuple[int, int]:
        """What is read at once."""
        height, width = self.levels[self._known(level)]
        return min(_TILE, height), min(_TILE, width)

    def factor(self, level: int | None = None) -> tuple[float, float]:
        """As the slide has it."""
        scale = self._scales[self._known(level)]
        return scale, scale

    def _pixels(self, box: Box, level: int) -> NDArray[Any]:
        out = np.empty((*box.shape, 3), np.uint8)
        tile, shape = self.chunk(level), self.levels[level]
        for piece in pieces(box, tile):
            top, left = piece.top - piece.top % tile[0], piece.left - piece.left % tile[1]
            whole = Box(top, min(top + tile[0], shape[0]), left, min(left + tile[1], shape[1]))
            out[cut(piece, box)] = self._tile(whole, level)[cut(piece, whole)]
        return out

    def _tile(self, box: Box, level: int) -> NDArray[np.uint8]:
        scale = self._scales[level]
        place = round(box.left * scale), round(box.top * scale)
        slide = self._slide
        try:
            found = np.asarray(slide.read_region(place, level, box.shape[::-1]))
        except self._library.OpenSlideError:
            self._renew(slide)
            raise
        return _on_white(found)

    def _renew(self, failed: Any) -> None:
        """Open the slide again: after an error OpenSlide reads nothing more, and other boxes may be sound."""
        with self._lock:
            if self._slide is failed:
                self._slide = self._open(self.path)

    def _open(self, path: Path) -> Any:
        try:
            return self._library.OpenSlide(path)
        except self._library.OpenSlideUnsupportedFormatError as error:
            raise DataError(
                f"{path}: OpenSlide does not know this file. If it is a slide, copy all its files again; "
                "if it is a TIFF, let its name end in .tif.",
                path=path,
            ) from error

    def _stored_size(self) -> PixelSize | None:
        return sensible_pixel_size(*self._mpp)

    def channel_names(self) -> tuple[str, ...]:
        """None: the channels are red, green and blue."""
        return ()

    def close(self) -> None:
        """Close the slide."""
        self._slide.close()


def _on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA ``(h, w, 4)`` as RGB on white."""
    alpha = pixels[..., 3:].astype(np.uint16)
    if (alpha == _WHITE).all():
        return pixels[..., :3]
    mixed = pixels[..., :3] * alpha + _WHITE * (_WHITE - alpha)
    return ((mixed + _WHITE // 2) // _WHITE).astype(np.uint8)


def _openslide() -> Any:
    try:
        import openslide
    except (ImportError, OSError) as error:
        raise PackageError(
            "slides need OpenSlide. Install it with: pip install 'cellflow[slides]' (or pip install "
            "openslide-python openslide-bin)."
        ) from error
    return openslide

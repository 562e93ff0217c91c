"""What all images have in common that are read box by box, never whole."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io._damage import check_numbers, damage_told
from cellflow.io.channel_names import read_channel_names
from cellflow.io.pixel_size import PixelSize, read_pixel_size, sensible_pixel_size
from cellflow.types import Box

__all__ = ["LARGEST_CHUNK", "LargeImage", "check_chunk_size", "cut", "pieces", "place_text"]

log = logging.getLogger("cellflow.io.large")

LARGEST_CHUNK = 2**30
"""Bytes of a tile, strip or chunk that is unpacked: each is held in memory as a whole."""


class LargeImage(ABC):
    """An image that is read box by box.

    Reads touch only the tiles, strips or chunks that a box meets, and keep one of them and the box in memory.
    Several threads may read at once. What is read is to the bit what `cellflow.io.images.read_image` gives:
    turned as the file says, without alpha, colours for indices of a palette, channels last.

    Attributes
    ----------
    path : Path
        File or folder.
    levels : tuple of (int, int)
        ``(H, W)`` of all levels, finest first. Each shows the whole image.
    level : int
        That which `shape`, `pixel_size` and, unless it is told another, `read` are about.
    channels : int
        1 for a grey image, of which boxes have the shape ``(h, w)``.
    dtype : np.dtype
        Native; uint8 for images of 1 bit.

    See Also
    --------
    cellflow.io.large.open_large_image
    """

    kind: ClassVar[str] = "image"
    """What it is, for people."""

    def __init__(
        self,
        path: Path,
        shapes: Sequence[tuple[int, ...]],
        dtype: np.dtype[Any],
        *,
        level: int = 0,
        pixel_size: PixelSize | None = None,
    ):
        self.path = Path(path)
        self.levels = tuple((shape[0], shape[1]) for shape in shapes)
        self.channels = shapes[0][2] if len(shapes[0]) == 3 else 1
        self.dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")
        if min(min(shape) for shape in self.levels) < 1:
            text = f"{self.path}: expected one 2D image, found shape {self.levels[0]}."
            raise DataError(text, path=self.path, found=self.levels[0])
        self.level = self._known(level)
        self._given_size = pixel_size
        check_numbers(np.zeros(0, dtype), self.path)

    @property
    def shape(self) -> tuple[int, int]:
        """``(H, W)`` of the level in use."""
        return self.levels[self.level]

    @property
    def box(self) -> Box:
        """The whole level in use."""
        return Box(0, self.shape[0], 0, self.shape[1])

    @abstractmethod
    def chunk(self, level: int | None = None) -> tuple[int, int]:
        """Rows and columns of what is unpacked at once: boxes on this grid are read with the least work."""

    @abstractmethod
    def _pixels(self, box: Box, level: int) -> NDArray[Any]:
        """Pixels of a box that lies inside a level and is not empty; whatever is raised comes through."""

    def read(self, box: Box, level: int | None = None) -> NDArray[Any]:
        """Read a box.

        Parameters
        ----------
        box : Box
            In pixels of the level.
        level : int, optional
            Without it the level in use.

        Returns
        -------
        (h, w) or (h, w, C) ndarray
            In the native dtype; an array of its own.

        Raises
        ------
        DataError
            If the box is not inside the level, there is no such level, the file is damaged there, or the
            box holds values that are not finite.
        """
        level = self._known(level)
        height, width = self.levels[level]
        box = Box(*map(int, box))
        if not (0 <= box.top <= box.bottom <= height and 0 <= box.left <= box.right <= width):
            text = (
                f"{self.path}: {place_text(box)} is not inside level {level}, which has "
                f"{height} x {width} pixels (height x width)."
            )
            raise DataError(text, path=self.path, expected=(height, width), found=box)
        if box.is_empty:
            more = () if self.channels == 1 else (self.channels,)
            return np.zeros((*box.shape, *more), self.dtype)
        place = f"level {level}, {place_text(box)}"
        with damage_told(self.path, self.kind, place):
            pixels = self._pixels(box, level)
            if pixels.ndim == 3 and pixels.shape[2] == 1:
                pixels = pixels[..., 0]
            return np.ascontiguousarray(check_numbers(pixels, self.path, place))

    def factor(self, level: int | None = None) -> tuple[float, float]:
        """Pixels of the finest level along Y and X that make one of a level."""
        shape, finest = self.levels[self._known(level)], self.levels[0]
        ratios = tuple(large / small for large, small in zip(finest, shape, strict=True))
        meant = round(max(ratios))  # the whole number that was meant, where a level was rounded
        rounded = all(
            large // meant <= small <= -(-large // meant)
            for large, small in zip(finest, shape, strict=True)
        )
        return (float(meant), float(meant)) if rounded else (ratios[0], ratios[1])

    def pixel_size(self) -> PixelSize | None:
        """Micrometres per pixel of the level in use; None where they are not known."""
        finest = self._given_size or self._stored_size()
        if finest is None or self.level == 0:
            return finest
        height, width = self.factor()
        return sensible_pixel_size(finest.height * height, finest.width * width)

    def _stored_size(self) -> PixelSize | None:
        """Micrometres per pixel of the finest level, as the file has them."""
        return read_pixel_size(self.path)

    def channel_names(self) -> tuple[str, ...]:
        """Names of all channels, in their order; empty where they are not known."""
        names = read_channel_names(self.path)
        return names if len(names) == self.channels else ()

    def close(self) -> None:
        """Close the files; nothing can be read after that."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        height, width = self.levels[self.level]
        return (
            f"{type(self).__name__}({self.path.name!r}, {height}x{width}, channels={self.channels}, "
            f"{self.dtype}, level {self.level} of {len(self.levels)})"
        )

    def _known(self, level: int | None) -> int:
        """A level that there is; without one that in use."""
        if level is None:
            return self.level
        if not 0 <= level < len(self.levels):
            sizes = ", ".join(f"{i} ({h} x {w})" for i, (h, w) in enumerate(self.levels))
            text = f"{self.path}: there is no level {level}; it has {sizes} (height x width). Name one of these."
            raise DataError(text, path=self.path, expected=len(self.levels), found=level)
        return level


def pieces(box: Box, chunk: tuple[int, int]) -> Iterator[Box]:
    """The parts of a box that lie in one chunk of a grid each, row by row."""
    rows, columns = chunk
    for top in range(box.top - box.top % rows, box.bottom, rows):
        for left in range(box.left - box.left % columns, box.right, columns):
            yield Box(top, top + rows, left, left + columns).intersection(box)


def cut(box: Box, inside: Box) -> tuple[slice, slice]:
    """What cuts a box out of the pixels of another that holds it."""
    return (
        slice(box.top - inside.top, box.bottom - inside.top),
        slice(box.left - inside.left, box.right - inside.left),
    )


def place_text(box: Box) -> str:
    """A box in words."""
    return f"rows {box.top} to {box.bottom}, columns {box.left} to {box.right}"


def check_chunk_size(size: int, what: str) -> None:
    """Refuse an image whose chunks do not go into memory.

    Parameters
    ----------
    size : int
        Bytes of one in memory.
    what : str
        How they are called.

    Raises
    ------
    DataError
        If they are larger than `LARGEST_CHUNK`.
    """
    if size > LARGEST_CHUNK:
        text = (
            f"its {what} claim {size / 2**20:,.0f} MiB each, and each is unpacked whole; at most "
            f"{LARGEST_CHUNK // 2**20:,} MiB are. If the file is not damaged, save it with tiles, such as 512 x 512."
        )
        raise DataError(text, expected=LARGEST_CHUNK, found=size)

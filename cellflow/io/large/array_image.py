"""An image that is in memory, for all formats that can only be read whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from cellflow.io.large.large_image import LargeImage
from cellflow.io.pixel_size import PixelSize
from cellflow.types import Box

__all__ = ["ArrayImage"]


class ArrayImage(LargeImage):
    """Pixels in memory; it has one level.

    Parameters
    ----------
    path : Path
        File that they come from, for messages.
    pixels : (H, W) or (H, W, C) ndarray
        As `cellflow.io.images.read_image` gives them.
    level : int
        Only 0 is there.
    pixel_size : PixelSize, optional
        Micrometres per pixel; without it they are not known.
    channel_names : tuple of str
        Of all channels, or none.
    """

    kind: ClassVar[str] = "image"

    def __init__(
        self,
        path: Path,
        pixels: NDArray[Any],
        *,
        level: int = 0,
        pixel_size: PixelSize | None = None,
        channel_names: tuple[str, ...] = (),
    ):
        super().__init__(path, [pixels.shape], pixels.dtype, level=level, pixel_size=pixel_size)
        self._array, self._names = pixels, channel_names

    def chunk(self, level: int | None = None) -> tuple[int, int]:
        """The whole image."""
        return self.levels[self._known(level)]

    def _pixels(self, box: Box, level: int) -> NDArray[Any]:
        return self._array[box.slices].copy()

    def _stored_size(self) -> PixelSize | None:
        return None

    def channel_names(self) -> tuple[str, ...]:
        """As they were given."""
        return self._names if len(self._names) == self.channels else ()

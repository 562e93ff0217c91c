"""The one grid of tiles that a network sees an image in, and the pixels of some of its tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cellflow.nn.networks import Network
from cellflow.numeric.resize import resize_part, source_box
from cellflow.numeric.tiling import cut_tiles, network_padding, tile_grid, tiled_shape
from cellflow.types import Box

__all__ = ["Grid", "Read", "TilePart"]

Floats = NDArray[np.float32]
Read = Callable[[Box], Floats]
"""Normalised pixels ``(C, h, w)`` of a box of an image; more are 0."""


@dataclass(frozen=True)
class TilePart:
    """Some tiles, neighbours in a grid.

    Attributes
    ----------
    tiles : (N, C, h, w) float32 ndarray
        Row after row.
    origins : (N, 2) int64 ndarray
        Their first pixels, in `area`.
    area : Box
        What they cover of the padded image.
    first : tuple of int
        Number of the first row and column of tiles in the whole grid.
    n_columns : int
        Tiles in a row.
    """

    tiles: Floats
    origins: NDArray[np.int64]
    area: Box
    first: tuple[int, int]
    n_columns: int


@dataclass(frozen=True)
class Grid:
    """Where the tiles of an image lie.

    The image is brought to the network's scale, padded with zeros to its multiple, and tiled with an
    overlap of 0.1, as in ``cellpose.core.run_net``.

    Attributes
    ----------
    shape : tuple of int
        ``(H, W)`` of the image.
    scaled : tuple of int
        ``(H, W)`` of the image at the network's scale.
    before : tuple of int
        Zeros above and left of that.
    full : tuple of int
        ``(H, W)`` of what the tiles cover.
    rows, columns : int64 ndarray
        First pixels of tiles in that.
    sides : tuple of int
        Height and width of a tile.
    augment : bool
        Whether every other tile is flipped.
    channels : int
        Those of a tile.
    """

    shape: tuple[int, int]
    scaled: tuple[int, int]
    before: tuple[int, int]
    full: tuple[int, int]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    sides: tuple[int, int]
    augment: bool
    channels: int

    @classmethod
    def of(
        cls, net: Network, shape: tuple[int, int], rescale: float, augment: bool = False
    ) -> Self:
        """The grid of an image of ``(H, W)``, at ``rescale`` network pixels per image pixel."""
        height, width = shape
        scaled = shape
        if rescale != 1.0:
            scaled = max(1, int(height * rescale)), max(1, int(width * rescale))
        (above, below), (left, right) = (network_padding(side, net.multiple) for side in scaled)
        padded = above + scaled[0] + below, left + scaled[1] + right
        full = tiled_shape(padded, net.tile, augment)
        return cls(
            shape, scaled, (above, left), full, *tile_grid(padded, net.tile, augment=augment),
            (min(net.tile, full[0]), min(net.tile, full[1])), augment, net.channels,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def tiles_of(self, read: Read, box: Box) -> TilePart:
        """The tiles that share pixels with a box of the image at the network's scale."""
        above, left = self.before
        rows = _touching(self.rows, self.sides[0], box.top + above, box.bottom + above)
        columns = _touching(self.columns, self.sides[1], box.left + left, box.right + left)
        return self._cut(read, rows, columns)

    def tile(self, read: Read, row: int, column: int) -> Floats:
        """The tile ``(C, h, w)`` of a row and a column of the grid."""
        tile: Floats = self._cut(read, np.array([row]), np.array([column])).tiles[0]
        return tile

    def _cut(self, read: Read, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> TilePart:
        """Tiles by their numbers in the grid; only pixels that they show are read."""
        tops, lefts = self.rows[rows], self.columns[columns]
        area = Box(
            int(tops[0]), int(tops[-1]) + self.sides[0],
            int(lefts[0]), int(lefts[-1]) + self.sides[1],
        )  # fmt: skip
        first = int(rows[0]), int(columns[0])
        tiles, origins = cut_tiles(
            self._pixels(read, area), tops - area.top, lefts - area.left, self.sides,
            self.augment, first,
        )  # fmt: skip
        return TilePart(tiles, origins, area, first, len(columns))

    def _pixels(self, read: Read, area: Box) -> Floats:
        """A part of the padded image."""
        above, left = self.before
        out = np.zeros((self.channels, *area.shape), np.float32)
        around = Box(area.top - above, area.bottom - above, area.left - left, area.right - left)
        inside = around.intersection(Box(0, self.scaled[0], 0, self.scaled[1]))
        needed = source_box(inside, self.shape, self.scaled)
        part = read(needed)
        if len(part) != self.channels:
            kept = part[: self.channels]
            part = np.zeros((self.channels, *needed.shape), np.float32)
            part[: len(kept)] = kept
        place = Box(
            inside.top - around.top, inside.bottom - around.top,
            inside.left - around.left, inside.right - around.left,
        )  # fmt: skip
        out[:, *place.slices] = resize_part(part, needed, self.shape, self.scaled, inside)
        return out


def _touching(starts: NDArray[np.int64], side: int, first: int, stop: int) -> NDArray[np.int64]:
    """Numbers of the tiles of an axis that share pixels with a range."""
    return np.flatnonzero((starts < stop) & (starts + side > first))

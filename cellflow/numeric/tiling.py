"""Cellpose's grid of overlapping tiles, and the way back.

The network's style vector is pooled per tile, so its output depends on the grid. These functions give
the grid, the tiles, the taper and the average of ``cellpose.core.run_net`` 3.1.1 exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric._blend import blend

__all__ = [
    "average_tiles",
    "cut_tiles",
    "flip_tiles_back",
    "make_tiles",
    "network_padding",
    "pad_for_network",
    "taper",
    "tile_grid",
    "tile_starts",
    "tiled_shape",
]

OVERLAP = 0.1
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_TAPER_WIDTH = 7.5  # pixels, of the sigmoid
_TAPER_EDGE = 20  # pixels from the edge to the middle of the sigmoid


def tile_starts(length: int, tile: int, overlap: float = OVERLAP) -> Ints:
    """First pixels of the tiles along one axis.

    Parameters
    ----------
    length : int
        Pixels along the axis.
    tile : int
        Side of a tile.
    overlap : float
        Part of a tile that overlaps its neighbours at least, 0.05 to 0.5 (clamped to that).

    Returns
    -------
    (n,) int64 ndarray
        Ascending, from 0 to ``length - tile``; a single 0 where one tile covers the axis.
    """
    overlap = min(0.5, max(0.05, overlap))
    count = 1 if length <= tile else int(np.ceil((1.0 + 2 * overlap) * length / tile))
    return np.linspace(0, length - min(tile, length), count).astype(np.int64)


def _flip_starts(length: int, tile: int) -> Ints:
    """As `tile_starts` for flipped tiles: half a tile of overlap, two tiles at least."""
    count = max(2, int(np.ceil(2.0 * length / tile)))
    return np.linspace(0, length - tile, count).astype(np.int64)


def tiled_shape(shape: tuple[int, int], tile: int, augment: bool = False) -> tuple[int, int]:
    """Size of the image that the tiles cover: flipped tiles need at least one full tile."""
    if augment:
        return max(shape[0], tile), max(shape[1], tile)
    return shape


def tile_grid(
    shape: tuple[int, int], tile: int, overlap: float = OVERLAP, augment: bool = False
) -> tuple[Ints, Ints]:
    """Rows and columns at which tiles start.

    Parameters
    ----------
    shape : tuple of int
        ``(H, W)`` of the image.
    tile, overlap
        As in `tile_starts`.
    augment : bool
        Whether neighbouring tiles are flipped (Cellpose's ``--augment``); the overlap is then half a
        tile.
    """
    if augment:
        height, width = tiled_shape(shape, tile, augment)
        return _flip_starts(height, tile), _flip_starts(width, tile)
    return tile_starts(shape[0], tile, overlap), tile_starts(shape[1], tile, overlap)


def make_tiles(
    image: Any, tile: int, overlap: float = OVERLAP, augment: bool = False
) -> tuple[Floats, Ints]:
    """Cut an image into overlapping tiles.

    Parameters
    ----------
    image : (C, H, W) ndarray
        Padded with `pad_for_network` when it goes to the network.
    tile, overlap, augment
        As in `tile_grid`.

    Returns
    -------
    tiles : (N, C, h, w) float32 ndarray
        Row after row of the grid. Sides are `tile`, or the image's where that is smaller (with
        `augment` the image is padded with zeros instead). With `augment`, tiles in odd columns are
        flipped vertically and tiles in odd rows horizontally.
    origins : (N, 2) int64 ndarray
        Row and column of the first pixel of each tile.
    """
    image = np.asarray(image)
    height, width = image.shape[1:]
    rows, columns = tile_grid((height, width), tile, overlap, augment)
    if augment:
        full = tiled_shape((height, width), tile, augment)
        image = np.pad(image, ((0, 0), (0, full[0] - height), (0, full[1] - width)))
    sides = min(tile, image.shape[1]), min(tile, image.shape[2])
    return cut_tiles(image, rows, columns, sides, augment)


def cut_tiles(
    image: Any,
    rows: Ints,
    columns: Ints,
    sides: tuple[int, int],
    augment: bool = False,
    first: tuple[int, int] = (0, 0),
) -> tuple[Floats, Ints]:
    """The tiles of an image that start at some rows and columns.

    Parameters
    ----------
    image : (C, H, W) ndarray
    rows, columns : integer ndarray
        First pixels of the tiles along the two axes.
    sides : tuple of int
        Height and width of a tile.
    augment : bool
        Whether tiles are flipped, as by `make_tiles`.
    first : tuple of int
        Number of the first row and column of tiles in the grid of the whole image, of which these are
        a part.

    Returns
    -------
    tiles, origins
        As from `make_tiles`.
    """
    origins = np.array([(y, x) for y in rows for x in columns], dtype=np.int64)
    tiles = np.empty((len(origins), len(image), *sides), dtype=np.float32)
    for index, (y, x) in enumerate(origins):
        tile = image[:, y : y + sides[0], x : x + sides[1]]
        up, left = _flips(index, len(columns), first) if augment else (1, 1)
        tiles[index] = tile[:, ::up, ::left]
    return tiles, origins


def flip_tiles_back(outputs: Any, n_columns: int, first: tuple[int, int] = (0, 0)) -> Floats:
    """Undo the flips of ``make_tiles(augment=True)`` on the network's outputs.

    Parameters
    ----------
    outputs : (N, C, h, w) ndarray
        Row after row of the grid; C is dY, dX, then anything. dY changes sign under a vertical flip,
        dX under a horizontal one.
    n_columns : int
        Tiles per row of the grid: ``len(tile_grid(shape, tile, augment=True)[1])``.
    first : tuple of int
        As in `cut_tiles`.

    Returns
    -------
    (N, C, h, w) float32 ndarray
    """
    outputs = np.asarray(outputs)
    back = np.empty(outputs.shape, dtype=np.float32)
    for index in range(len(outputs)):
        up, left = _flips(index, n_columns, first)
        back[index] = outputs[index, :, ::up, ::left]
        back[index, 0] *= up
        back[index, 1] *= left
    return back


def _flips(index: int, n_columns: int, first: tuple[int, int]) -> tuple[int, int]:
    """Steps (1 or -1) along rows and columns of a tile's flip."""
    row, column = divmod(index, n_columns)
    return (-1 if (first[1] + column) % 2 else 1), (-1 if (first[0] + row) % 2 else 1)


def taper(height: int, width: int, tile: int) -> NDArray[np.float64]:
    """Weights of the pixels of a tile: 1 in the middle, falling to 0.07 towards the edges.

    As ``cellpose.transforms._taper_mask``: the product of two sigmoids, cut out of the middle of a
    square at least `tile` wide, so tiles of small images are hardly tapered.
    """
    side = max(tile, height, width)
    distance = np.arange(side)
    distance = np.abs(distance - distance.mean())
    weight = 1 / (1 + np.exp((distance - (side / 2 - _TAPER_EDGE)) / _TAPER_WIDTH))
    full = weight * weight[:, np.newaxis]
    top, left = side // 2 - height // 2, side // 2 - width // 2
    return np.asarray(full[top : top + height, left : left + width], dtype=np.float64)


def average_tiles(outputs: Any, origins: Any, shape: tuple[int, int], tile: int) -> Floats:
    """Average overlapping tiles with the weights of `taper`.

    Parameters
    ----------
    outputs : (N, C, h, w) ndarray
        Taken as float32.
    origins : (N, 2) integer ndarray
        From `make_tiles`.
    shape : tuple of int
        ``(H, W)`` of the image that was tiled (`tiled_shape` with flipped tiles; cut the result).
    tile : int
        Side of a tile of a large image.

    Returns
    -------
    (C, H, W) float32 ndarray
    """
    outputs = np.ascontiguousarray(outputs, dtype=np.float32)
    origins = np.ascontiguousarray(origins, dtype=np.int64)
    weight = np.ascontiguousarray(taper(outputs.shape[2], outputs.shape[3], tile))
    mean = np.zeros((outputs.shape[1], *shape), dtype=np.float32)
    blend(outputs, origins, weight, mean, np.zeros(shape, dtype=np.float64))
    return mean


def pad_for_network(image: Any, divisor: int) -> tuple[NDArray[Any], tuple[slice, slice]]:
    """Pad with zeros to sides that are multiples of `divisor`, with half of it more on every side.

    Parameters
    ----------
    image : (C, H, W) ndarray
    divisor : int
        An even number.

    Returns
    -------
    padded : (C, H', W') ndarray
        Of the same dtype.
    (slice_y, slice_x) : tuple of slice
        Where the image lies in it.
    """
    image = np.asarray(image)
    pads, places = [(0, 0)], []
    for length in image.shape[1:]:
        before, after = network_padding(length, divisor)
        pads.append((before, after))
        places.append(slice(before, before + length))
    return np.pad(image, pads), (places[0], places[1])


def network_padding(length: int, divisor: int) -> tuple[int, int]:
    """Zeros before and after an axis of an image, by `pad_for_network`."""
    missing = -length % divisor
    return divisor // 2 + missing // 2, divisor // 2 + missing - missing // 2

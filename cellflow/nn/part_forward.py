"""From a box of an image to its flows, which are those of the whole image to the bit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError, NotFiniteError
from cellflow.nn.grid import Grid, Read
from cellflow.nn.runners import Runner
from cellflow.numeric.resize import resize_part, source_box
from cellflow.numeric.tiling import average_tiles, flip_tiles_back
from cellflow.numeric.tta import Axes, flip_image, unflip_flow
from cellflow.types import Box

__all__ = [
    "NOTHING",
    "KnownTiles",
    "box_outputs",
    "mean_style",
    "part_to_flows",
    "sampled_style",
    "tile_styles",
]

Floats = NDArray[np.float32]

_log = logging.getLogger(__name__)


@dataclass
class KnownTiles:
    """What a network makes of tiles of one value a channel, for later calls with the same runner, batch size and grid.

    Attributes
    ----------
    values : dict
        By the values of a tile and its sides.
    seen, run : int
        Tiles so far, and those of them that the network was run on.
    """

    values: dict[bytes, tuple[Floats, ...]] = field(default_factory=dict)
    seen: int = 0
    run: int = 0


TINY = np.finfo(np.float32).tiny
NOTHING = -1000.0
"""Logit of tiles that are taken for empty: background, whatever the thresholds."""
MAX_OUTPUT = 60000.0
"""Larger flows and logits count as this, so that they fit float16."""


def part_to_flows(
    runner: Runner,
    read: Read,
    shape: tuple[int, int],
    box: Box,
    *,
    rescale: float,
    batch_size: int = 8,
    augment: bool = False,
    axes: Axes = "",
    known: KnownTiles | None = None,
    empty: float = 0.0,
) -> tuple[Floats, Floats]:
    """Run the network on what a box of an image needs: `image_to_flows` of the image, cut to the box.

    Memory and time grow with the box at the network's scale (``box * rescale``), not with the image.

    Parameters
    ----------
    runner : Runner
        The network.
    read : callable
        Gives the pixels ``(C, h, w)`` of a `Box` of the image, float32 and normalised. It is called
        once, for the pixels of all tiles that touch the box.
    shape : tuple of int
        ``(H, W)`` of the image.
    box : Box
        What is wanted: at least one pixel of the image.
    rescale, batch_size, augment
        As in `image_to_flows`.
    axes : {"", "y", "x", "yx"}
        View of the whole image, as in `flip_image`; the flows are turned back.
    known : KnownTiles or None
        Filled with what the network makes of constant tiles (an empty background), for the next call
        with the same runner, `batch_size` and grid.
    empty : float
        Tiles whose normalised values differ by no more than this hold nothing, and the network is not run on
        them. With 0 it is run on all.

    Returns
    -------
    flow : (2, h, w) float32 ndarray
    cellprob : (h, w) float32 ndarray

    Raises
    ------
    NotFiniteError
        If the network's output is not a number.
    """
    grid = Grid.of(runner.net, shape, rescale, augment)
    seen, view = box, read
    if axes:
        seen = _flipped(box, shape, axes)
        view = lambda part: flip_image(read(_flipped(part, shape, axes)), axes)  # noqa: E731
    output, _ = box_outputs(runner, view, grid, seen, batch_size, known, empty)
    return unflip_flow(output[:2], output[2], axes) if axes else (output[:2], output[2])


def box_outputs(
    runner: Runner,
    read: Read,
    grid: Grid,
    box: Box,
    batch_size: int,
    known: KnownTiles | None = None,
    empty: float = 0.0,
) -> tuple[Floats, Floats | None]:
    """Flow and logit ``(3, h, w)`` of a box, and the styles of the tiles that touch it, if there are any."""
    back = source_box(box, grid.scaled, grid.shape)
    part = grid.tiles_of(read, back)
    outputs, *styles = _run(
        lambda tiles: tuple(
            array
            for array in runner.run(tiles, batch_size=batch_size, total=len(grid))
            if array is not None
        ),
        part.tiles,
        KnownTiles() if known is None else known,
        empty,
    )
    if grid.augment:
        outputs = flip_tiles_back(outputs, part.n_columns, part.first)
    if np.isnan(outputs).any():
        raise NotFiniteError("The network's output is not a number. Try --amp off.")
    # After a few steps the batch-norm statistics are far off, and so may be the output; stored flows
    # are float16.
    np.clip(outputs, -MAX_OUTPUT, MAX_OUTPUT, out=outputs)
    mean = average_tiles(outputs, part.origins, part.area.shape, runner.net.tile)
    top, left = grid.before[0] - part.area.top, grid.before[1] - part.area.left
    place = Box(back.top + top, back.bottom + top, back.left + left, back.right + left)
    output = resize_part(mean[:, *place.slices], back, grid.scaled, grid.shape, box)
    return output, styles[0] if styles else None


def sampled_style(
    runner: Runner,
    read: Read,
    shape: tuple[int, int],
    *,
    rescale: float,
    batch_size: int = 8,
    most_tiles: int = 256,
) -> Floats:
    """Style of a large image: `image_to_style` of it, from tiles spread evenly over the image.

    Parameters
    ----------
    runner, read, shape, rescale, batch_size
        As in `part_to_flows`; `read` is called for each tile. Tiles that it cannot read (DataError) are left out.
    most_tiles : int
        Tiles that are looked at, at least 1; where the image has no more, the result is that of
        `image_to_style` to the bit.

    Returns
    -------
    (style_size,) float32 ndarray
        Of length 1, or 0 where the network's features are too large for float32.

    Raises
    ------
    NotFiniteError
        If the network's features are not numbers.
    DataError
        If no tile can be read.
    """
    grid = Grid.of(runner.net, shape, rescale)
    rows, columns = len(grid.rows), len(grid.columns)
    if len(grid) > most_tiles:
        columns = min(columns, max(1, round((most_tiles * columns / rows) ** 0.5)), most_tiles)
        rows = min(rows, most_tiles // columns)
        columns = min(len(grid.columns), most_tiles // rows)
    places = [
        (row, column)
        for row in _spread(len(grid.rows), rows)
        for column in _spread(len(grid.columns), columns)
    ]
    styles: list[Floats] = []
    unread: list[DataError] = []
    known = KnownTiles()
    for start in range(0, len(places), most := 8 * batch_size):
        tiles = []
        for place in places[start : start + most]:
            try:
                tiles.append(grid.tile(read, *place))
            except DataError as error:
                unread.append(error)
        if tiles:
            styles.append(tile_styles(runner, np.stack(tiles), len(grid), batch_size, known))
    if not styles:
        raise unread[0]
    if unread:
        _log.warning("%s The style is found without %d such tiles.", unread[0], len(unread))
    return mean_style(np.concatenate(styles))


def tile_styles(
    runner: Runner,
    tiles: Floats,
    total: int,
    batch_size: int,
    known: KnownTiles | None = None,
) -> Floats:
    """Style of each of some tiles of a grid of `total`.

    Raises
    ------
    NotFiniteError
        If one is not a number.
    """
    (styles,) = _run(
        lambda some: (runner.styles(some, batch_size=batch_size, total=total),),
        tiles,
        KnownTiles() if known is None else known,
    )
    if np.isnan(styles).any():
        raise NotFiniteError("The network's style is not a number. Try --amp off.")
    return styles


def mean_style(styles: Floats) -> Floats:
    """One style of length 1 for an image from those of its tiles, as ``cellpose.core.run_net``."""
    style: Floats = styles.sum(axis=0)
    # Features so large that their squares overflow give a style of 0.
    return style / max(np.linalg.norm(style), TINY)


def _run(
    call: Callable[[Floats], tuple[Floats, ...]],
    tiles: Floats,
    known: KnownTiles,
    empty: float = 0.0,
) -> tuple[Floats, ...]:
    """What a network makes of tiles; of those of one value a channel once, and then from `known`."""
    values = known.values
    constant = (tiles == tiles[:, :, :1, :1]).all(axis=(1, 2, 3))
    nothing = np.zeros(len(tiles), dtype=np.bool_)
    if empty > 0:
        nothing = (tiles.max(axis=(2, 3)) - tiles.min(axis=(2, 3)) <= empty).all(axis=1)
    sides = np.array(tiles.shape[2:]).tobytes()
    keys = [
        tile[:, 0, 0].tobytes() + sides if flat and not hollow else b""
        for tile, flat, hollow in zip(tiles, constant, nothing, strict=True)
    ]
    new = {key: index for index, key in enumerate(keys) if key and key not in values}
    todo = sorted([*np.flatnonzero(~constant & ~nothing).tolist(), *new.values()])
    if not todo and nothing.any():
        todo = [int(np.flatnonzero(nothing)[0])]  # to know of what shape the output is
    known.seen, known.run = known.seen + len(tiles), known.run + len(todo)
    if len(todo) == len(tiles):
        found = call(tiles)
    elif todo:
        some = call(tiles[todo])
        found = tuple(np.empty((len(tiles), *array.shape[1:]), np.float32) for array in some)
        for array, part in zip(found, some, strict=True):
            array[todo] = part
    else:
        found = tuple(np.empty((len(tiles), *array.shape), np.float32) for array in values[keys[0]])
    for key, index in new.items():
        values[key] = tuple(array[index].copy() for array in found)
    for index, key in enumerate(keys):
        if key:
            for array, value in zip(found, values[key], strict=True):
                array[index] = value
    if nothing.any():
        found[0][nothing] = 0
        found[0][nothing, 2] = NOTHING
        for array in found[1:]:
            array[nothing] = 0
    return found


def _flipped(box: Box, shape: tuple[int, int], axes: Axes) -> Box:
    """Where a box of an image of `shape` lies in a view of it, and back."""
    top, bottom, left, right = box
    if "y" in axes:
        top, bottom = shape[0] - bottom, shape[0] - top
    if "x" in axes:
        left, right = shape[1] - right, shape[1] - left
    return Box(top, bottom, left, right)


def _spread(length: int, count: int) -> list[int]:
    """Numbers below `length`, in the middle of `count` equal parts."""
    return [(2 * index + 1) * length // (2 * count) for index in range(count)]

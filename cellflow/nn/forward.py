"""From a normalised image to flows: rescale, tile, run the network, average, scale back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.nn.grid import Grid, Read
from cellflow.nn.part_forward import box_outputs, mean_style, tile_styles
from cellflow.nn.runners import Runner
from cellflow.types import Box

__all__ = ["Flows", "image_to_flows", "image_to_style"]


class Flows(NamedTuple):
    """Network output for one image at its native size.

    `flow` is ``(2, H, W)`` float32, dY then dX, 5 times the unit flow; `cellprob` is the ``(H, W)``
    float32 logit; `style` is the float32 style vector, of length 1; None where
    the network has none.
    """

    flow: NDArray[np.float32]
    cellprob: NDArray[np.float32]
    style: NDArray[np.float32] | None


def image_to_flows(
    runner: Runner,
    image: NDArray[np.float32],
    *,
    rescale: float,
    batch_size: int = 8,
    augment: bool = False,
) -> Flows:
    """Run the network on one image, as ``CellposeModel.eval`` does.

    Parameters
    ----------
    runner : Runner
        The network.
    image : (C, H, W) float32 ndarray
        Normalised image; channels that the network takes besides are 0.
    rescale : float
        Network pixels per image pixel: ``diam_mean / diameter``.
    batch_size : int
        Tiles per network call.
    augment : bool
        Overlap tiles by half and flip every other one, as Cellpose's ``--augment``.

    Notes
    -----
    The grid of ``cellpose.core.run_net``: zero padding to the network's multiple, its tiles with an
    overlap of 0.1, tapered mean. The style is pooled per tile, so another grid would give another output.
    """
    shape = (image.shape[1], image.shape[2])
    grid = Grid.of(runner.net, shape, rescale, augment)
    whole = Box(0, shape[0], 0, shape[1])
    output, styles = box_outputs(runner, _reader(image), grid, whole, batch_size)
    return Flows(output[:2], output[2], None if styles is None else mean_style(styles))


def image_to_style(
    runner: Runner,
    image: NDArray[np.float32],
    *,
    rescale: float,
    batch_size: int = 8,
) -> NDArray[np.float32]:
    """Style of one image: that of `image_to_flows`, for less than half of the time.

    Only what the style takes is computed, on the same tiles.

    Parameters
    ----------
    runner : Runner
        The network.
    image : (C, H, W) float32 ndarray
        Normalised image; channels that the network takes besides are 0.
    rescale : float
        Network pixels per image pixel: ``diam_mean / diameter``.
    batch_size : int
        Tiles per network call.

    Returns
    -------
    (style_size,) float32 ndarray
        Of length 1, or 0 where the network's features are too large for float32.

    Raises
    ------
    NotFiniteError
        If the network's features are not numbers.
    """
    grid = Grid.of(runner.net, (image.shape[1], image.shape[2]), rescale)
    tiles = grid.tiles_of(_reader(image), Box(0, grid.scaled[0], 0, grid.scaled[1])).tiles
    return mean_style(tile_styles(runner, tiles, len(grid), batch_size))


def _reader(image: NDArray[np.float32]) -> Read:
    return lambda box: image[:, *box.slices]

"""From an image to flows: normalise, rescale, tile, run the network, average, scale back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import NotFiniteError
from cellflow.nn.networks import Network
from cellflow.nn.runners import Runner
from cellflow.numeric.resize import resize_linear
from cellflow.numeric.tiling import (
    average_tiles,
    flip_tiles_back,
    make_tiles,
    pad_for_network,
    tile_grid,
    tiled_shape,
)

__all__ = ["Flows", "image_to_flows", "image_to_style"]

TINY = np.finfo(np.float32).tiny
MAX_OUTPUT = 60000.0
"""Larger flows and logits count as this, so that they fit float16."""


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
    net = runner.net
    padded, (rows, columns) = _for_network(net, image, rescale)
    tiles, origins = make_tiles(padded, net.tile, augment=augment)
    outputs, styles = runner.run(tiles, batch_size=batch_size)
    shape = (padded.shape[1], padded.shape[2])
    if augment:
        outputs = flip_tiles_back(outputs, len(tile_grid(shape, net.tile, augment=True)[1]))
    if np.isnan(outputs).any():
        raise NotFiniteError("The network's output is not a number. Try --amp off.")
    # After a few steps the batch-norm statistics are far off, and so may be the output; stored flows
    # are float16.
    np.clip(outputs, -MAX_OUTPUT, MAX_OUTPUT, out=outputs)
    full = tiled_shape(shape, net.tile, augment=augment)
    mean = average_tiles(outputs, origins, full, net.tile)
    output = np.ascontiguousarray(mean[:, rows, columns])
    if rescale != 1.0:
        output = resize_linear(output, (image.shape[1], image.shape[2]))
    return Flows(output[:2], output[2], None if styles is None else _mean_style(styles))


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
    tiles, _ = make_tiles(_for_network(runner.net, image, rescale)[0], runner.net.tile)
    styles = runner.styles(tiles, batch_size=batch_size)
    if np.isnan(styles).any():
        raise NotFiniteError("The network's style is not a number. Try --amp off.")
    return _mean_style(styles)


def _for_network(
    net: Network, image: NDArray[np.float32], rescale: float
) -> tuple[NDArray[np.float32], tuple[slice, slice]]:
    """The image at the network's scale, with its channels and padded, and where it lies in that."""
    if len(image) != net.channels:
        kept = image[: net.channels]
        image = np.zeros((net.channels, *image.shape[1:]), dtype=np.float32)
        image[: len(kept)] = kept
    if rescale != 1.0:
        height, width = image.shape[1:]
        image = resize_linear(image, (max(1, int(height * rescale)), max(1, int(width * rescale))))
    return pad_for_network(image, net.multiple)


def _mean_style(styles: NDArray[np.float32]) -> NDArray[np.float32]:
    """One style of length 1 for an image from those of its tiles, as ``cellpose.core.run_net``."""
    style: NDArray[np.float32] = styles.sum(axis=0)
    # Features so large that their squares overflow give a style of 0.
    return style / max(np.linalg.norm(style), TINY)

"""From an image to flows: normalise, rescale, tile, run the network, average, scale back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cellflow.errors import NotFiniteError
from cellflow.nn.precision import autocast, choose_layout
from cellflow.nn.unet import encode
from cellflow.numeric.normalize import resize_linear
from cellflow.numeric.tiling import (
    average_tiles,
    flip_tiles_back,
    make_tiles,
    pad_for_network,
    tile_grid,
    tiled_shape,
)

__all__ = ["Flows", "image_to_flows", "image_to_style", "run_tiles"]


TINY = np.finfo(np.float32).tiny
MAX_OUTPUT = 60000.0
"""Larger flows and logits count as this, so that they fit float16."""


class Flows(NamedTuple):
    """Network output for one image at its native size.

    `flow` is ``(2, H, W)`` float32, dY then dX, 5 times the unit flow; `cellprob` is the ``(H, W)``
    float32 logit; `style` is the ``(256,)`` float32 style vector, of length 1.
    """

    flow: NDArray[np.float32]
    cellprob: NDArray[np.float32]
    style: NDArray[np.float32]


def image_to_flows(
    net: nn.Module,
    image: NDArray[np.float32],
    *,
    rescale: float,
    batch_size: int = 8,
    amp: torch.dtype | None = None,
    augment: bool = False,
) -> Flows:
    """Run the network on one image, as ``CellposeModel.eval`` does.

    Parameters
    ----------
    net : torch.nn.Module
        In evaluation mode, on its device.
    image : (2, H, W) float32 ndarray
        Normalised image.
    rescale : float
        Network pixels per image pixel: ``diam_mean / diameter``.
    batch_size : int
        Tiles per network call.
    amp : torch.dtype or None
        Type for mixed precision.
    augment : bool
        Overlap tiles by half and flip every other one, as Cellpose's ``--augment``.

    Notes
    -----
    The grid of ``cellpose.core.run_net``: zero padding to multiples of 16, tiles of 224 with an overlap
    of 0.1, tapered mean. The style is pooled per tile, so another grid would give another output.
    """
    padded, (rows, columns) = pad_for_network(_rescale(image, rescale))
    tiles, origins = make_tiles(padded, augment=augment)
    outputs, styles = run_tiles(net, tiles, batch_size=batch_size, amp=amp)
    shape = (padded.shape[1], padded.shape[2])
    if augment:
        outputs = flip_tiles_back(outputs, len(tile_grid(shape, augment=True)[1]))
    if np.isnan(outputs).any():
        raise NotFiniteError("The network's output is not a number. Try --amp off.")
    # After a few steps the batch-norm statistics are far off, and so may be the output; stored flows
    # are float16.
    np.clip(outputs, -MAX_OUTPUT, MAX_OUTPUT, out=outputs)
    mean = average_tiles(outputs, origins, tiled_shape(shape, augment=augment))
    output = np.ascontiguousarray(mean[:, rows, columns])
    if rescale != 1.0:
        output = resize_linear(output, (image.shape[1], image.shape[2]))
    return Flows(output[:2], output[2], _mean_style(styles))


def image_to_style(
    net: nn.Module,
    image: NDArray[np.float32],
    *,
    rescale: float,
    batch_size: int = 8,
    amp: torch.dtype | None = None,
) -> NDArray[np.float32]:
    """Style of one image: that of `image_to_flows`, for less than half of the time.

    Only the way down of the network is computed, on the same tiles.

    Parameters
    ----------
    net : torch.nn.Module
        In evaluation mode, on its device.
    image : (2, H, W) float32 ndarray
        Normalised image.
    rescale : float
        Network pixels per image pixel: ``diam_mean / diameter``.
    batch_size : int
        Tiles per network call.
    amp : torch.dtype or None
        Type for mixed precision.

    Returns
    -------
    (256,) float32 ndarray
        Of length 1, or 0 where the network's features are too large for float32.

    Raises
    ------
    NotFiniteError
        If the network's features are not numbers.
    """
    tiles, _ = make_tiles(pad_for_network(_rescale(image, rescale))[0])

    def run(batch: torch.Tensor) -> tuple[torch.Tensor]:
        return (encode(net, batch),)

    (styles,) = _run_batches(net, run, tiles, batch_size=batch_size, amp=amp)
    if np.isnan(styles).any():
        raise NotFiniteError("The network's style is not a number. Try --amp off.")
    return _mean_style(styles)


def run_tiles(
    net: nn.Module,
    tiles: NDArray[np.float32],
    *,
    batch_size: int = 8,
    amp: torch.dtype | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run the network on tiles.

    Parameters
    ----------
    net : torch.nn.Module
        In evaluation mode, on its device.
    tiles : (N, 2, h, w) float32 ndarray
        Sides divisible by 8.
    batch_size : int
        Tiles per call.
    amp : torch.dtype or None
        Type for mixed precision.

    Returns
    -------
    outputs : (N, 3, h, w) float32 ndarray
        dY, dX, cellprob.
    styles : (N, 256) float32 ndarray
        One style vector per tile.
    """

    def run(batch: torch.Tensor) -> Sequence[torch.Tensor]:
        output, style = net(batch)[:2]
        return output, style

    outputs, styles = _run_batches(net, run, tiles, batch_size=batch_size, amp=amp)
    return outputs, styles


def _run_batches(
    net: nn.Module,
    run: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    tiles: NDArray[np.float32],
    *,
    batch_size: int,
    amp: torch.dtype | None,
) -> list[NDArray[np.float32]]:
    """What `run` makes of the tiles on the network's device, batch by batch: an array per output."""
    device = next(net.parameters()).device
    parts = []
    with torch.inference_mode(), autocast(device, amp):
        for start in range(0, len(tiles), batch_size):
            batch = torch.from_numpy(tiles[start : start + batch_size])
            batch = batch.to(device, memory_format=choose_layout(device))
            parts.append([output.float().cpu().numpy() for output in run(batch)])
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def _rescale(image: NDArray[np.float32], rescale: float) -> NDArray[np.float32]:
    """The image at the network's scale, at least one pixel a side."""
    if rescale == 1.0:
        return image
    height, width = image.shape[1:]
    return resize_linear(image, (max(1, int(height * rescale)), max(1, int(width * rescale))))


def _mean_style(styles: NDArray[np.float32]) -> NDArray[np.float32]:
    """One style of length 1 for an image from those of its tiles, as ``cellpose.core.run_net``."""
    style: NDArray[np.float32] = styles.sum(axis=0)
    # Features so large that their squares overflow give a style of 0.
    return style / max(np.linalg.norm(style), TINY)

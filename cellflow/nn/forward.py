"""From an image to flows: normalise, rescale, tile, run the network, average, scale back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cellflow.errors import NotFiniteError
from cellflow.nn.precision import autocast, choose_layout
from cellflow.numeric.normalize import resize_linear
from cellflow.numeric.tiling import average_tiles, make_tiles, pad_for_network

__all__ = ["Flows", "image_to_flows", "run_tiles"]


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

    Notes
    -----
    The grid of ``cellpose.core.run_net``: zero padding to multiples of 16, tiles of 224 with an overlap
    of 0.1, tapered mean. The style is pooled per tile, so another grid would give another output.
    """
    height, width = image.shape[1:]
    scaled = image
    if rescale != 1.0:
        scaled = resize_linear(image, (max(1, int(height * rescale)), max(1, int(width * rescale))))
    padded, (rows, columns) = pad_for_network(scaled)
    tiles, origins = make_tiles(padded)
    outputs, styles = run_tiles(net, tiles, batch_size=batch_size, amp=amp)
    if np.isnan(outputs).any():
        raise NotFiniteError("The network's output is not a number. Try --amp off.")
    # After a few steps the batch-norm statistics are far off, and so may be the output; stored flows
    # are float16.
    np.clip(outputs, -MAX_OUTPUT, MAX_OUTPUT, out=outputs)
    mean = average_tiles(outputs, origins, (padded.shape[1], padded.shape[2]))
    output = np.ascontiguousarray(mean[:, rows, columns])
    if rescale != 1.0:
        output = resize_linear(output, (height, width))
    style = styles.sum(axis=0)
    # Features so large that their squares overflow give a style of 0.
    return Flows(output[:2], output[2], style / max(np.linalg.norm(style), TINY))


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
    first = next(net.parameters())
    outputs, styles = [], []
    with torch.inference_mode(), autocast(first.device, amp):
        for start in range(0, len(tiles), batch_size):
            batch = torch.from_numpy(tiles[start : start + batch_size])
            batch = batch.to(first.device, memory_format=choose_layout(first.device))
            output, style = net(batch)[:2]
            outputs.append(output.float().cpu().numpy())
            styles.append(style.float().cpu().numpy())
    return np.concatenate(outputs), np.concatenate(styles)

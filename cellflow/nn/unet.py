"""Cellpose's U-Net: the only module that imports cellpose's network."""

from __future__ import annotations

from typing import cast

import torch
from cellpose.resnet_torch import CPnet
from torch import nn

__all__ = [
    "CHANNELS",
    "STYLE_SIZE",
    "build_unet",
    "diameters_of",
    "encode",
    "freeze_encoder",
    "set_diam_labels",
    "set_layout",
    "set_training",
]

CHANNELS = 2
"""Input channels: the channel to segment and an optional nuclear channel."""
STYLE_SIZE = 256
"""Length of the style vector."""

_WIDTHS = (32, 64, 128, 256)
_OUTPUTS = 3


def build_unet(*, diam_mean: float = 30.0, seed: int = 0) -> nn.Module:
    """Cellpose 3's residual U-Net with new weights.

    The forward pass takes ``(N, 2, H, W)`` with sides divisible by 8 and returns the flow and logit
    ``(N, 3, H, W)`` (dY, dX, cellprob; flow 5 times the unit flow), the style ``(N, 256)`` and the
    feature maps of the way down.

    Parameters
    ----------
    diam_mean : float
        Diameter in pixels that cells are rescaled to.
    seed : int
        Seed of the weights; the global generator is left as it was.

    Notes
    -----
    ``cellpose.resnet_torch.CPnet([2, 32, 64, 128, 256], 3, 3)``. Without MKL-DNN layers, because those
    are made in place at the first prediction and cannot be trained afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = CPnet([CHANNELS, *_WIDTHS], _OUTPUTS, 3, mkldnn=False, diam_mean=diam_mean)
    return cast("nn.Module", net)


def diameters_of(net: nn.Module) -> tuple[float, float]:
    """The network's ``diam_mean`` and ``diam_labels`` (mean diameter of its training images), in pixels."""
    mean, labels = cast("torch.Tensor", net.diam_mean), cast("torch.Tensor", net.diam_labels)
    return float(mean.item()), float(labels.item())


def set_diam_labels(net: nn.Module, diameter: float) -> None:
    """Record the mean diameter of the training images in the network, as Cellpose does."""
    cast("torch.Tensor", net.diam_labels).data.fill_(diameter)


def set_layout(net: nn.Module, layout: torch.memory_format) -> None:
    """Lay the weights of the convolutions out in memory; channels-last is faster almost everywhere."""
    for parameter in net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def encode(net: nn.Module, tiles: torch.Tensor) -> torch.Tensor:
    """The style of each tile: the way down of the network and no more.

    Parameters
    ----------
    net : torch.nn.Module
        Made by `build_unet`.
    tiles : (N, 2, H, W) Tensor
        Sides divisible by 8.

    Returns
    -------
    (N, 256) Tensor
        The second output of the forward pass, to the bit: the deepest feature maps, averaged over the
        tile and scaled to length 1, as ``cellpose.resnet_torch.CPnet.forward`` makes it.
    """
    features = cast("nn.Module", net.downsample)(tiles)
    return cast("torch.Tensor", cast("nn.Module", net.make_style)(features[-1]))


def freeze_encoder(net: nn.Module) -> None:
    """Take the way down out of the training; `set_training` then keeps its batch-norm statistics."""
    cast("nn.Module", net.downsample).requires_grad_(False)


def set_training(net: nn.Module) -> None:
    """Training mode, except for a frozen way down."""
    net.train()
    encoder = cast("nn.Module", net.downsample)
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        encoder.eval()

"""Cellpose's U-Net: the only module that imports cellpose's network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self, cast

import torch
from cellpose.resnet_torch import CPnet
from torch import nn

from cellflow.nn.networks.network import Network

__all__ = ["UNet"]

DIAMETER, NUCLEI_DIAMETER = 30.0, 17.0
"""Diameters in pixels of Cellpose's cyto and nuclei models, whose older files do not tell."""

_WIDTHS = (32, 64, 128, 256)
_OUTPUTS, _KERNEL = 3, 3


class UNet(CPnet, Network):  # type: ignore[misc]
    """Cellpose 3's residual U-Net; its third output are the feature maps of the way down.

    Notes
    -----
    ``cellpose.resnet_torch.CPnet([2, 32, 64, 128, 256], 3, 3)``. Without MKL-DNN layers, because those
    are made in place at the first prediction and cannot be trained afterwards.
    """

    kind = "unet"
    title = "cellpose CPnet"
    style_size = _WIDTHS[-1]
    file_keys = ("downsample.down.res_down_0.conv.conv_0.2.weight", "output.2.weight")

    def __init__(self, diam_mean: float = DIAMETER):
        widths = [self.channels, *_WIDTHS]
        CPnet.__init__(self, widths, _OUTPUTS, _KERNEL, mkldnn=False, diam_mean=diam_mean)

    @classmethod
    def load(cls, state: dict[str, Any], path: Path) -> Self:
        """As `Network.load`; a file without diameters gets those of Cellpose's models."""
        diameter = NUCLEI_DIAMETER if path.name.startswith("nuclei") else DIAMETER
        for name in ("diam_mean", "diam_labels"):
            state.setdefault(name, torch.tensor([diameter]))
        return super().load(state, path)

    @property
    def encoder(self) -> nn.Module:
        """The way down."""
        return cast("nn.Module", self.downsample)

    def encode(self, tiles: torch.Tensor) -> torch.Tensor:
        """The way down and no more: the second output of the forward pass, to the bit.

        That is the deepest feature maps, averaged over the tile and scaled to length 1.
        """
        make_style = cast("nn.Module", self.make_style)
        return cast("torch.Tensor", make_style(self.encoder(tiles)[-1]))

"""The layers of Cellpose's U-Net: torch and nothing else, so that this file runs wherever torch does.

Packages of `cellflow export --to bioimageio` hold a copy of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.jit import is_tracing  # type: ignore[attr-defined]

__all__ = ["OUTPUTS", "WIDTHS", "PlainUNet", "WayDown", "WayUp", "activated", "style_of"]

WIDTHS = (32, 64, 128, 256)
"""Feature maps at each level, the finest first."""
OUTPUTS = 3
"""dY, dX, cellprob."""
CONVOLUTIONS = 4
"""Convolutions in a block, in two pairs with a skip over each."""


def activated(inputs: int, outputs: int, size: int = 3) -> nn.Sequential:
    """Batch norm, ReLU, convolution: in this order, so that the skips carry what no ReLU has cut."""
    return nn.Sequential(
        nn.BatchNorm2d(inputs, momentum=0.05),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, size, padding=size // 2),
    )


def _projection(inputs: int, outputs: int) -> nn.Sequential:
    """What brings the input of a block to the number of its feature maps."""
    return nn.Sequential(nn.BatchNorm2d(inputs, momentum=0.05), nn.Conv2d(inputs, outputs, 1))


class _DownBlock(nn.Module):
    """Four convolutions on the way down, with a skip over each pair."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        # Weights are drawn in the order of construction and saved in that of registration; both are
        # Cellpose's, so that a seed gives the same network.
        projection = _projection(inputs, outputs)
        self.conv = nn.Sequential()
        for index in range(CONVOLUTIONS):
            self.conv.add_module(f"conv_{index}", activated(outputs if index else inputs, outputs))
        self.proj = projection

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third, fourth = self.conv
        x = self.proj(x) + second(first(x))
        sum_: torch.Tensor = x + fourth(third(x))
        return sum_


class _Styled(nn.Module):
    """A convolution of features to which a linear map of the style was added."""

    def __init__(self, features: int, style_size: int):
        super().__init__()
        self.conv = activated(features, features)
        self.full = nn.Linear(style_size, features)

    def forward(self, style: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        styled: torch.Tensor = self.conv(x + self.full(style)[:, :, None, None])
        return styled


class _UpBlock(nn.Module):
    """Four convolutions on the way up: the features of the way down join after the first."""

    def __init__(self, inputs: int, outputs: int, style_size: int):
        super().__init__()
        self.conv = nn.Sequential()
        self.conv.add_module("conv_0", activated(inputs, outputs))
        for index in range(1, CONVOLUTIONS):
            self.conv.add_module(f"conv_{index}", _Styled(outputs, style_size))
        self.proj = _projection(inputs, outputs)

    def forward(self, x: torch.Tensor, joined: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        first, second, third, fourth = self.conv
        x = self.proj(x) + second(style, first(x) + joined)
        sum_: torch.Tensor = x + fourth(style, third(style, x))
        return sum_


class WayDown(nn.Module):
    """Features of every level, the finest first; the sides halve from one to the next."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.down = nn.Sequential()
        for level, (inputs, outputs) in enumerate(pairwise(widths)):
            self.down.add_module(f"res_down_{level}", _DownBlock(inputs, outputs))
        self.maxpool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The features of every level of tiles ``(N, channels, H, W)``."""
        features: list[torch.Tensor] = []
        for block in self.down:
            features.append(block(self.maxpool(features[-1]) if features else x))
        return features


class WayUp(nn.Module):
    """From the features of every level and the style to features at the finest."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.upsampling = nn.Upsample(scale_factor=2, mode="nearest")
        self.up = nn.Sequential()
        for level, (outputs, inputs) in enumerate(pairwise([*widths, widths[-1]])):
            self.up.add_module(f"res_up_{level}", _UpBlock(inputs, outputs, widths[-1]))

    def forward(self, style: torch.Tensor, features: list[torch.Tensor]) -> torch.Tensor:
        """The features at the size of the tiles."""
        x = features[-1]
        for level in reversed(range(len(self.up))):
            if level < len(self.up) - 1:
                x = self.upsampling(x)
            x = self.up[level](x, features[level], style)
        return x


def style_of(features: torch.Tensor) -> torch.Tensor:
    """Style of the deepest features: the mean of each feature map, scaled to length 1; 0 / 0 where all are 0."""
    if is_tracing():  # type: ignore[no-untyped-call]  # for tiles of any size
        mean = features.mean(dim=(2, 3))
    else:
        mean = nn.functional.avg_pool2d(features, features.shape[2:]).flatten(1)
    return mean / torch.sum(mean**2, dim=1, keepdim=True) ** 0.5


class PlainUNet(nn.Module):
    """The network with the state dict of a model file, for programs other than cellflow.

    Parameters
    ----------
    channels : int
        Input channels.
    widths : sequence of int
        Feature maps at each level, the finest first.
    """

    def __init__(self, channels: int = 2, widths: Sequence[int] = WIDTHS):
        super().__init__()
        self.diam_mean = nn.Parameter(torch.ones(1), requires_grad=False)
        self.diam_labels = nn.Parameter(torch.ones(1), requires_grad=False)
        self.downsample = WayDown([channels, *widths])
        self.upsample = WayUp(widths)
        self.output = activated(widths[0], OUTPUTS, 1)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Flow and logit ``(N, 3, H, W)`` of tiles ``(N, channels, H, W)``."""
        features = self.downsample(tiles)
        output: torch.Tensor = self.output(self.upsample(style_of(features[-1]), features))
        return output

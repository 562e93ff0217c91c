"""Cellpose's U-Net, written anew: its files load here, and ours there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.jit import is_tracing  # type: ignore[attr-defined]

from cellflow.errors import CheckpointError
from cellflow.nn.networks.network import Network

__all__ = ["UNet"]

DIAMETER, NUCLEI_DIAMETER = 30.0, 17.0
"""Diameters in pixels of Cellpose's cyto and nuclei models, whose older files do not tell."""

WIDTHS = (32, 64, 128, 256)
"""Feature maps at each level, the finest first."""
OUTPUTS = 3
"""dY, dX, cellprob."""
CONVOLUTIONS = 4
"""Convolutions in a block, in two pairs with a skip over each."""
MAX_LEVELS = 5
"""The sides of images are padded to multiples of 16, and halve from level to level."""


def _activated(inputs: int, outputs: int, size: int = 3) -> nn.Sequential:
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
            self.conv.add_module(f"conv_{index}", _activated(outputs if index else inputs, outputs))
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
        self.conv = _activated(features, features)
        self.full = nn.Linear(style_size, features)

    def forward(self, style: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        styled: torch.Tensor = self.conv(x + self.full(style)[:, :, None, None])
        return styled


class _UpBlock(nn.Module):
    """Four convolutions on the way up: the features of the way down join after the first."""

    def __init__(self, inputs: int, outputs: int, style_size: int):
        super().__init__()
        self.conv = nn.Sequential()
        self.conv.add_module("conv_0", _activated(inputs, outputs))
        for index in range(1, CONVOLUTIONS):
            self.conv.add_module(f"conv_{index}", _Styled(outputs, style_size))
        self.proj = _projection(inputs, outputs)

    def forward(self, x: torch.Tensor, joined: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        first, second, third, fourth = self.conv
        x = self.proj(x) + second(style, first(x) + joined)
        sum_: torch.Tensor = x + fourth(style, third(style, x))
        return sum_


class _WayDown(nn.Module):
    """Features of every level, the finest first; the sides halve from one to the next."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.down = nn.Sequential()
        for level, (inputs, outputs) in enumerate(pairwise(widths)):
            self.down.add_module(f"res_down_{level}", _DownBlock(inputs, outputs))
        self.maxpool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features: list[torch.Tensor] = []
        for block in self.down:
            features.append(block(self.maxpool(features[-1]) if features else x))
        return features


class _WayUp(nn.Module):
    """From the features of every level and the style to features at the finest."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.upsampling = nn.Upsample(scale_factor=2, mode="nearest")
        self.up = nn.Sequential()
        for level, (outputs, inputs) in enumerate(pairwise([*widths, widths[-1]])):
            self.up.add_module(f"res_up_{level}", _UpBlock(inputs, outputs, widths[-1]))

    def forward(self, style: torch.Tensor, features: list[torch.Tensor]) -> torch.Tensor:
        x = features[-1]
        for level in reversed(range(len(self.up))):
            if level < len(self.up) - 1:
                x = self.upsampling(x)
            x = self.up[level](x, features[level], style)
        return x


class UNet(Network):
    """Cellpose's residual U-Net (versions 1 to 3); its third output are the features of the way down.

    Parameters
    ----------
    diam_mean : float
        Diameter in pixels that cells are rescaled to.
    channels : int
        Input channels.
    widths : sequence of int
        Feature maps at each level, the finest first; the style has the length of the last.

    Notes
    -----
    Four levels of residual blocks with batch norm before each convolution. The style is the mean of the
    deepest features, scaled to length 1, and is added to the features on the way up, through a linear
    map before each convolution (Stringer, C., et al., Nature Methods 18, 100-106, 2021).
    """

    kind = "unet"
    title = "cellpose CPnet"
    style_size = WIDTHS[-1]
    file_keys = ("output.0.weight", "output.2.weight")

    def __init__(
        self, diam_mean: float = DIAMETER, *, channels: int = 2, widths: Sequence[int] = WIDTHS
    ):
        super().__init__(diam_mean)
        self.channels = channels
        self.style_size = widths[-1]
        self.crop_multiple = 2 ** (len(widths) - 1)
        self.downsample = _WayDown([channels, *widths])
        self.upsample = _WayUp(widths)
        self.output = _activated(widths[0], OUTPUTS, 1)

    def forward(self, tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Flow and logit ``(N, 3, H, W)``, style, and the features of every level on the way down."""
        features = self.downsample(tiles)
        style = _style(features[-1])
        return self.output(self.upsample(style, features)), style, features

    @classmethod
    def load(cls, state: dict[str, Any], path: Path) -> Self:
        """As `Network.load`; a file without diameters gets those of Cellpose's models.

        Raises
        ------
        CheckpointError
            Also if the file is of a network of Cellpose's family that this is not.
        """
        reason = _foreign(state, path.name)
        if reason:
            raise CheckpointError(f"{path}: {reason} cellflow takes Cellpose's U-Nets.", path=path)
        diameter = NUCLEI_DIAMETER if path.name.startswith("nuclei") else DIAMETER
        for name in ("diam_mean", "diam_labels"):
            state.setdefault(name, torch.tensor([diameter]))
        return super().load(state, path)

    @classmethod
    def like(cls, state: dict[str, Any]) -> Self:
        """With the channels and widths of a file."""
        names = (f"downsample.down.res_down_{level}.proj.1.weight" for level in range(MAX_LEVELS))
        shapes = [state[name].shape for name in names if name in state]
        if not shapes or any(len(shape) != 4 for shape in shapes):
            return cls()
        return cls(channels=shapes[0][1], widths=[shape[0] for shape in shapes])

    @property
    def encoder(self) -> nn.Module:
        """The way down."""
        return self.downsample

    def encode(self, tiles: torch.Tensor) -> torch.Tensor:
        """The way down and no more: the second output of the forward pass, to the bit."""
        return _style(self.downsample(tiles)[-1])


def _style(features: torch.Tensor) -> torch.Tensor:
    """Mean of each feature map, scaled to length 1; 0 / 0 where all are 0."""
    if is_tracing():  # type: ignore[no-untyped-call]  # for tiles of any size
        mean = features.mean(dim=(2, 3))
    else:
        mean = nn.functional.avg_pool2d(features, features.shape[2:]).flatten(1)
    return mean / torch.sum(mean**2, dim=1, keepdim=True) ** 0.5


def _foreign(state: dict[str, Any], name: str) -> str | None:
    """Why the weights are of one of Cellpose's relatives and not of its U-Net; None where they may be."""
    shapes = {key: value.shape for key, value in state.items() if torch.is_tensor(value)}
    if any(len(shape) == 5 for shape in shapes.values()):
        return "this network is for volumes (3D convolutions)."
    if any(key.startswith("downsample.down.conv_down_") for key in shapes):
        return "this network has no residual blocks (residual_on off, of Cellpose 1)."
    if "style_off" in name:
        return "this network was trained without the style (style_on off, of Cellpose 1)."
    block = "upsample.up.res_up_0.conv.conv_1"
    full, conv = (shapes.get(f"{block}.{part}.weight", (0,)) for part in ("full", "conv.2"))
    if full[0] == 2 * conv[0] > 0:
        return "this network concatenates features (concatenation on, of Cellpose 1)."
    outputs = shapes.get("output.2.weight", (OUTPUTS,))[0]
    if outputs != OUTPUTS:
        kind = "as in Omnipose" if outputs > OUTPUTS else "as in Cellpose's image restoration"
        return f"expected {OUTPUTS} outputs (dY, dX, cellprob), found {outputs}, {kind}."
    return None

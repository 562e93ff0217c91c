"""Cellpose's U-Net, written anew: its files load here, and ours there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from cellflow.errors import CheckpointError
from cellflow.nn.networks.network import Network
from cellflow.nn.networks.unet_layers import OUTPUTS, WIDTHS, WayDown, WayUp, activated, style_of

__all__ = ["UNet"]

DIAMETER, NUCLEI_DIAMETER = 30.0, 17.0
"""Diameters in pixels of Cellpose's cyto and nuclei models, whose older files do not tell."""

MAX_LEVELS = 5
"""The sides of images are padded to multiples of 16, and halve from level to level."""


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
        self.downsample = WayDown([channels, *widths])
        self.upsample = WayUp(widths)
        self.output = activated(widths[0], OUTPUTS, 1)

    def forward(self, tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Flow and logit ``(N, 3, H, W)``, style, and the features of every level on the way down."""
        features = self.downsample(tiles)
        style = style_of(features[-1])
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
        return style_of(self.downsample(tiles)[-1])


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

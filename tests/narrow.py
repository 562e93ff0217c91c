"""The U-Net with a quarter of its feature maps: what tests train that need a network, not that of Cellpose."""

from __future__ import annotations

from collections.abc import Sequence

from cellflow.nn.networks import UNet

__all__ = ["NARROW", "NarrowUNet"]

NARROW = (8, 16, 32, 64)
"""Feature maps at each level, the finest first."""


class NarrowUNet(UNet):
    """Its files are those of a U-Net, which take their widths with them."""

    style_size = NARROW[-1]

    def __init__(
        self, diam_mean: float = 30.0, *, channels: int = 2, widths: Sequence[int] = NARROW
    ):
        super().__init__(diam_mean, channels=channels, widths=widths)

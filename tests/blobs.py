"""A network that needs no training to see bright spots."""

from __future__ import annotations

import torch
from torch import nn

from cellflow.nn.networks import Network

__all__ = ["Blobs"]


class Blobs(Network):
    """Sees bright spots: its flow is the slope of the smoothed image. It has no style."""

    kind, title = "blobs", "spots"
    channels, tile, multiple = 1, 64, 4

    def __init__(self, diam_mean: float = 12.0, least: float = 0.5):
        super().__init__(diam_mean)
        self.layer = nn.Conv2d(1, 3, 9, padding=4)
        y, x = torch.meshgrid(torch.arange(-4.0, 5), torch.arange(-4.0, 5), indexing="ij")
        bump = torch.exp(-(y**2 + x**2) / 8)
        bump /= bump.sum()
        with torch.no_grad():
            self.layer.weight[:, 0] = torch.stack([60 * y * bump / 4, 60 * x * bump / 4, 20 * bump])
            self.layer.bias[:] = torch.tensor([0.0, 0.0, -20 * least])

    def forward(self, tiles: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.layer(tiles),)

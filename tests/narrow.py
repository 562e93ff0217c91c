"""The U-Net with a quarter of its feature maps: what tests train that need a network, not that of Cellpose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from cellflow.config import TrainConfig
from cellflow.engine.training import start_network
from cellflow.engine.training.fold_result import FoldResult
from cellflow.engine.training.train import train
from cellflow.nn.networks import Network, UNet

__all__ = ["NARROW", "NarrowUNet", "new_networks", "train_narrow"]

NARROW = (8, 16, 32, 64)
"""Feature maps at each level, the finest first."""


class NarrowUNet(UNet):
    """Its files are those of a U-Net, which take their widths with them."""

    style_size = NARROW[-1]

    def __init__(
        self, diam_mean: float = 30.0, *, channels: int = 2, widths: Sequence[int] = NARROW
    ):
        super().__init__(diam_mean, channels=channels, widths=widths)


@contextmanager
def new_networks(network: type[Network]) -> Iterator[None]:
    """Trainings of this process that start from no model file make such networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start_network, "DEFAULT", network)
        yield


def train_narrow(config: TrainConfig) -> list[FoldResult]:
    """Train as the tests of this process do in a process of its own."""
    start_network.DEFAULT = NarrowUNet
    return train(config)

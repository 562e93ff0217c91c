"""A network that needs no training to see bright spots."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from cellflow.config import TrainConfig
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.nn.networks import NETWORKS, Network
from cellflow.storage.run_folder import RunFolder

__all__ = ["Blobs", "seeing_run"]


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


@contextmanager
def seeing_run(
    trained: TrainConfig, runs_dir: Path, least: Sequence[float] = (0.4, 0.5)
) -> Iterator[TrainConfig]:
    """A copy of a run with such networks in the place of those that were trained too shortly to see anything."""
    config = replace(trained, runs_dir=runs_dir)
    shutil.copytree(trained.runs_dir / trained.name, runs_dir / trained.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, Blobs.kind, Blobs)
        for fold, enough in enumerate(least):
            path = RunFolder(runs_dir / config.name).fold(fold).best
            save_model_file(path, Blobs(least=enough), load_model_file(path).facts)
        yield config

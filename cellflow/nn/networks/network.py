"""What cellflow asks of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from cellflow.errors import CheckpointError, ConfigError

__all__ = ["Network"]


class Network(nn.Module):
    """Base class of networks that make flows and logits from an image.

    A subclass says what it is in the attributes below and has a ``forward``, which takes ``(N, channels,
    H, W)`` and returns a tuple: flow and logit ``(N, 3, H, W)`` (dY, dX, cellprob; flow 5 times the
    unit flow), then the style ``(N, style_size)`` where there is one. More may follow.

    Parameters
    ----------
    diam_mean : float
        Diameter in pixels that cells are rescaled to.

    Attributes
    ----------
    kind : str
        Name of the network in the facts of its model files.
    title : str
        Its name in `metadata.json` and in tables.
    channels : int
        Input channels. The first is the channel to segment, the second the nuclear channel; more are 0.
    tile : int
        Side of the tiles that a prediction cuts images into.
    multiple : int
        Images are padded until their sides are multiples of this.
    crop_multiple : int
        Sides of training crops, which are not padded, are multiples of this.
    style_size : int or None
        Length of the style vector; None where there is none, and then cell type and diameter are not
        told from images.
    file_keys : tuple of str
        Keys that tell a file that names no kind; empty where all files do.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    channels: int = 2
    tile: ClassVar[int] = 224
    multiple: ClassVar[int] = 16
    crop_multiple: int = 8
    style_size: int | None = None
    file_keys: ClassVar[tuple[str, ...]] = ()

    diam_mean: nn.Parameter
    diam_labels: nn.Parameter

    def __init__(self, diam_mean: float = 30.0):
        super().__init__()
        self.diam_mean = nn.Parameter(torch.ones(1) * diam_mean, requires_grad=False)
        self.diam_labels = nn.Parameter(torch.ones(1) * diam_mean, requires_grad=False)

    @classmethod
    def build(cls, *, diam_mean: float = 30.0, seed: int = 0) -> Self:
        """The network with new weights; the global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(diam_mean=diam_mean)

    @classmethod
    def like(cls, state: dict[str, Any]) -> Self:
        """An untrained network of the size that a model file's weights have; most have one size."""
        return cls.build()

    @classmethod
    def load(cls, state: dict[str, Any], path: Path) -> Self:
        """The network with the weights of a model file.

        Raises
        ------
        CheckpointError
            If weights are missing, unknown, or of another shape.
        """
        net = cls.like(state)
        wanted = net.state_dict()
        shapes = [
            f"{name}: expected {tuple(wanted[name].shape)}, found {tuple(state[name].shape)}"
            for name in sorted(wanted.keys() & state.keys())
            if wanted[name].shape != state[name].shape
        ]
        differences = {
            "missing": sorted(wanted.keys() - state.keys()),
            "unknown": sorted(state.keys() - wanted.keys()),
            "other shape": shapes,
        }
        if any(differences.values()):
            parts = [
                f"{title}: {', '.join(names[:3])}"
                + (f" and {len(names) - 3} more" if len(names) > 3 else "")
                for title, names in differences.items()
                if names
            ]
            raise CheckpointError(
                f"{path} does not fit the network {cls.title}. {' '.join(parts)}", path=path
            )
        net.load_state_dict(state)
        return net

    @property
    def diameters(self) -> tuple[float, float]:
        """`diam_mean`, and `diam_labels`, the mean diameter of the training images; in pixels."""
        return float(self.diam_mean.item()), float(self.diam_labels.item())

    def set_diam_labels(self, diameter: float) -> None:
        """Keep the mean diameter of the training images in the network, as Cellpose does."""
        self.diam_labels.data.fill_(diameter)

    @property
    def encoder(self) -> nn.Module | None:
        """The part that `freeze_encoder` takes out of the training, if there is one."""
        return None

    def encode(self, tiles: torch.Tensor) -> torch.Tensor:
        """Style ``(N, style_size)`` of tiles: that of the forward pass, for less work where possible."""
        style: torch.Tensor = self(tiles)[1]
        return style

    def freeze_encoder(self) -> None:
        """Take the encoder out of the training; its batch-norm statistics then stay as they are.

        Raises
        ------
        ConfigError
            If the network has none.
        """
        if self.encoder is None:
            raise ConfigError(f"--freeze_encoder: the network {self.title} has no encoder.")
        self.encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Training mode, except for a frozen encoder."""
        super().train(mode)
        encoder = self.encoder
        if encoder is not None and not any(item.requires_grad for item in encoder.parameters()):
            encoder.eval()
        return self

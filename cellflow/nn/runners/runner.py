"""What cellflow asks of an engine that runs a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cellflow.nn.networks import Network

__all__ = ["Engine", "Runner"]

Engine = Literal["torch", "openvino"]


class Runner(ABC):
    """A network in evaluation mode, ready to run on tiles.

    Parameters
    ----------
    net : Network
        On its device. Its weights must not change while the runner is in use.
    amp : torch.dtype or None
        Type for mixed precision; None for float32 throughout.
    """

    engine: ClassVar[Engine]
    alone: ClassVar[bool] = False
    """Whether what comes of a tile is the same, to the bit, however many tiles share its call."""

    def __init__(self, net: Network, amp: torch.dtype | None = None):
        self.net, self.amp = net, amp

    def run(
        self, tiles: NDArray[np.float32], *, batch_size: int = 8, total: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Run the network on tiles.

        Parameters
        ----------
        tiles : (N, C, h, w) float32 ndarray
            With the network's channels; sides are multiples of what it takes.
        batch_size : int
            Tiles per call at most.
        total : int or None
            Tiles of the image, where these are some of them; all calls for one image have the same
            number of tiles, so that it does not matter which tiles are run together.

        Returns
        -------
        outputs : (N, 3, h, w) float32 ndarray
            dY, dX, cellprob.
        styles : (N, style_size) float32 ndarray or None
            One style vector per tile, where the network has styles.
        """
        outputs, *styles = self._batches(self._forward, tiles, batch_size, total)
        return outputs, styles[0] if styles else None

    def styles(
        self, tiles: NDArray[np.float32], *, batch_size: int = 8, total: int | None = None
    ) -> NDArray[np.float32]:
        """Style ``(N, style_size)`` of each tile: those of `run`, for less work where possible."""
        return self._batches(self._encode, tiles, batch_size, total)[0]

    @abstractmethod
    def prepare(self) -> None:
        """Do now what the first call of `run` would do first, and once."""

    @abstractmethod
    def _forward(self, batch: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        """Outputs, then styles where there are any."""

    @abstractmethod
    def _encode(self, batch: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        """Styles."""

    def _batches(
        self,
        call: Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]],
        tiles: NDArray[np.float32],
        batch_size: int,
        total: int | None,
    ) -> list[NDArray[np.float32]]:
        size = batch_size
        if not self.alone:
            of_all = total or len(tiles)
            size = -(-of_all // -(-of_all // batch_size))
        parts = []
        for start in range(0, len(tiles), size):
            batch = tiles[start : start + size]
            missing = 0 if self.alone else size - len(batch)
            if missing:  # BLAS and cuDNN choose their ways by the size of a batch
                batch = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
            parts.append(call(batch))
        return [np.concatenate(arrays)[: len(tiles)] for arrays in zip(*parts, strict=True)]

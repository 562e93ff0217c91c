"""Networks run by torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from cellflow.nn.precision import autocast, choose_layout
from cellflow.nn.runners.runner import Runner

__all__ = ["TorchRunner"]


class TorchRunner(Runner):
    """The reference: the network as it is, in torch, on any device."""

    engine = "torch"

    def prepare(self) -> None:
        """Nothing: it is ready."""

    def _forward(self, batch: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        count = 1 if self.net.style_size is None else 2
        return self._call(lambda tensor: self.net(tensor)[:count], batch)

    def _encode(self, batch: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        return self._call(lambda tensor: (self.net.encode(tensor),), batch)

    def _call(
        self, call: Callable[[torch.Tensor], Sequence[torch.Tensor]], batch: NDArray[np.float32]
    ) -> Sequence[NDArray[np.float32]]:
        device = next(self.net.parameters()).device
        with torch.inference_mode(), autocast(device, self.amp):
            tensor = torch.from_numpy(batch).to(device, memory_format=choose_layout(device))
            return [output.float().cpu().numpy() for output in call(tensor)]

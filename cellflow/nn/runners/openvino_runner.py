"""Networks run by OpenVINO, Intel's engine for x86 processors; it and `conversions` import it."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cellflow.nn.networks import Network
from cellflow.nn.runners.conversions import converted, core
from cellflow.nn.runners.runner import Runner

__all__ = ["OpenVinoRunner"]

SIDE = 32
"""Side of the tile that a network is traced with; it then takes tiles of any size."""
_TELEMETRY = "openvino_telemetry"
_converting = threading.Lock()  # the table of modules is one for all threads


class OpenVinoRunner(Runner):
    """A network converted to OpenVINO: batch norm folded, weights cast once, fused for the processor.

    Converted at the first call, unless that was done before and kept (`conversions`). Calls from several
    threads wait for each other. It takes as many threads as torch does (``--threads``,
    ``OMP_NUM_THREADS``), and does not pin them to cores: two processes would pin theirs to the same ones.
    """

    engine = "openvino"
    alone = True

    def __init__(self, net: Network, amp: torch.dtype | None = None, *, keep: bool = False):
        super().__init__(net, amp)
        self._keep, self._lock = keep, threading.Lock()

    def prepare(self) -> None:
        """Convert the network."""
        with self._lock:
            self._forward_model  # noqa: B018

    @cached_property
    def _forward_model(self) -> Any:
        return self._compile(_Forward(self.net))

    @cached_property
    def _encode_model(self) -> Any:
        return self._compile(_Encode(self.net))

    def _compile(self, module: nn.Module) -> Any:
        with _without_telemetry():
            convert = partial(_convert, module, self.net.channels)
            model = converted(self.net, type(module).__name__, convert, self._keep)
        settings = {
            "INFERENCE_PRECISION_HINT": "f32" if self.amp is None else "bf16",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        return core().compile_model(model, "CPU", settings)

    def _forward(self, batch: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        with self._lock:
            return list(self._forward_model(np.ascontiguousarray(batch)).values())

    def _encode(self, batch: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        with self._lock:
            return list(self._encode_model(np.ascontiguousarray(batch)).values())


class _Forward(nn.Module):
    """The outputs that a prediction needs, and no more."""

    def __init__(self, net: Network):
        super().__init__()
        self.net = net

    def forward(self, tiles: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs: tuple[torch.Tensor, ...] = self.net(tiles)
        return outputs[:1] if self.net.style_size is None else outputs[:2]


class _Encode(_Forward):
    """The style alone."""

    def forward(self, tiles: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.net.encode(tiles),)


def _convert(module: nn.Module, channels: int) -> Any:
    """The module as an OpenVINO model for batches of tiles of any number and size."""
    import openvino

    with warnings.catch_warnings(), torch.no_grad():
        # Of fixed sizes and branches: `SIDE` is no constant in what is traced (tested).
        warnings.simplefilter("ignore")
        tiles = torch.zeros(1, channels, SIDE, SIDE)
        traced = torch.jit.trace(module, tiles, check_trace=False)  # type: ignore[no-untyped-call]
        return openvino.convert_model(traced, input=[(-1, channels, -1, -1)])


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """OpenVINO's converter reports its use to its makers unless this package is missing; here it is."""
    with _converting:
        before = sys.modules.get(_TELEMETRY)
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            if before is None:
                del sys.modules[_TELEMETRY]
            else:
                sys.modules[_TELEMETRY] = before

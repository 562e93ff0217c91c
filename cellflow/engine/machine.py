"""Where and how to compute: device, mixed precision, threads, workers."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from cellflow.config import RuntimeConfig
from cellflow.nn.precision import choose_amp, choose_device

__all__ = ["Machine", "choose_machine"]

MAX_GPU_WORKERS = 8


@dataclass(frozen=True)
class Machine:
    """Where and how to compute."""

    device: torch.device
    amp: torch.dtype | None
    workers: int

    def describe(self) -> dict[str, str | int]:
        """What decides whether a resumed training is bit for bit the same."""
        amp = str(self.amp).removeprefix("torch.")
        return {"device": self.device.type, "amp": amp, "threads": torch.get_num_threads()}


def choose_machine(runtime: RuntimeConfig) -> Machine:
    """Device, mixed precision and workers for a runtime config; sets torch's number of threads."""
    device = choose_device(runtime.device)
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    workers = runtime.workers
    if workers is None:
        workers = 0 if device.type == "cpu" else min(MAX_GPU_WORKERS, os.cpu_count() or 1)
    return Machine(device, choose_amp(runtime.amp, device), workers)

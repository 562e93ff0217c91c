"""Where and how to compute: device, mixed precision, threads, workers, processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cellflow.config import RuntimeConfig
from cellflow.environment import take_snapshot
from cellflow.nn.precision import choose_amp, choose_device
from cellflow.nn.ranks import ALONE, Ranks, ranks_asked

__all__ = ["Machine", "choose_machine"]

MAX_GPU_WORKERS = 8


@dataclass(frozen=True)
class Machine:
    """Where and how to compute."""

    device: torch.device
    amp: torch.dtype | None
    workers: int
    ranks: Ranks = ALONE

    def describe(self) -> dict[str, str | int]:
        """What decides whether a resumed training is bit for bit the same."""
        return {
            "device": self.device.type,
            "amp": str(self.amp).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "processes": self.ranks.world,
        }


def choose_machine(runtime: RuntimeConfig) -> Machine:
    """Device, mixed precision and workers for a runtime config; sets torch's number of threads."""
    device = choose_device(runtime.device)
    world, local = ranks_asked()
    if world > 1 and device.type == "cuda":
        device = choose_device(f"cuda:{local}")
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    workers = runtime.workers
    if workers is None:
        share = max(1, take_snapshot(quick=True).usable_cores // world)
        workers = 0 if device.type == "cpu" else min(MAX_GPU_WORKERS, share)
    return Machine(device, choose_amp(runtime.amp, device), workers)

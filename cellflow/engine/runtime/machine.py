"""Where and how to compute: device, mixed precision, engine, threads, workers, processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cellflow.config import RuntimeConfig
from cellflow.environment import take_snapshot
from cellflow.nn.networks import Network
from cellflow.nn.precision import choose_amp, choose_device
from cellflow.nn.ranks import ALONE, Ranks, ranks_asked
from cellflow.nn.runners import Engine, Runner, choose_engine, make_runner

__all__ = ["Machine", "choose_machine"]

MAX_GPU_WORKERS = 8
MANY_IMAGES = 12
"""From so many images on, the time that an engine needs to take over a network is won back."""


@dataclass(frozen=True)
class Machine:
    """Where and how to compute."""

    device: torch.device
    amp: torch.dtype | None = None
    """Type for mixed precision; None for float32 throughout."""
    workers: int = 0
    """Processes that prepare crops."""
    ranks: Ranks = ALONE
    """The processes that share a fold."""
    engine: Engine = "torch"
    """What runs networks for predictions; torch trains them."""

    def runner(self, net: Network, *, images: int | None = None) -> Runner:
        """A network in evaluation mode on this machine's device, ready to predict.

        `images` are all that it will see, where it will change then: for a few torch is at work sooner.
        """
        few = images is not None and images < MANY_IMAGES
        engine = "torch" if few else self.engine
        return make_runner(net, engine=engine, amp=self.amp, keep=images is None)

    def describe(self) -> dict[str, str | int]:
        """What decides whether a resumed training is bit for bit the same."""
        return {
            "device": self.device.type,
            "amp": str(self.amp).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "processes": self.ranks.world,
            "engine": self.engine,
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
    engine = choose_engine(runtime.engine, device)
    return Machine(device, choose_amp(runtime.amp, device), workers, engine=engine)

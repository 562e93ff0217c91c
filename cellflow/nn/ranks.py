"""Several processes that train one network together, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["ALONE", "Ranks", "join_ranks", "ranks_asked"]

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others, such as for one that evaluates many images."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """A process among those that train together; alone unless torchrun started it.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    world : int
        Number of processes.
    device : torch.device
        Where tensors lie that are exchanged.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Sum of each value over all processes."""
        if self.world == 1:
            return list(values)
        # Double precision is not there on every device; a count is exact in float32 up to 16 million.
        tensor = torch.tensor(values, dtype=torch.float32, device=self.device)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def gather(self, items: list[Item]) -> list[Item]:
        """Items of all processes, those of the first one first."""
        if self.world == 1:
            return items
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def wait(self) -> None:
        """Wait until all processes have come here."""
        self.sums([0.0])

    def wrap(self, net: nn.Module) -> nn.Module:
        """The network as it is called in training: gradients are averaged over the processes."""
        if self.world == 1:
            return net
        index = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(net, device_ids=index)


ALONE = Ranks()


def ranks_asked() -> tuple[int, int]:
    """Number of processes that torchrun started, and this one's number on its machine."""
    return int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def join_ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that torchrun started; a process by itself is alone.

    Parameters
    ----------
    device : torch.device
        Device of this process. Processes with GPUs talk through NCCL, others through gloo.
    """
    world, _ = ranks_asked()
    if world == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), world, device)
    finally:
        dist.destroy_process_group()

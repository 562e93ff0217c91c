"""What was found on a machine, as plain data."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Gpu", "Snapshot"]


@dataclass(frozen=True)
class Gpu:
    """One GPU that torch can use. `memory` in bytes."""

    name: str
    memory: int | None = None
    capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class Snapshot:
    """What was found on a machine: plain data, the same after a way through JSON.

    Attributes
    ----------
    folder : str
        Working folder, absolute.
    variables : dict
        Environment variables of `VARIABLES` that are set; one that is set to nothing is there as well.
    paths : tuple of str
        Telling paths that exist.
    datasets : tuple of str
        Prepared datasets in the usual places.
    free_disk : dict
        Free bytes by folder.
    cpu_count, affinity, cgroup_cpus
        Cores of the machine, those this process may use, and the quota of its container.
    memory, cgroup_memory
        Bytes of the machine and the limit of its container.
    gpus, driver_gpus, mps
        GPUs that torch can use; names of those the driver knows; whether Apple's GPU can be used.
    versions : dict
        Versions of what decides about results.
    commit, dirty
        Git commit of cellflow's checkout, None where it is installed; whether files differ from it.
    """

    folder: str = "."
    variables: dict[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    free_disk: dict[str, int] = field(default_factory=dict)
    cpu_count: int = 1
    affinity: int | None = None
    cgroup_cpus: float | None = None
    memory: int | None = None
    cgroup_memory: int | None = None
    cpu: str = ""
    cpu_flags: tuple[str, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    driver_gpus: tuple[str, ...] = ()
    mps: bool = False
    platform: str = ""
    python: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    dirty: bool = False
    hostname: str = ""

    @property
    def usable_cores(self) -> int:
        """Cores this process may use: the smallest of machine, affinity, container and Slurm's grant."""
        limits = [self.cpu_count, self.affinity, self.cgroup_cpus, self._slurm("CPUS_PER_TASK")]
        return max(1, math.floor(min(limit for limit in limits if limit)))

    @property
    def usable_memory(self) -> int | None:
        """Bytes this process may use, as far as known."""
        granted = self._slurm("MEM_PER_NODE")  # megabytes; 0 means all
        limits = [self.memory, self.cgroup_memory, granted and granted * 2**20]
        return min((limit for limit in limits if limit), default=None)

    def _slurm(self, name: str) -> int | None:
        value = self.variables.get(f"SLURM_{name}", "")
        return int(value) if value.isdecimal() and "SLURM_JOB_ID" in self.variables else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return dict(json.loads(json.dumps(asdict(self))))

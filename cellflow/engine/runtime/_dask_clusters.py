"""Dask clusters: one of processes of this machine, one that runs already, one of Slurm's jobs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from typing import Any

import dask
from distributed import Client, LocalCluster, Nanny

from cellflow.engine.runtime._dask import DaskScheduler
from cellflow.environment import take_snapshot
from cellflow.errors import CellflowError

__all__ = ["local_workers", "running_cluster", "slurm_workers"]

CONNECT_SECONDS = 15.0
THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "CELLFLOW_THREADS",
)  # fmt: skip
"""Variables that say how many threads the libraries of a process start."""
LOCAL = {
    # A worker that holds a model stays above these marks for good: it would spill and pause for ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}

QUIET = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""What workers run first: Ctrl-C in a terminal reaches them too, and it is for this process to end them."""


@contextmanager
def local_workers(count: int) -> Iterator[DaskScheduler]:
    """Processes of this machine with a thread for tasks each, which share its cores, memory and GPUs."""
    snapshot = take_snapshot(quick=True)
    threads = str(max(1, snapshot.usable_cores // count))
    memory = snapshot.usable_memory
    before = dict(os.environ)
    settings: dict[str, Any] = {
        "n_workers": count,
        "threads_per_worker": 1,
        "worker_class": _Nanny,
        "env": dict.fromkeys(THREADS, threads),
        "gpus": _gpus(len(snapshot.gpus)),
        "memory_limit": memory // count if memory else 0,
        "scheduler_kwargs": {"allowed_failures": 0},  # who is to blame is found out in _dask
        "preload": [QUIET],
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": logging.CRITICAL,
    }
    if find_spec("cryptography") is not None:
        settings["security"] = True  # else any user of this machine could send the workers code
    try:
        with (
            dask.config.set(LOCAL),
            LocalCluster(**settings) as cluster,
            Client(cluster, set_as_default=False) as client,
            closing(DaskScheduler(client)) as scheduler,
        ):
            yield scheduler
    finally:
        _restore(before)


class _Nanny(Nanny):  # type: ignore[misc]
    """Sets the threads of its worker before that is started: a script that is imported there may import torch.

    Of the GPUs each worker sees one, in turn: all would take the first.
    """

    def __init__(self, *arguments: Any, gpus: list[str], **settings: Any):
        super().__init__(*arguments, **settings)
        self.pre_spawn_env.update(self.env)
        if len(gpus) > 1:  # for this worker alone; the variables above are set here too, for all
            self.env["CUDA_VISIBLE_DEVICES"] = gpus[int(settings["name"]) % len(gpus)]


def _gpus(count: int) -> list[str]:
    """What CUDA calls the GPUs that this process may use, `count` where nobody has named any."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(index) for index in range(count)]
    return [item.strip() for item in named.split(",") if item.strip()]


def _restore(before: dict[str, str]) -> None:
    """Undo what a nanny changes in the environment of its own process, which is this one."""
    for name in (*THREADS, "MALLOC_TRIM_THRESHOLD_", "PYTHONHASHSEED", "__DASK_PARENT_PID"):
        if name in before:
            os.environ[name] = before[name]
        else:
            os.environ.pop(name, None)


@contextmanager
def running_cluster(address: str) -> Iterator[DaskScheduler]:
    """The workers of a cluster that somebody has started."""
    try:
        client = Client(address, set_as_default=False, timeout=CONNECT_SECONDS, name="cellflow")
    except (OSError, ValueError, TypeError) as error:  # the last two: TLS without certificates
        raise CellflowError(
            f"--scheduler {address}: no Dask scheduler answers there ({_reason(error)}). Start one with: "
            "dask scheduler; it prints its address. Workers: dask worker ADDRESS --nthreads 1",
            found=address,
        ) from None
    with client, closing(DaskScheduler(client)) as scheduler:
        yield scheduler


@contextmanager
def slurm_workers(jobs: int) -> Iterator[DaskScheduler]:
    """Jobs of Slurm, as the settings of dask-jobqueue describe them; they are cancelled in the end."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise CellflowError(
            "--scheduler slurm needs dask-jobqueue. Install it with: pip install 'cellflow[slurm]'"
        ) from None
    try:
        cluster = SLURMCluster()
    except ValueError as error:  # cores or memory of a job are not set
        raise CellflowError(
            f"--scheduler slurm: {_reason(error)}. Say what a job is in ~/.config/dask/jobqueue.yaml: "
            "jobqueue: slurm: cores, memory, walltime, queue; docs/clusters.md has one"
        ) from None
    with cluster:
        cluster.scale(jobs=jobs)
        with (
            Client(cluster, set_as_default=False) as client,
            closing(DaskScheduler(client)) as scheduler,
        ):
            yield scheduler


def _reason(error: Exception) -> str:
    text = ""
    with suppress(Exception):
        text = str(error).strip().partition("\n")[0]
    return text.rstrip(".") or type(error).__name__

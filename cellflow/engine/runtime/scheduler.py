"""Where tasks run: in this process, in several of this machine, or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from cellflow.config.checks import SCHEDULER, scheduler_parts
from cellflow.engine.runtime.tasks import Here, Outcome, Scheduler
from cellflow.errors import CellflowError, ConfigError

__all__ = ["Outcome", "Scheduler", "open_scheduler"]


@contextmanager
def open_scheduler(text: str | None) -> Iterator[Scheduler]:
    """A place where tasks run, while the context lasts; nothing of it is left afterwards.

    Parameters
    ----------
    text : str or None
        None or "": this process. ``local:N``: N processes of this machine with a thread each, which
        share its cores. ``tcp://HOST:PORT`` or ``tls://HOST:PORT``: the scheduler of a Dask cluster that
        runs. ``slurm`` or ``slurm:N``: N jobs of Slurm, one by default, as Dask's own settings for
        dask-jobqueue describe them; they end with the context.

    Raises
    ------
    ConfigError
        If the text is none of these.
    CellflowError
        If a cluster cannot be reached, its workers have another cellflow, torch or numpy, or Dask or
        dask-jobqueue is not installed.
    """
    if not text or not text.strip():
        with closing(Here()) as here:
            yield here
        return
    parts = scheduler_parts(text)
    if parts is None:
        raise ConfigError(SCHEDULER.problems("scheduler", text)[0], found=text)
    try:  # a second, which other commands do not need
        from cellflow.engine.runtime import _dask_clusters
    except ModuleNotFoundError as error:
        if error.name not in ("cloudpickle", "dask", "distributed"):
            raise
        raise CellflowError(
            f"--scheduler {text} needs Dask. Install it with: pip install 'cellflow[dask]'"
        ) from None
    kind, rest = parts
    if kind == "local":
        place = _dask_clusters.local_workers(int(rest))
    elif kind == "slurm":
        place = _dask_clusters.slurm_workers(int(rest))
    else:
        place = _dask_clusters.running_cluster(rest)
    with place as scheduler:
        yield scheduler

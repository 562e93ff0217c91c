"""Tasks on the workers of a Dask cluster. Everything that knows Dask is here and in the files named _dask_*."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

import cloudpickle
from distributed import Client, Future, KilledWorker, as_completed

from cellflow.engine.runtime._dask_worker import topic, work
from cellflow.engine.runtime._versions import differences, install_command, versions
from cellflow.engine.runtime.kept import forget
from cellflow.engine.runtime.tasks import Answer, Job, Scheduler, task_error
from cellflow.errors import CellflowError, TaskError

__all__ = ["DaskScheduler"]

POLL_SECONDS = 0.02
"""Between two looks whether a task has ended."""
LOOK_SECONDS = 5.0
"""Between two looks at the workers."""
MISSING_SECONDS = 15.0
"""Without workers before that is said: lost ones of this machine are started again sooner."""
REMIND_SECONDS = 60.0
"""Between two messages that there are none."""
AHEAD = 2
"""Tasks that the cluster knows, for each one that it can run: the others wait here."""
MAX_LOST = 3
"""Workers that may be lost while they run a task before the task is taken for the cause."""
LOST_TOGETHER = 2
"""After so many the task runs alone, so that it is not taken for the cause of what its neighbours do."""
SHOWN = 5

_log = logging.getLogger(__name__)


class DaskScheduler(Scheduler):
    """Runs tasks on the workers of a Dask cluster; whoever made the client closes it.

    Refused if its workers have another cellflow, Python, torch or numpy.
    """

    def __init__(self, client: Client):
        super().__init__()
        self.client, self.address = client, str(client.scheduler.address)
        self._workers: dict[str, Mapping[str, Any]] = {}
        self._seen: set[str] = set()
        self._looked = float("-inf")
        self._remind_at: float | None = None
        self.look()
        self._check_versions()
        self._introduce()
        client.subscribe_topic(topic(self.session), _log_line)

    @property
    def workers(self) -> int:
        """Threads of all workers when last looked at."""
        return sum(item["nthreads"] for item in self._workers.values())

    @property
    def addresses(self) -> list[str]:
        """Of all workers when last looked at."""
        return list(self._workers)

    def resources(self, wanted: Mapping[str, float]) -> dict[str, float]:
        """Those of the wanted resources that any worker has or had."""
        self._seen |= {name for name, value in wanted.items() if self._having({name: value})}
        return {name: value for name, value in wanted.items() if name in self._seen}

    def everywhere(self, function: Callable[[], Any]) -> dict[str, Any]:
        """What it returns, or raises, in every worker."""
        return dict(self.client.run(function, on_error="return")) if self._workers else {}

    def look(self, wanted: Mapping[str, float] | None = None) -> None:
        """Look at the workers where that is due, and say once a minute when there are none for a task."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        before = self.addresses
        try:
            self._workers = dict(self.client.scheduler_info()["workers"])
        except (OSError, ValueError) as error:  # Dask's errors of connections are OSErrors
            raise self.lost() from error
        self._looked = now
        if before and self.addresses and set(before) != set(self.addresses):
            _log.info("%s has %d workers, %d before", self.address, len(self._workers), len(before))
        self._remind(now, wanted or {})

    def _remind(self, now: float, wanted: Mapping[str, float]) -> None:
        """Say now and then that there are no workers."""
        if self._having(wanted):
            self._remind_at = None
        elif self._remind_at is None:
            self._remind_at = now + MISSING_SECONDS
        elif now >= self._remind_at:
            self._remind_at = now + REMIND_SECONDS
            what = f" with {', '.join(wanted)}" if wanted and self._workers else ""
            _log.warning(
                "%s has no workers%s; waiting for them. Ctrl-C ends it, and the same command goes on later",
                self.address, what,
            )  # fmt: skip

    def close(self) -> None:
        """Close what the workers have kept for this scheduler."""
        with suppress(Exception):  # a cluster that is gone keeps nothing
            self.client.unsubscribe_topic(topic(self.session))
            if self._workers:
                self.client.run(forget, self.session, on_error="ignore")

    def lost(self) -> CellflowError:
        """The error of a cluster that does not answer any more."""
        return CellflowError(
            f"The connection to the cluster {self.address} is lost. What was done is kept: start the "
            "cluster again, then the same command goes on."
        )

    def _run(self, job: Job) -> None:
        self._looked = float("-inf")
        self.look()
        _Run(self, job).finish()

    def _having(self, wanted: Mapping[str, float]) -> int:
        """Number of workers that have what is wanted."""
        has = [item.get("resources", {}) for item in self._workers.values()]
        return sum(all(there.get(name, 0) >= wanted[name] for name in wanted) for there in has)

    def _check_versions(self) -> None:
        """Before the first task: a worker without cellflow cannot even say what is wrong."""
        if not self._workers:
            return
        ask: dict[str, Any] = {"on_error": "return"}
        there = self.client.run(version, "cellflow", **ask)
        able = [worker for worker, found in there.items() if isinstance(found, str)]
        there |= self.client.run(versions, workers=able, **ask) if able else {}
        others = {worker: _other_than_here(found) for worker, found in there.items()}
        lines = [f"{worker}: {what}" for worker, found in others.items() for what in found]
        if lines:
            raise foreign(lines)

    def _introduce(self) -> None:
        """Say once where tasks run, and where one may watch them."""
        gpus = sum(item.get("resources", {}).get("GPU", 0) for item in self._workers.values())
        _log.info(
            "tasks run on %s: %d workers, %d threads%s%s",
            self.address, len(self._workers), self.workers, f", {gpus:g} GPUs" if gpus else "",
            f"; dashboard: {self.client.dashboard_link}" if self._has_dashboard() else "",
        )  # fmt: skip

    def _has_dashboard(self) -> bool:
        """Whether the cluster's scheduler can draw its pages, for which it needs bokeh."""
        try:
            return self.client.run_on_scheduler(find_spec, "bokeh") is not None
        except Exception:  # nothing may be run there
            return False


def foreign(lines: list[str]) -> CellflowError:
    """The error of workers that run other code."""
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return CellflowError(
        "Workers differ from this process, and so would results:\n"
        + "\n".join(f"  - {line}" for line in lines[:SHOWN] + more)
        + f"\nGive all the same environment, or install there what is here: {install_command()}"
    )


class _Run:
    """One job on a cluster."""

    def __init__(self, cluster: DaskScheduler, job: Job):
        self.cluster, self.job, self.client = cluster, job, cluster.client
        self.running: dict[Future[Any], str] = {}
        self.ended = as_completed(loop=self.client.loop, with_results=True, raise_errors=False)
        self.again: deque[str] = deque()
        self.suspects: list[str] = []
        self.lost: dict[str, int] = {}
        self.failed_on: dict[str, set[str]] = {}

    def finish(self) -> None:
        """Run all tasks; those whose workers were lost twice come last, each alone."""
        try:
            self._finish(self.job.tasks)
            while self.suspects:
                self._finish([self.suspects.pop(0)], alone=True)
        finally:
            futures = list(self.running)
            self.running.clear()
            if futures:
                with suppress(Exception):  # a cluster that is gone runs nothing
                    self.client.cancel(futures, force=True)

    def _finish(self, names: Iterable[str], *, alone: bool = False) -> None:
        waiting = iter(names)
        while True:
            room = 1 if alone else AHEAD * max(1, self.cluster.workers)
            for name in self._next(waiting, room - len(self.running)):
                self._submit(name)
            if not self.running:
                return
            batch = self.ended.next_batch(block=False)
            for future, result in batch:
                self._take(future, result, alone=alone)
            if not batch:
                time.sleep(POLL_SECONDS)
            self.cluster.look(self.cluster.resources(self.job.resources))

    def _next(self, waiting: Iterator[str], count: int) -> Iterator[str]:
        for _ in range(count):
            name = self.again.popleft() if self.again else next(waiting, None)
            if name is None:
                return
            yield name

    def _submit(self, name: str) -> None:
        job, failed_on = self.job, self.failed_on.get(name, set())
        elsewhere = [item for item in self.cluster.addresses if item not in failed_on]
        future = self.client.submit(
            work,
            cloudpickle.dumps((job.function, job.tasks[name])),
            self.cluster.session,
            dict(versions()),
            key=f"{job.title.replace(' ', '_')}-{uuid4().hex}",
            pure=False,
            resources=self.cluster.resources(job.resources) or None,
            workers=elsewhere if failed_on and elsewhere else None,
            allow_other_workers=bool(failed_on and elsewhere),
        )
        self.running[future] = name
        self.ended.add(future)

    def _take(self, future: Future[Any], result: Any, *, alone: bool) -> None:
        name = self.running.pop(future)
        if future.status == "cancelled":
            raise self.cluster.lost()
        if future.status == "finished":
            answer: Answer = result
            if answer.foreign:
                raise foreign([f"{answer.worker}: {what}" for what in answer.foreign])
        else:
            error = future.exception()
            if isinstance(error, KilledWorker):
                self._lost_worker(name, error, alone=alone)
                return
            answer = Answer("", error=task_error(error, ""))
        if self.job.take(name, answer):
            self.failed_on.setdefault(name, set()).add(answer.worker)
            self.again.append(name)

    def _lost_worker(self, name: str, error: KilledWorker, *, alone: bool) -> None:
        """Run the task of a lost worker again, unless it must be what the workers die of.

        Dask counts a loss against all tasks that it had given to the worker, running or not; only of one that
        runs by itself is it certain that it was the cause.
        """
        lost = self.lost[name] = self.lost.get(name, 0) + error.allowed_failures + 1
        if alone and lost >= MAX_LOST:
            text = (
                f"{lost} workers were lost while they ran it (KilledWorker), at last {error.last_worker.address}, "
                "where nothing else ran: it may need more memory than a worker has"
            )
            self.job.give_up(name, TaskError(text, traceback=str(error)))
            return
        where = error.last_worker.address
        _log.warning("%s, %s: its worker %s was lost; it runs again", self.job.title, name, where)
        (self.again if lost < LOST_TOGETHER else self.suspects).append(name)


def _other_than_here(found: object) -> list[str]:
    """What a worker answered to the question for its versions, as differences."""
    if isinstance(found, Mapping):
        return differences(versions(), found)
    if isinstance(found, ImportError):
        return [f"{found} (here cellflow {version('cellflow')})"]
    return [f"{type(found).__name__}: {found}"]


def _log_line(event: tuple[float, dict[str, Any]]) -> None:
    """Show a line that a worker logged."""
    record = logging.makeLogRecord(event[1])
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)

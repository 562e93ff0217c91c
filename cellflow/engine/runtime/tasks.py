"""Independent tasks: run each, try again what fails, say which failed for good."""

from __future__ import annotations

import errno
import logging
import os
import socket
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from cellflow.engine.runtime.kept import forget, session
from cellflow.engine.runtime.progress_lines import WorkProgress, show_progress
from cellflow.errors import TaskError

__all__ = [
    "Answer",
    "Here",
    "Job",
    "Outcome",
    "Scheduler",
    "attempt",
    "cancelled_by",
    "is_cancelled",
    "task_error",
]

MAX_LINE = 300

_log = logging.getLogger(__name__)

Function = Callable[..., Any]
Tasks = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Outcome:
    """What came of tasks, by their names."""

    done: dict[str, Any] = field(default_factory=dict)
    """What the function returned, in the order in which they ended."""
    failed: dict[str, TaskError] = field(default_factory=dict)
    """The last error of each task that failed as often as it was tried."""


@dataclass(frozen=True)
class Answer:
    """What came of one try of a task."""

    worker: str
    """Where it ran; empty where that is unknown."""
    value: Any = None
    """What the function returned."""
    error: TaskError | None = None
    """What it raised."""
    full: str | None = None
    """What the disk said, where it was full: the fault of no task."""
    foreign: tuple[str, ...] = ()
    """In what the worker differs from where the task came from; it has then not run."""


@dataclass
class Job:
    """Tasks of one function, as `Scheduler.run` gets them, and what has come of them so far."""

    function: Function
    tasks: Tasks
    tries: int
    resources: Mapping[str, float]
    progress: WorkProgress
    weight: Mapping[str, int] | None
    on_done: Callable[[str, Any], None] | None
    outcome: Outcome = field(default_factory=Outcome)
    tried: dict[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What is done."""
        return self.progress.title

    def take(self, name: str, answer: Answer) -> bool:
        """Note what came of a try; whether the task is to be tried again."""
        if answer.full is not None:  # all others would fail, too, after long work
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), answer.full)
        if answer.error is None:
            self.tried.pop(name, None)
            self.outcome.done[name] = answer.value
            self._count(name)
            if self.on_done is not None:
                self.on_done(name, answer.value)
            return False
        tried = self.tried[name] = self.tried.get(name, 0) + 1
        if tried < self.tries:
            text = _first_line(answer.error)
            _log.warning("%s, %s: %s (try %d of %d)", self.title, name, text, tried, self.tries)
            return True
        self.give_up(name, answer.error)
        return False

    def give_up(self, name: str, error: TaskError) -> None:
        """Note that a task has failed for good."""
        self.outcome.failed[name] = error
        _log.warning(
            "%s, %s has failed: %s; the rest goes on", self.title, name, _first_line(error)
        )
        self._count(name)

    def _count(self, name: str) -> None:
        self.progress.update(1 if self.weight is None else self.weight[name])


class Scheduler(ABC):
    """Runs tasks in this process or in others; get one with `open_scheduler`."""

    def __init__(self) -> None:
        self.session = uuid4().hex  # stands for this scheduler in what workers keep with `once`

    @property
    @abstractmethod
    def workers(self) -> int:
        """Tasks that run at the same time now; 0 while a cluster has no workers."""

    def run(
        self,
        function: Function,
        tasks: Tasks,
        *,
        title: str,
        weight: Mapping[str, int] | None = None,
        on_done: Callable[[str, Any], None] | None = None,
        tries: int = 3,
        resources: Mapping[str, float] | None = None,
        unit: str = "task",
    ) -> Outcome:
        """Run a function once for every task; those that fail do not stop the others.

        Tasks leave their results in files that all workers see, written atomically: a task may be run again
        after it was done, and two tries of one may, rarely, overlap.

        Parameters
        ----------
        function : callable
            Of a module that workers can import too; what it returns is small.
        tasks : mapping of str to tuple
            Its arguments, by the name of the task.
        title, unit : str
            What is done, and what is counted, in the singular, for the progress that is shown.
        weight : mapping of str to int, optional
            How much each task counts in the progress, such as its pixels; each 1 by default.
        on_done : callable, optional
            Called in this thread with the name of a task and its result as soon as it is done.
        tries : int
            How often a task that raises is run, each time on another worker where there is one.
        resources : mapping of str to float, optional
            What a task needs of a worker, such as ``{"GPU": 1}``. Nothing is asked for that no worker has.

        Raises
        ------
        CellflowError
            If the cluster is lost, or its workers have another cellflow.
        KeyboardInterrupt
            What runs is cancelled then.
        """
        total = len(tasks) if weight is None else sum(weight[name] for name in tasks)
        with show_progress(title, total, unit=unit) as progress:
            job = Job(
                function, tasks, tries=tries, resources=resources or {},
                progress=progress, weight=weight, on_done=on_done,
            )  # fmt: skip
            self._run(job)
        return job.outcome

    @abstractmethod
    def everywhere(self, function: Callable[[], Any]) -> dict[str, Any]:
        """What a function returns, or raises, in every worker process that there is now, by its address."""

    @abstractmethod
    def _run(self, job: Job) -> None:
        """Run all tasks of a job."""


class Here(Scheduler):
    """Runs one task after the other in this process."""

    @property
    def workers(self) -> int:
        """One."""
        return 1

    def everywhere(self, function: Callable[[], Any]) -> dict[str, Any]:
        """What it returns here."""
        return {_here(): function()}

    def close(self) -> None:
        """Close what tasks have kept."""
        forget(self.session)

    def _run(self, job: Job) -> None:
        for name, arguments in job.tasks.items():
            while job.take(name, attempt(job.function, arguments, self.session)):
                pass


def attempt(
    function: Function, arguments: tuple[Any, ...], sender: str, worker: str = ""
) -> Answer:
    """Run a task once, in the session of its sender; what it raises is part of the answer."""
    worker = worker or _here()
    try:
        with session(sender):
            return Answer(worker, function(*arguments))
    except (Exception, SystemExit) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        place = str(getattr(error, "filename", None) or "") if full else None
        return Answer(worker, error=task_error(error, worker), full=place)


def task_error(error: BaseException, worker: str) -> TaskError:
    """An error as it is handed on: with its traceback as text, and without what it holds."""
    kind = type(error).__name__
    text = str(error) or kind
    known = type(error).__module__.startswith("cellflow.")
    return TaskError(
        text if known or text == kind else f"{kind}: {text}",
        worker=worker,
        traceback="".join(traceback.format_exception(error)),
    )


_cancelled: ContextVar[Callable[[], bool]] = ContextVar("cancelled", default=lambda: False)


def is_cancelled() -> bool:
    """Whether nobody waits any more for the task that this thread runs; long tasks ask now and then."""
    return _cancelled.get()()


@contextmanager
def cancelled_by(asked: Callable[[], bool]) -> Iterator[None]:
    """Let `is_cancelled` ask this in the context."""
    token = _cancelled.set(asked)
    try:
        yield
    finally:
        _cancelled.reset(token)


def _here() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _first_line(error: TaskError) -> str:
    line = str(error).partition("\n")[0]
    return f"{line[:MAX_LINE]}..." if len(line) > MAX_LINE else line

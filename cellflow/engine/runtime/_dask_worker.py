"""What runs on a worker of a Dask cluster."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from distributed import Worker, get_worker

from cellflow.engine.runtime._versions import differences, versions
from cellflow.engine.runtime.tasks import Answer, attempt, cancelled_by, task_error
from cellflow.storage.secrets import RedactSecrets

__all__ = ["topic", "work"]


def work(parcel: bytes, session: str, expected: Mapping[str, str]) -> Answer:
    """Run a task once; `parcel` holds its function and arguments, `expected` the versions it came from."""
    worker = get_worker()
    other = differences(expected, versions())
    if other:
        return Answer(worker.address, foreign=tuple(other))
    with _telling(worker, session), cancelled_by(_question(worker)):
        try:
            function, arguments = pickle.loads(parcel)
        except Exception as error:
            return Answer(worker.address, error=task_error(error, worker.address))
        return attempt(function, arguments, session, worker.address)


def topic(session: str) -> str:
    """Under which the log lines of a session's tasks travel."""
    return f"cellflow-log-{session}"


def _question(worker: Worker) -> Callable[[], bool]:
    """Whether the task of this thread is wanted no more: the client took it back, or is gone."""
    key = worker.get_current_task()

    def asked() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state in ("cancelled", "resumed")

    return asked


@contextmanager
def _telling(worker: Worker, session: str) -> Iterator[None]:
    """Send what this thread logs to where the task came from."""
    logger = logging.getLogger("cellflow")
    handler = _Teller(worker, session)
    logger.addHandler(handler)
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Teller(logging.Handler):
    """Sends the log lines of one thread to the client."""

    def __init__(self, worker: Worker, session: str):
        super().__init__(logging.INFO)
        self._worker, self._topic, self._thread = worker, topic(session), threading.get_ident()
        self.addFilter(RedactSecrets())

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread != self._thread:
            return
        line = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname}
        with suppress(Exception):  # a worker that is being closed tells nothing
            self._worker.log_event(self._topic, line | {"msg": record.getMessage()})

"""Ctrl-C and SIGTERM as a wish that is granted between two steps, once everything is saved."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupted", "Interruption"]

REPEAT_SECONDS = 3.0
"""A signal that comes again so soon is the same wish: a terminal sends Ctrl-C to a whole group, and a
parent process passes it on to its children."""


class Interrupted(BaseException):
    """Raised by `Interruption.check`; no error, so that nothing takes it for one."""


class Interruption:
    """Notes SIGINT and SIGTERM while the context lasts.

    The first one is only noted, for `check`. A later second one acts at once, for those who cannot wait. On
    leaving the context, what was noted reaches whoever handled signals before.
    """

    def __init__(self) -> None:
        self.received, self._since = 0, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and & set it
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._give_back()
        unhandled = error is None or isinstance(error, Interrupted)
        if self.received and unhandled:
            signal.raise_signal(self.received)
        return isinstance(error, Interrupted)

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self.received:
            raise Interrupted

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > REPEAT_SECONDS:
            self._give_back()
            signal.raise_signal(number)

    def _give_back(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)

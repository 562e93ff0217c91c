"""A tracker that may fail."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from cellflow.storage.secrets import redact
from cellflow.tracking.tracker import Tracker, TrackerUnavailableError

__all__ = ["Slot", "reason_of"]

_log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 30.0, 1800.0
"""Seconds after a failure in which a tracker is not asked for what comes often; doubled each time."""


@dataclass
class Slot:
    """A tracker and how it fares."""

    tracker: Tracker
    failures: int = 0
    paused_until: float = 0.0
    left_out: bool = False

    def tell(self, what: str, tell: Callable[[Tracker], None], *, often: bool) -> None:
        """Let the tracker record something, unless it is left out or, for what comes often, pauses."""
        if self.left_out or (often and time.monotonic() < self.paused_until):
            return
        try:
            tell(self.tracker)
        except Exception as error:
            self._failed(what, error)
        else:
            self.paused_until = 0.0

    def _failed(self, what: str, error: Exception) -> None:
        self.left_out = isinstance(error, TrackerUnavailableError)
        pause = min(FIRST_PAUSE * 2.0**self.failures, LONGEST_PAUSE)
        self.failures += 1
        self.paused_until = time.monotonic() + pause
        level = logging.WARNING if self.failures == 1 else logging.DEBUG
        _log.log(level, "%s", _message(self.tracker, what, error))


def _message(tracker: Tracker, what: str, error: Exception) -> str:
    """What was not recorded, why, and what to do."""
    reason = reason_of(error)
    if isinstance(error, TrackerUnavailableError):
        return f"{tracker.name} does not record {what}, nor what follows: {reason}."
    kind = type(error).__name__
    return (
        f"{tracker.name} did not record {what} ({kind}: {reason}). Training goes on and {tracker.name} "
        f"is tried again; {tracker.advice}. This is said once."
    )


def reason_of(error: Exception) -> str:
    """What an error says, without secrets and final stop."""
    return redact(str(error).strip() or type(error).__name__).rstrip(".")

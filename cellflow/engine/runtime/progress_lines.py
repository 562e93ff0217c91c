"""How far long work is: a bar on a terminal, plain lines in a file or a pipe."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

from cellflow.storage.sizes import duration_text

__all__ = ["WorkProgress", "follow", "show_progress"]

Item = TypeVar("Item")

LINE_SHARE = 0.1
"""Part of the work after which a line comes."""
LINE_SECONDS = 30.0
"""Time after which one comes in any case."""
QUIET_SECONDS = 1.0
"""Time in which none follows another, but the last."""
BRIEF_SECONDS = 5.0
"""Time in which side work says nothing."""

_log = logging.getLogger(__name__)


class WorkProgress:
    """Counts what is done, and shows it. Get one with `show_progress`.

    `initial` ones were done before, and do not count for the time; `unit` says what they are, in the singular. Where
    it is `brief`, nothing is said in the first five seconds, as of side work.
    """

    def __init__(
        self, title: str, total: int, *, initial: int = 0, unit: str = "image", brief: bool = False
    ) -> None:
        self.title, self.total, self.unit, self.brief = title, total, unit, brief
        self.done = self._initial = self._said = initial
        self._started = self._last = time.monotonic()
        self._bar: tqdm[Any] | None = None
        if sys.stderr is not None and sys.stderr.isatty():
            self._bar = tqdm(
                desc=title, total=total, initial=initial, unit=unit, leave=False, **_bar_size()
            )

    def update(self, count: int = 1) -> None:
        """Say that so many more are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        quiet = now - self._last
        part = (self.done - self._said) / max(1, self.total) >= LINE_SHARE - 1e-9
        if self.brief and now - self._started < BRIEF_SECONDS:
            return
        last = self.done >= self.total
        if last or quiet >= LINE_SECONDS or (part and quiet >= QUIET_SECONDS):
            self._said, self._last = self.done, now
            _log.info("%s", self._line(now - self._started))

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, seconds: float) -> str:
        count = f"{self.title}: {self.done} of {self.total} {self.unit}s"
        left = self.total - self.done
        if left <= 0:
            return f"{count}, {duration_text(seconds)}"
        rate = seconds / max(1, self.done - self._initial)
        return f"{count}, {duration_text(seconds)}, about {duration_text(left * rate)} left"


@contextmanager
def show_progress(title: str, total: int, **settings: Any) -> Iterator[WorkProgress]:
    """A `WorkProgress` of these settings while the context lasts.

    On a terminal it is a bar with the time that is left. Else a line is logged each 10 %, but not within
    a second of another, and each 30 seconds; the last always.
    """
    progress = WorkProgress(title, total, **settings)
    try:
        yield progress
    finally:
        progress.close()


def follow(
    items: Iterable[Item], title: str, total: int | None = None, **settings: Any
) -> Iterator[Item]:
    """The items, with their progress shown as `show_progress` does; `total` is their number by default."""
    count = len(items) if total is None else total  # type: ignore[arg-type]
    with show_progress(title, count, **settings) as progress:
        for item in items:
            yield item
            progress.update()


def _bar_size() -> dict[str, Any]:
    """A size for terminals that do not know theirs, as those of `script` and of containers: tqdm takes
    it for 0 and shows nothing.
    """
    try:
        columns, rows = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):  # no real file: tqdm does what it can
        return {}
    return {} if columns and rows else {"ncols": 80, "nrows": 24}

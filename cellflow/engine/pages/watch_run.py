"""The page of a run, written again and again while its training goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from cellflow.engine.runs.catalog import is_trained_now
from cellflow.engine.runs.state import run_state
from cellflow.errors import RunError
from cellflow.storage.run_folder import RunFolder, find_run

__all__ = ["wait_for_run", "watch_run"]

QUIET_LOOKS = 3
"""Looks in a row at which nobody trains the run, after which its training has ended: folds that are trained one
after the other leave a gap."""

_log = logging.getLogger(__name__)


def wait_for_run(name: str | None, runs_dir: Path, interval: float) -> RunFolder:
    """A run as `find_run` gives it, as soon as it is there, which is looked for every so many seconds."""
    told = False
    while True:
        try:
            return find_run(name, runs_dir, begun=False)
        except RunError as error:
            if not told:
                _log.warning("%s It is waited for; Ctrl-C ends that", error)
            told = True
            time.sleep(interval)


def watch_run(run: RunFolder, write: Callable[[float | None], Path], interval: float) -> Path:
    """Write the page whenever a file of the run has changed; ends with the training, or with Ctrl-C.

    Parameters
    ----------
    run : RunFolder
        The run.
    write : callable
        Writes the page; is given the seconds after which an open page loads itself again, and None for the
        last one, which stays as it is.
    interval : float
        Seconds between two looks.

    Returns
    -------
    Path
        The page.
    """
    seen: dict[Path, tuple[int, int]] = {}
    quiet = 0
    try:
        while quiet < QUIET_LOOKS and not run_state(run).complete:
            now = _marks(run)
            if now != seen:
                path = write(interval)
                if not seen:
                    _log.info("%s is written as the training goes on; Ctrl-C ends that", path)
                seen = now
            quiet = 0 if is_trained_now(run) else quiet + 1
            time.sleep(interval)
        if quiet >= QUIET_LOOKS:
            _log.info("no process of this machine trains run %r now", run.name)
    except KeyboardInterrupt:
        _log.info("interrupted; the page stays as it is now")
    finally:
        path = write(None)
    return path


def _marks(run: RunFolder) -> dict[Path, tuple[int, int]]:
    """Time and size of the files that the page is made of."""
    found = {}
    for pattern in ("*", "fold_*/*", "oof/*", "calibration/*"):
        for path in run.path.glob(pattern):
            if path.suffix in (".csv", ".json", ".yaml"):
                try:
                    stat = path.stat()
                except OSError:  # was just being replaced
                    continue
                found[path] = (stat.st_mtime_ns, stat.st_size)
    return found

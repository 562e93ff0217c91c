"""Locks that end with the process that holds them."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from cellflow.errors import RunError

try:
    import fcntl
except ImportError:  # Windows: one trainer a fold is then up to the user
    fcntl = None  # type: ignore[assignment]

__all__ = ["hold_lock", "is_locked"]


NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}
"""What file systems without locks answer."""
_TRIES, _PAUSE = 3, 0.05
"""Whoever asks whether a file is locked holds a lock on it for a moment."""

_log = logging.getLogger(__name__)


@contextmanager
def hold_lock(path: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock on a file while the context lasts.

    The system drops the lock when the process ends in whatever way, so none is ever stale.

    Parameters
    ----------
    path : Path
        Lock file; made if it is not there, and left there.
    what : str
        What is locked, for the message.

    Raises
    ------
    RunError
        If another process holds it, with its id and host.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        if not _locked(file):
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise RunError(f"{what} is being worked on by {holder} ({path}).")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _locked(file: TextIO) -> bool:
    """Lock a file; whether that went well, or cannot be done on its disk."""
    for left in reversed(range(_TRIES)):
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if left:
                time.sleep(_PAUSE)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            _log.warning(
                "%s: its disk has no file locks; take care that one process works there", file.name
            )
            return True
    return False


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of `hold_lock`; the file is left as it is."""
    try:
        with path.open("rb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False

"""Locks on shared storage, which outlive no host.

A lock of `hold_lock` ends with its process. On storage that several hosts share that is not all there is to
say: where a whole host is lost, an NFS server of version 4 drops its locks after a minute or two, one of version 3
keeps them until the host is back. A lease is such a lock whose holder touches the file every few seconds. A
lock of another host that is held and not touched is a dead one's, and is set aside.

A holder that was only asleep finds, before it next writes, that its lease is another's: `Lease.check`.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from cellflow.errors import RunError
from cellflow.storage.locks import hold_lock

__all__ = ["Lease", "hold_lease"]

BEAT_SECONDS = 10.0
"""Between two touches by the holder."""
SILENT_SECONDS = 180.0
"""Without a touch before a lock of another host is a dead one's; more than clients of NFS keep old times for."""
LEAVING_SECONDS = 120.0
"""That a holder which lives is waited for: it may be saving its last state."""
LOOK_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Lease:
    """A lease that is held."""

    def __init__(self, path: Path):
        self.path = path
        self._text = f"process {os.getpid()} on {socket.gethostname()}, lease {uuid4().hex}\n"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="cellflow-lease", daemon=True)
        with suppress(OSError):  # Windows lets nobody write what is locked
            path.write_text(self._text, encoding="utf-8")
            self._thread.start()

    def check(self) -> None:
        """Make sure that nobody has taken the lease for a dead one's, before something is written.

        Raises
        ------
        RunError
            If somebody has.
        """
        if self._thread.ident is not None and not self._is_ours():
            raise RunError(
                f"{self.path}: another process works there now. This one said nothing for more than "
                f"{SILENT_SECONDS:g} seconds, as if its machine had been lost; what it computed since its last "
                "saved state is dropped.",
                path=self.path,
            )

    def end(self) -> None:
        """Touch it no more."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(OSError):
                if self._is_ours():
                    os.utime(self.path)

    def _is_ours(self) -> bool:
        return _text(self.path) == self._text


@contextmanager
def hold_lease(path: Path, what: str, *, wait: bool = False) -> Iterator[Lease]:
    """Hold an exclusive lock on a file of shared storage while the context lasts.

    Parameters
    ----------
    path : Path
        Lock file; made if it is not there, and left there.
    what : str
        What is locked, for the message.
    wait : bool
        Wait two minutes for a holder that lives, and set a lock aside that a lost host has left. Else
        whoever holds it is the end of it.

    Raises
    ------
    RunError
        If another process holds it, with its id and host.
    """
    with ExitStack() as stack:
        if wait:
            _acquire(stack, path, what)
        else:
            stack.enter_context(hold_lock(path, what))
        lease = Lease(path)
        stack.callback(lease.end)
        yield lease


def _acquire(stack: ExitStack, path: Path, what: str) -> None:
    """Take the lock, from a holder that leaves or one whose host is lost."""
    began = touched_at = time.monotonic()
    touched, told = _touched(path), False
    while True:
        try:
            stack.enter_context(hold_lock(path, what))
            return
        except RunError:
            now = time.monotonic()
            if (latest := _touched(path)) != touched:
                touched, touched_at = latest, now
            foreign = _is_of_another_host(path)
            if now - began > LEAVING_SECONDS and not (foreign and now - touched_at > BEAT_SECONDS):
                raise
            if foreign and now - touched_at > SILENT_SECONDS:
                _set_aside(path, what)
        if not told:
            _log.info("%s is held by %s; waiting for it", what, _text(path).strip() or "a process")
            told = True
        time.sleep(LOOK_SECONDS)


def _set_aside(path: Path, what: str) -> None:
    """Give the lock's name to a new file. The old one stays locked by whom nobody hears of any more."""
    holder = _text(path).strip()
    with suppress(FileNotFoundError):  # another one was faster
        path.replace(path.with_name(f"{path.name}.dead"))
        text = "%s was held by %s, which has said nothing for %g seconds: its host must be lost"
        _log.warning(text, what, holder, SILENT_SECONDS)


def _is_of_another_host(path: Path) -> bool:
    """Whether a lease is held elsewhere; locks of processes that died on this host are gone."""
    holder, _, lease = _text(path).strip().partition(", lease ")
    return bool(lease) and not holder.endswith(f" on {socket.gethostname()}")


def _touched(path: Path) -> int | None:
    """When a file was touched last, asked of the server: opening it makes clients of NFS look again."""
    with suppress(OSError), path.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns
    return None


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""

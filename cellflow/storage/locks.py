"""Locks that end with the process that holds them.

`hold_lock` is filelock's, with the holder's name in the file. Files that `atomic` writes are their own locks
(`owned_file`): filelock knows no lock that is renamed or removed while it is held.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO
from uuid import uuid4

from cellflow.errors import RunError
from cellflow.storage.hashing import hash_bytes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = ["abandoned", "hold_lock", "is_locked", "owned_file"]


_HAS_LOCKS = fcntl is not None
NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}
"""What file systems without locks answer."""
_PATIENCE = 0.15
"""Whoever asks whether a file is locked holds a lock on it for a moment."""
_HOST_DIGITS = 4

_log = logging.getLogger(__name__)


@contextmanager
def hold_lock(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock on a file while the context lasts.

    The system drops the lock when the process ends in whatever way, so none is ever stale.

    Parameters
    ----------
    path : Path
        Lock file; made if it is not there, and left there.
    what : str
        What is locked, for the message.
    wait : bool
        Wait for another process that holds it, and say so.

    Raises
    ------
    RunError
        If another process holds it, with its id and host, and is not waited for.
    """
    from filelock import Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _file_lock(path, timeout=_PATIENCE)
    try:
        _acquire(lock, what, wait=wait)
        with suppress(OSError):  # Windows lets nobody write what is locked, a full disk nothing
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
    except Timeout:
        holder = ""
        with suppress(PermissionError):
            holder = path.read_text(encoding="utf-8", errors="replace").strip()
        text = f"{what} is being worked on by {holder or 'another process'} ({path})."
        raise RunError(text, path=path) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _log.warning("%s: its disk has no file locks; take care that one process works there", path)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, what: str, *, wait: bool) -> None:
    from filelock import Timeout

    try:
        lock.acquire()
    except Timeout:
        if not wait:
            raise
        _log.info("%s is being worked on by another process; waiting for it", what)
        lock.acquire(timeout=-1)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of `hold_lock`; the file is left as it is."""
    from filelock import Timeout

    try:
        if path.is_file():
            with _file_lock(path, timeout=0):
                pass
    except Timeout:
        return True
    except OSError:
        return False
    return False


def _file_lock(path: Path, *, timeout: float) -> FileLock:
    from filelock import FileLock  # a tenth of a second, which most commands do not need

    # Without the fallback to files whose being there is the lock: a kill would leave them.
    return FileLock(path, timeout=timeout, poll_interval=0.05, fallback_to_soft=False)


@contextmanager
def owned_file(name: Callable[[str], Path]) -> Iterator[tuple[Path, str]]:
    """Make a file of a new name and hold its lock, so that others can tell that its owner lives.

    Parameters
    ----------
    name : callable
        Gives the path for a token of 8 hexadecimal digits, of which the first 4 stand for this host.

    Yields
    ------
    path : Path
        The file, empty.
    token : str
    """
    while True:
        token = _host() + uuid4().hex[: 8 - _HOST_DIGITS]
        path = name(token)
        try:
            file = path.open("x+", encoding="utf-8")
        except FileExistsError:
            continue
        if not _HAS_LOCKS:  # Windows renames no open file
            file.close()
            yield path, token
            return
        with file:
            try:
                # Who looks for abandoned files may have found it before it was locked.
                owned = _try_lock(file) is not False and _is_at(file, path)
            except OSError:
                path.unlink(missing_ok=True)
                raise
            if owned:
                yield path, token
                return


@contextmanager
def abandoned(path: Path, token: str) -> Iterator[bool]:
    """Whether a file of `owned_file` has lost its owner; it is locked meanwhile, so that one may remove it.

    False where that cannot be told: on a disk without locks, and for a file of another host, whose locks
    may not be seen here.
    """
    if not token.startswith(_host()):
        yield False
        return
    try:
        file = path.open("r+", encoding="utf-8")
    except OSError:  # gone, or not ours to touch
        yield False
        return
    with file:
        yield _try_lock(file) is True and _is_at(file, path)


def _try_lock(file: TextIO) -> bool | None:
    """Lock a file; whether that went well. None where there are no locks."""
    if not _HAS_LOCKS:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return None
    return True


def _is_at(file: TextIO, path: Path) -> bool:
    """Whether an open file still has its name."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _host() -> str:
    return hash_bytes(socket.gethostname().encode())[:_HOST_DIGITS]

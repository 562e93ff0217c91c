"""A lock on an open file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: starting two folds within the same moment is then up to the user
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(file: IO[Any]) -> Iterator[None]:
    """Exclusive while the context lasts; the lock goes with the file. File systems without locks do without.

    Not `filelock`: it falls back to files that a killed process leaves, and a tracker may wait for nobody.
    """
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
    yield

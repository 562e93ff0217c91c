"""Objects that a worker makes once and keeps for the tasks to come: opened models and images."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

__all__ = ["forget", "once", "session"]

MAX_KEPT = 4
"""Objects that a thread keeps."""

Made = TypeVar("Made")


class _Place(NamedTuple):
    """Whose an object is; a thread never closes what another one may be using."""

    session: str
    thread: int
    key: Hashable


_session: ContextVar[str] = ContextVar("session of tasks", default="")
_kept: OrderedDict[_Place, Any] = OrderedDict()
_lock = threading.Lock()


def once(key: Hashable, make: Callable[[], Made]) -> Made:
    """An object that is made at the first call and kept for later ones; tasks use it for what is slow to open.

    Each thread of a worker keeps up to four, those it used last; what it gives up is closed, where it has
    a ``close``. All are given up when the scheduler that sent the tasks is closed. The key says all that `make`
    depends on, such as the path, the level and the device.
    """
    place = _Place(_session.get(), threading.get_ident(), key)
    with _lock:
        if place in _kept:
            _kept.move_to_end(place)
            kept: Made = _kept[place]
            return kept
    made = make()
    with _lock:
        _kept[place] = made
        own = [item for item in _kept if item.thread == place.thread]
        given_up = [_kept.pop(item) for item in own[:-MAX_KEPT]]
    _close(given_up)
    return made


@contextmanager
def session(name: str) -> Iterator[None]:
    """What `once` makes in this context is given up by ``forget(name)``."""
    token = _session.set(name)
    try:
        yield
    finally:
        _session.reset(token)


def forget(name: str) -> None:
    """Give up and close what was made in a session, in all threads."""
    with _lock:
        given_up = [_kept.pop(place) for place in list(_kept) if place.session == name]
    _close(given_up)


def _close(items: list[Any]) -> None:
    for item in items:
        getattr(item, "close", lambda: None)()

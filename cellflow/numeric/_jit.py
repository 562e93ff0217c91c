"""Compiled kernels and the threads that run them.

Every kernel is a plain loop over arrays, compiled by numba at its first call, that releases the GIL
and works on a range of rows, cells or images. `run_blocks` hands such ranges to a small pool of
threads. Numba's own ``parallel=True`` is not used: after one such call a forked child is killed by
the OpenMP layer, and the ``workqueue`` layer aborts when two threads enter it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, cast

import numba

from cellflow.errors import ConfigError

__all__ = ["kernel", "run_blocks", "set_threads", "thread_count"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _TolerantCache:
    """Numba's file cache, except that a damaged, full or vanished folder means "compile", not "fail"."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return self._cache.load_overload(sig, target_context)
        except Exception:  # a half-written or foreign file can raise anything while it is unpickled
            with contextlib.suppress(Exception):
                self._cache.flush()  # starts a new index
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(Exception):
            self._cache.save_overload(sig, data)


def kernel(function: _Function) -> _Function:
    """Compile `function` with numba at its first call, without the GIL, cached on disk where possible.

    The cache lies in ``NUMBA_CACHE_DIR``, beside the source, or in the user's cache folder, whichever
    is writable first; where none is, every process compiles for itself. Kernels of one file may call
    each other, but not kernels of another file: numba would not notice a change there.
    """
    try:
        compiled = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # "cannot cache function": no folder is writable
        return cast(_Function, numba.njit(nogil=True)(function))
    if hasattr(compiled, "_cache"):
        compiled._cache = _TolerantCache(compiled._cache)
    return cast(_Function, compiled)


_lock = threading.Lock()
_pool: tuple[int, int, ThreadPoolExecutor] | None = None  # process id, threads, pool
_chosen: int | None = None


def _after_fork() -> None:
    """A forked child has neither the threads of its parent nor a right to its lock."""
    global _lock, _pool
    _lock = threading.Lock()
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def set_threads(count: int | None) -> None:
    """Choose how many threads kernels use in this process; None means the default again.

    Results never depend on the number.
    """
    global _chosen
    if count is not None and count < 1:
        raise ConfigError(f"threads: expected at least 1, found {count}")
    _chosen = count


def thread_count() -> int:
    """Threads in use: `set_threads`, else ``CELLFLOW_THREADS``, else the cores this process may use."""
    if _chosen is not None:
        return _chosen
    text = os.environ.get("CELLFLOW_THREADS", "").strip()
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ConfigError(f"CELLFLOW_THREADS: expected a number of at least 1, found {text!r}")
        return int(text)
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _get_pool(threads: int) -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None or _pool[0] != os.getpid() or _pool[1] < threads:
            if _pool is not None and _pool[0] == os.getpid():
                _pool[2].shutdown(wait=False)
            made = ThreadPoolExecutor(threads, thread_name_prefix="cellflow-numeric")
            _pool = (os.getpid(), threads, made)
        return _pool[2]


def run_blocks(task: Callable[[int, int, int], object], count: int, block: int) -> None:
    """Call ``task(index, start, stop)`` for every block of ``range(count)``, on several threads.

    The blocks depend on `count` and `block` alone, never on the number of threads, so that sums per
    block are the same everywhere. The calling thread works too, and waits only for work that has
    begun: a caller that is itself a thread of a busy pool cannot be locked out.

    Parameters
    ----------
    task : callable
        Runs one block; a nogil kernel, or a function around one.
    count : int
        Number of items.
    block : int
        Items per block, at least 1.
    """
    block = max(1, block)
    n_blocks = -(-count // block)
    turns = itertools.count()  # next() on it is one C call, hence atomic
    # A cancelled helper stays in the queue of a busy pool for a while; emptied at the end, this list
    # keeps it from holding on to the arrays of the task.
    tasks = [task]

    def work() -> None:
        for index in turns:
            if index >= n_blocks:
                return
            tasks[0](index, index * block, min(count, (index + 1) * block))

    helpers = _start_helpers(work, min(thread_count(), n_blocks) - 1)
    try:
        work()
    finally:
        running = [helper for helper in helpers if not helper.cancel()]
        errors = [helper.exception() for helper in running]
        tasks.clear()
    for error in errors:
        if error is not None:
            raise error


def _start_helpers(work: Callable[[], None], count: int) -> list[Future[None]]:
    if count < 1:
        return []
    helpers: list[Future[None]] = []
    # Submitting fails while the interpreter shuts down or the pool is being replaced by a larger
    # one; the caller then does the work alone.
    with contextlib.suppress(RuntimeError):
        pool = _get_pool(count)
        helpers.extend(pool.submit(work) for _ in range(count))
    return helpers

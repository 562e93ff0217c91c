"""Three stages of work on a row of items, each at another item at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["THREAD_NAME", "run_stages"]

Item = TypeVar("Item")
Ready = TypeVar("Ready")
Made = TypeVar("Made")
Result = TypeVar("Result")

THREAD_NAME = "cellflow-stage"
"""How the names of the two threads begin."""


def run_stages(
    items: Iterable[Item],
    prepare: Callable[[Item], Ready],
    compute: Callable[[Ready], Made],
    finish: Callable[[Made], Result],
) -> Generator[Result, None, None]:
    """Yield ``finish(compute(prepare(item)))`` of every item, in order.

    While `compute` works on one item in the caller's thread, a second thread takes the next item and
    prepares it, and a third finishes the one before. At most two items beyond the one whose result
    is due are taken, however slow a stage is, and nothing is kept of an item that a stage has handed on.

    Parameters
    ----------
    items : iterable
        Taken one by one, in the second thread.
    prepare, compute, finish : callable
        One stage each. A stage is never called for two items at the same time.

    Yields
    ------
    object
        What `finish` returned.

    Raises
    ------
    BaseException
        What an item raised in any stage, or while it was taken, when its turn comes; then, and when
        the generator is closed, no thread stays. What is under way is waited for, what is not is
        never begun. A KeyboardInterrupt does not wait for its turn.
    """
    source = iter(items)
    with _one_thread("prepare") as before, _one_thread("finish") as after:
        ahead = before.submit(_take, source, prepare)
        waiting: deque[Future[Result]] = deque()
        more = True
        while more:
            try:
                ready = ahead.result()  # a list of one item; an empty one at the end
                more = bool(ready)
                if more:
                    ahead = before.submit(_take, source, prepare)
                    waiting.append(after.submit(finish, compute(ready.pop())))
            except Exception as error:
                more = False
                waiting.append(_failed(error))
            while len(waiting) > more:  # one stays under way while the next is computed
                yield waiting.popleft().result()


@contextmanager
def _one_thread(name: str) -> Iterator[ThreadPoolExecutor]:
    """A thread that is gone at the end, with what it has not begun."""
    pool = ThreadPoolExecutor(1, thread_name_prefix=f"{THREAD_NAME}-{name}")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _take(source: Iterator[Item], prepare: Callable[[Item], Ready]) -> list[Ready]:
    """The next item prepared, or an empty list: what a stage raises is never taken for the end."""
    for item in source:
        return [prepare(item)]
    return []


def _failed(error: Exception) -> Future[Result]:
    """A result that raises when its turn comes."""
    future: Future[Result] = Future()
    future.set_exception(error)
    return future

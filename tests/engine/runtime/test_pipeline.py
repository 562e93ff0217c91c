"""Stages that work at the same time, and what happens when one of them fails or is left alone."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from cellflow.engine.runtime.pipeline import THREAD_NAME, run_stages

PATIENCE = 20.0  # seconds until a test that waits for something gives up


class BrokenError(Exception):
    """What the stages of these tests raise."""


class Stopped(BaseException):
    """As KeyboardInterrupt: no Exception."""


def same(item: Any) -> Any:
    return item


def failing_at(place: int, error: type[BaseException] = BrokenError) -> Callable[[int], int]:
    def stage(item: int) -> int:
        if item == place:
            raise error(item)
        return item

    return stage


def counted(items: Iterator[int], taken: list[int]) -> Iterator[int]:
    for item in items:
        taken.append(item)
        yield item


def stage_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    assert not stage_threads()
    yield
    assert not stage_threads()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 500])
def test_every_item_once_and_in_order(count: int) -> None:
    order: list[tuple[str, int]] = []

    def log(stage: str) -> Callable[[int], int]:
        def step(item: int) -> int:
            order.append((stage, item))
            return item + 1

        return step

    results = list(run_stages(range(count), log("prepare"), log("compute"), log("finish")))
    assert results == [item + 3 for item in range(count)]
    for place, stage in enumerate(("prepare", "compute", "finish")):
        done = [item - place for name, item in order if name == stage]
        assert done == list(range(count))


def test_only_the_middle_stage_runs_in_the_callers_thread() -> None:
    threads: dict[str, set[int]] = {
        "take": set(),
        "prepare": set(),
        "compute": set(),
        "finish": set(),
    }

    def note(stage: str) -> Callable[[int], int]:
        def step(item: int) -> int:
            threads[stage].add(threading.get_ident())
            return item

        return step

    items = map(note("take"), range(5))
    list(run_stages(items, note("prepare"), note("compute"), note("finish")))
    assert threads["compute"] == {threading.get_ident()}
    assert threads["take"] == threads["prepare"]
    assert len(set.union(*threads.values())) == 3


def test_stages_overlap() -> None:
    """Each stage waits for the one before to be at a later item: one after the other, it would fail."""
    count = 6
    prepared = [threading.Event() for _ in range(count)]
    computed = [threading.Event() for _ in range(count)]

    def prepare(item: int) -> int:
        prepared[item].set()
        return item

    def compute(item: int) -> int:
        computed[item].set()
        assert item + 1 == count or prepared[item + 1].wait(PATIENCE)
        return item

    def finish(item: int) -> int:
        assert item + 1 == count or computed[item + 1].wait(PATIENCE)
        return item

    assert list(run_stages(range(count), prepare, compute, finish)) == list(range(count))


def test_nothing_is_taken_before_the_first_result_is_wanted() -> None:
    taken: list[int] = []
    with closing(run_stages(counted(itertools.count(), taken), same, same, same)):
        assert not taken
        assert not stage_threads()


def test_only_two_items_ahead_are_taken() -> None:
    taken: list[int] = []
    fourth = threading.Event()

    def note(item: int) -> int:
        if item == 3:
            fourth.set()
        return item

    def finish(item: int) -> int:
        if item == 0:  # however long it takes
            assert not fourth.wait(0.3)
        assert len(taken) <= item + 3
        return item

    with closing(run_stages(counted(itertools.count(), taken), note, same, finish)) as results:
        for item in itertools.islice(results, 200):
            assert len(taken) <= item + 3


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("place", [0, 1, 4, 9])
@pytest.mark.parametrize("error", [BrokenError, StopIteration, Stopped])
def test_a_failure_comes_at_its_turn(stage: int, place: int, error: type[BaseException]) -> None:
    """In taking (0), preparing, computing or finishing; a StopIteration is no end."""
    steps: list[Callable[[int], int]] = [same] * 4
    steps[stage] = failing_at(place, error)
    items = (steps[0](item) for item in range(10))  # PEP 479: a StopIteration is a RuntimeError
    results = []
    with pytest.raises((error, RuntimeError) if error is StopIteration else error):
        for item in run_stages(items, *steps[1:]):
            results.append(item)
    if error is Stopped:  # at once
        assert results == list(range(len(results)))
        assert place - 2 <= len(results) <= place
    else:
        assert results == list(range(place))


def test_the_first_of_two_failures_is_said() -> None:
    with pytest.raises(BrokenError, match="3") as caught:
        list(run_stages(range(9), same, failing_at(4, ValueError), failing_at(3)))
    assert caught.value.__context__ is None


def test_nothing_is_begun_after_a_failure() -> None:
    finished = []

    def finish(item: int) -> int:
        finished.append(item)
        return item

    with pytest.raises(BrokenError):
        list(run_stages(itertools.count(), same, failing_at(5), finish))
    assert finished == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_leaving_early(count: int) -> None:
    for place, _ in enumerate(run_stages(itertools.count(), same, same, same)):
        if place == count:
            break


def test_closing_waits_for_what_is_under_way_and_begins_nothing_more() -> None:
    release = threading.Event()
    begun, done = [], []

    def finish(item: int) -> int:
        begun.append(item)
        if item == 1:
            assert release.wait(PATIENCE)
        done.append(item)
        return item

    results = run_stages(itertools.count(), same, same, finish)
    assert next(results) == 0
    threading.Timer(0.1, release.set).start()
    results.close()
    assert begun == done
    assert done in ([0], [0, 1])  # 1 may not have begun


def test_an_error_in_the_loop_of_the_caller() -> None:
    with pytest.raises(BrokenError):
        for _ in run_stages(itertools.count(), same, same, same):
            raise BrokenError


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")
@pytest.mark.parametrize("stage", ["prepare", "finish"])
def test_ctrl_c_while_the_caller_waits(stage: str) -> None:
    """The caller waits for another thread when the signal comes; nothing more is begun then."""
    main = threading.main_thread().ident
    assert main is not None
    begun: list[int] = []

    def step(item: int) -> int:
        begun.append(item)
        if item == 2:
            time.sleep(0.1)  # the caller has handed on all it can and waits
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.5)  # long enough for the caller to stop the others
        return item

    stages = {"prepare": same, "finish": same} | {stage: step}
    with pytest.raises(KeyboardInterrupt):
        list(run_stages(itertools.count(), stages["prepare"], same, stages["finish"]))
    assert begun == [0, 1, 2]

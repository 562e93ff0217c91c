"""Tasks on real worker processes: of this machine, and of a cluster that was started by hand."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import scheduled

import cellflow
from cellflow.engine.runtime import _dask, _dask_clusters
from cellflow.engine.runtime.scheduler import Scheduler, open_scheduler
from cellflow.errors import CellflowError

TESTS = Path(scheduled.__file__).parent
PACKAGE = Path(cellflow.__file__).parent


@pytest.fixture(scope="module")
def local() -> Iterator[Scheduler]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "3,5")  # as on a machine with GPUs
        with open_scheduler("local:2") as scheduler:
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,5"
            yield scheduler


def wait_for(what: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.05)


def test_two_processes_share_the_tasks(
    local: Scheduler, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = {f"block {number}, {number}": (tmp_path, number, 0.2) for number in range(6)}
    told = []
    with caplog.at_level(logging.INFO, logger="cellflow"):
        outcome = local.run(
            scheduled.leave_slowly, tasks, title="squares", on_done=lambda *done: told.append(done)
        )
    assert outcome.failed == {}
    assert outcome.done == {name: number * number for name, (_, number, _) in tasks.items()}
    assert sorted(told) == sorted(outcome.done.items())
    assert sorted(path.name for path in tmp_path.glob("*.txt")) == [f"{n}.txt" for n in range(6)]
    assert local.workers == 2
    assert "squares: 6 of 6 tasks" in caplog.text


def test_the_cores_are_divided_before_the_workers_start(local: Scheduler) -> None:
    outcome = local.run(scheduled.threads_of_worker, {"ask": ()}, title="threads")
    each = max(1, len(os.sched_getaffinity(0)) // 2)
    assert outcome.done["ask"]["torch"] == outcome.done["ask"]["kernels"] == each
    assert outcome.done["ask"]["OMP_NUM_THREADS"] == str(each)


def test_each_worker_of_this_machine_sees_one_gpu(local: Scheduler) -> None:
    there = local.everywhere(scheduled.threads_of_worker).values()
    assert sorted(found["CUDA_VISIBLE_DEVICES"] for found in there) == ["3", "5"]


def test_what_fails_is_tried_on_another_worker(
    local: Scheduler, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = {f"fails {times}": (tmp_path, f"t{times}", times) for times in (0, 1, 3)}
    with caplog.at_level(logging.INFO, logger="cellflow"):
        outcome = local.run(scheduled.fail_first, tasks, title="tries")
    assert sorted(outcome.done) == ["fails 0", "fails 1"]
    first, second = scheduled.notes(tmp_path, "t1")
    assert first != second
    error = outcome.failed["fails 3"]
    assert (str(error), len(scheduled.notes(tmp_path, "t3"))) == ("t3 is not ready", 3)
    assert "in fail_first" in error.traceback and error.worker
    assert "tries, fails 3 has failed: t3 is not ready; the rest goes on" in caplog.text


def test_an_object_is_opened_once_in_each_worker(local: Scheduler, tmp_path: Path) -> None:
    tasks = {str(number): (tmp_path, "model") for number in range(12)}
    outcome = local.run(scheduled.use, tasks, title="use")
    used = set(outcome.done.values())
    assert sorted(scheduled.notes(tmp_path, "opened")) == sorted(f"model {pid}" for pid in used)


def test_what_tasks_log_is_seen_here(local: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cellflow"):
        local.run(scheduled.say, {"say": ("the worker says this",)}, title="say")
        wait_for(lambda: "the worker says this" in caplog.text)
    assert caplog.text.count("the worker says this") == 1


def test_few_tasks_are_with_the_cluster_at_a_time(local: Scheduler, tmp_path: Path) -> None:
    known: list[int] = []

    def count(name: str, result: int) -> None:
        known.append(
            local.client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))  # type: ignore[attr-defined]
        )

    tasks = {str(number): (tmp_path, number) for number in range(60)}
    outcome = local.run(scheduled.leave_square, tasks, title="many", on_done=count)
    assert len(outcome.done) == 60
    assert 1 <= max(known) <= 2 * _dask.AHEAD * local.workers


@pytest.mark.slow
def test_a_lost_worker_loses_only_its_task(local: Scheduler, tmp_path: Path) -> None:
    """One that kills whatever runs it is found, however many neighbours it took with it."""
    tasks: dict[str, tuple[Path, str, int]] = {"kills": (tmp_path, "kills", 99)}
    tasks |= {f"lost {times}": (tmp_path, f"lost{times}", times) for times in (1, 0)}
    tasks |= {f"fine {number}": (tmp_path, f"fine{number}", 0) for number in range(4)}
    outcome = local.run(scheduled.die, tasks, title="deaths")
    assert sorted(outcome.done) == sorted(set(tasks) - {"kills"})
    assert list(outcome.failed) == ["kills"]
    assert "KilledWorker" in str(outcome.failed["kills"])
    assert len(scheduled.notes(tmp_path, "kills")) == _dask.MAX_LOST
    wait_for(lambda: len(local.client.nthreads()) == 2)  # type: ignore[attr-defined]


def test_an_interruption_leaves_nothing_behind(local: Scheduler, tmp_path: Path) -> None:
    def interrupt(name: str, result: int) -> None:
        raise KeyboardInterrupt

    tasks = {"now": (tmp_path, 0, 0.0)} | {str(n): (tmp_path, n, 0.5) for n in range(1, 9)}
    with pytest.raises(KeyboardInterrupt):
        local.run(scheduled.leave_slowly, tasks, title="slow", on_done=interrupt)
    client = local.client  # type: ignore[attr-defined]
    wait_for(lambda: client.run_on_scheduler(lambda dask_scheduler: not dask_scheduler.tasks))
    time.sleep(1.5)  # a worker may begin what it holds until it hears of the end
    started = len(scheduled.notes(tmp_path, "started"))
    time.sleep(1.0)
    assert len(scheduled.notes(tmp_path, "started")) == started < len(tasks)
    assert local.run(scheduled.leave_square, {"9": (tmp_path, 9)}, title="on").done == {"9": 81}


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import scheduled
from cellflow.engine.runtime.scheduler import open_scheduler

if __name__ == "__main__":
    folder = Path(sys.argv[2])
    with open_scheduler("local:2") as scheduler:
        tasks = {str(n): (folder, n, 60.0) for n in range(8)}
        scheduler.run(scheduled.leave_slowly, tasks, title="slow")
"""


@pytest.mark.slow
def test_ctrl_c_ends_all_processes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(TESTS), str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a terminal has it: Ctrl-C reaches all processes
    )
    try:
        wait_for(lambda: len(scheduled.notes(tmp_path, "started")) == 2)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert "KeyboardInterrupt" in said
    psutil.wait_procs(children, timeout=10)
    assert [child for child in children if child.is_running()] == []
    assert len(scheduled.notes(tmp_path, "started")) == 2


def test_nothing_is_left_of_a_local_cluster(tmp_path: Path) -> None:
    threads = {thread.name for thread in threading.enumerate()}
    variables, children = dict(os.environ), set(psutil.Process().children(recursive=True))
    with open_scheduler("local:1") as scheduler:
        scheduler.run(scheduled.use, {"use": (tmp_path, "model")}, title="use")
        assert scheduled.notes(tmp_path, "closed") == []
    assert scheduled.notes(tmp_path, "closed") == scheduled.notes(tmp_path, "opened")
    assert dict(os.environ) == variables
    left = set(psutil.Process().children(recursive=True)) - children
    assert [item for item in left if "resource_tracker" not in " ".join(item.cmdline())] == []
    # Dask keeps one idle thread of a process-wide pool.
    assert {thread.name for thread in threading.enumerate()} - threads <= {"Dask-Offload_0"}


class ByHand:
    """A cluster as `dask scheduler` and `dask worker` make one."""

    def __init__(self, folder: Path):
        self.folder, self.processes = folder, list[subprocess.Popen[bytes]]()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        host, port = self.address.removeprefix("tcp://").split(":")
        words = ["--host", host, "--port", port, "--dashboard-address", f"{host}:0"]
        self.scheduler = self._start("scheduler", *words)

    def worker(self, *words: str, path: Path = PACKAGE.parent) -> subprocess.Popen[bytes]:
        """Start a worker with cellflow of a folder."""
        return self._start(
            "worker", self.address, "--nthreads", "1", "--no-dashboard", *words, path=path
        )

    def close(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait(timeout=30)

    def _start(self, *words: str, path: Path = PACKAGE.parent) -> subprocess.Popen[bytes]:
        variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(path), str(TESTS)])}
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *words],
            env=variables, cwd=self.folder, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.processes.append(process)
        return process


@pytest.fixture
def by_hand(tmp_path: Path) -> Iterator[ByHand]:
    cluster = ByHand(tmp_path)
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.mark.slow
def test_a_cluster_without_workers_is_waited_for(
    by_hand: ByHand,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Workers come, are lost and come again; at last the scheduler is lost."""
    for name in ("MISSING_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(_dask, name, 0.2)
    monkeypatch.setattr(_dask, "REMIND_SECONDS", 0.5)
    with (
        caplog.at_level(logging.INFO, logger="cellflow"),
        open_scheduler(by_hand.address) as scheduler,
    ):
        assert scheduler.workers == 0
        timers = [threading.Timer(1.5, by_hand.worker, ("--resources", "GPU=1"))]
        timers[0].start()
        outcome = scheduler.run(
            scheduled.leave_square, {"3": (tmp_path, 3)}, title="first", resources={"GPU": 1}
        )
        assert outcome.done == {"3": 9}
        assert caplog.text.count(f"{by_hand.address} has no workers; waiting for them") >= 2
        assert scheduler.resources({"GPU": 1, "TPU": 1}) == {"GPU": 1}  # type: ignore[attr-defined]

        worker = by_hand.processes[1]

        def replace_worker() -> None:
            wait_for(lambda: scheduled.notes(tmp_path, "started"))
            for process in [*psutil.Process(worker.pid).children(recursive=True), worker]:
                process.kill()
            by_hand.worker("--resources", "GPU=1")

        replacing = threading.Thread(target=replace_worker)
        replacing.start()
        outcome = scheduler.run(
            scheduled.leave_slowly, {"4": (tmp_path, 4, 1.0)}, title="second", resources={"GPU": 1}
        )
        replacing.join()
        assert outcome.done == {"4": 16}
        assert len(scheduled.notes(tmp_path, "started")) == 2

        threading.Timer(1.0, by_hand.scheduler.kill).start()
        with pytest.raises(CellflowError, match=rf"{re.escape(by_hand.address)} is lost") as caught:
            scheduler.run(scheduled.leave_slowly, {"5": (tmp_path, 5, 30.0)}, title="third")
        assert "the same command goes on" in str(caught.value)


@pytest.mark.slow
def test_workers_with_other_code_are_refused(by_hand: ByHand, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(PACKAGE, other / "cellflow", ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "cellflow" / "rng.py").open("a") as file:
        file.write("# changed\n")
    by_hand.worker(path=other)
    with (  # it may be connected before or after the worker
        pytest.raises(CellflowError, match=r"cellflow's files \w+ \(here \w+\)") as caught,
        open_scheduler(by_hand.address) as scheduler,
    ):
        scheduler.run(scheduled.leave_square, {"3": (tmp_path, 3)}, title="first")
    assert "pip install cellflow==" in str(caught.value)
    assert not (tmp_path / "3.txt").exists()


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(_dask_clusters, "CONNECT_SECONDS", 1.0)
    with (
        pytest.raises(CellflowError, match="no Dask scheduler answers there") as caught,
        open_scheduler(address),
    ):
        pass
    assert "dask scheduler" in str(caught.value)

"""Tasks in this process, and what is common to all places where they run."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import scheduled

from cellflow.config.checks import scheduler_parts
from cellflow.engine.runtime.kept import MAX_KEPT, forget, once, session
from cellflow.engine.runtime.scheduler import open_scheduler
from cellflow.engine.runtime.shared_folder import shared_folder
from cellflow.errors import ConfigError, TaskError


def test_every_task_runs_once_and_what_it_returns_is_told_at_once(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    with open_scheduler(None) as scheduler:
        assert scheduler.workers == 1
        outcome = scheduler.run(
            scheduled.leave_square,
            {f"block {number}": (tmp_path, number) for number in range(4)},
            title="squares",
            on_done=lambda name, result: told.append((name, result)),
        )
    assert outcome.done == {f"block {number}": number * number for number in range(4)}
    assert outcome.failed == {}
    assert told == list(outcome.done.items())
    assert (tmp_path / "3.txt").read_text() == "9"


def test_what_fails_is_tried_again_and_the_rest_is_finished(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = {f"fails {times}": (tmp_path, f"t{times}", times) for times in (0, 2, 3)}
    with caplog.at_level(logging.INFO, logger="cellflow"), open_scheduler("") as scheduler:
        outcome = scheduler.run(
            scheduled.fail_first, tasks, title="tries", weight=dict.fromkeys(tasks, 10)
        )
    assert list(outcome.done) == ["fails 0", "fails 2"]
    (failed,) = outcome.failed.items()
    assert failed[0] == "fails 3"
    assert str(failed[1]) == "t3 is not ready"
    assert "in fail_first" in failed[1].traceback
    assert [len(scheduled.notes(tmp_path, f"t{times}")) for times in (0, 2, 3)] == [1, 3, 3]
    assert "tries, fails 3: t3 is not ready (try 2 of 3)" in caplog.text
    assert "tries, fails 3 has failed: t3 is not ready; the rest goes on" in caplog.text
    assert "tries: 30 of 30 tasks" in caplog.text


def test_an_error_survives_its_way_between_processes(tmp_path: Path) -> None:
    with open_scheduler(None) as scheduler:
        outcome = scheduler.run(scheduled.leave, {"end": (3,)}, title="end", tries=1)
    error = outcome.failed["end"]
    assert str(error) == "SystemExit: 3"
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, TaskError)
    assert (str(again), again.traceback, again.worker) == (
        str(error),
        error.traceback,
        error.worker,
    )


def test_an_interruption_ends_it(tmp_path: Path) -> None:
    def interrupt(name: str, result: int) -> None:
        raise KeyboardInterrupt

    tasks = {str(number): (tmp_path, number) for number in range(3)}
    with open_scheduler(None) as scheduler, pytest.raises(KeyboardInterrupt):
        scheduler.run(scheduled.leave_square, tasks, title="squares", on_done=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["0.txt"]


def test_a_worker_opens_once_and_closes_at_the_end(tmp_path: Path) -> None:
    tasks = {f"{place} {name}": (tmp_path, name) for place in range(3) for name in ("a", "b")}
    with open_scheduler(None) as scheduler:
        scheduler.run(scheduled.use, tasks, title="use")
        assert len(scheduled.notes(tmp_path, "opened")) == 2
        assert scheduled.notes(tmp_path, "closed") == []
    assert scheduled.notes(tmp_path, "closed") == scheduled.notes(tmp_path, "opened")


def test_few_objects_are_kept_those_used_last(tmp_path: Path) -> None:
    with session("few"):
        for name in ("a", "b", "c", "d", "a", "e"):
            scheduled.use(tmp_path, name)
    closed = [line.split()[0] for line in scheduled.notes(tmp_path, "closed")]
    assert MAX_KEPT == 4 and closed == ["b"]
    forget("few")
    assert len(scheduled.notes(tmp_path, "closed")) == len(scheduled.notes(tmp_path, "opened")) == 5


def test_a_thread_closes_nothing_that_another_may_be_using(tmp_path: Path) -> None:
    def use_many() -> None:
        with session("threads"):
            for number in range(MAX_KEPT + 2):
                scheduled.use(tmp_path, f"n{number}")

    with session("threads"):
        mine = once("mine", lambda: scheduled.Opened(tmp_path, "mine"))
        other = threading.Thread(target=use_many)
        other.start()
        other.join()
        assert once("mine", lambda: scheduled.Opened(tmp_path, "again")) is mine
    forget("threads")
    assert sorted(scheduled.notes(tmp_path, "closed")) == sorted(
        scheduled.notes(tmp_path, "opened")
    )


SHARE = """
import os, signal, sys
from pathlib import Path
from cellflow.engine.runtime.shared_folder import shared_folder
from cellflow.engine.runtime.tasks import Here
from cellflow.storage.atomic import remove_leftovers

folder = Path(sys.argv[1])
with shared_folder(Here(), folder) as shared:
    remove_leftovers(folder)
    shared.check()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_command_s_file_in_a_shared_folder_is_removed_by_the_next(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", SHARE, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with open_scheduler(None) as scheduler, shared_folder(scheduler, tmp_path) as shared:
        assert list(tmp_path.iterdir()) == [shared.file]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("local:4", ("local", "4")),
        ("tcp://10.0.0.1:8786", ("tcp", "tcp://10.0.0.1:8786")),
        ("tls://head-node.lab:8786", ("tls", "tls://head-node.lab:8786")),
        ("tcp://[::1]:8786", ("tcp", "tcp://[::1]:8786")),
        ("slurm", ("slurm", "1")),
        ("slurm:20", ("slurm", "20")),
        *(
            (text, None)
            for text in ("local", "local:", "local:0", "local:two", "slurm:", "slurm:0")
        ),
        *(
            (text, None)
            for text in ("10.0.0.1:8786", "tcp://host", "tcp://:8786", "dask", "slurms")
        ),
    ],
)
def test_texts(text: str, parts: tuple[str, str] | None) -> None:
    assert scheduler_parts(text) == parts


def test_an_unknown_place_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError) as caught, open_scheduler("kubernetes"):
        pass
    for words in ("'kubernetes'", "local:N", "tcp://HOST:PORT", "slurm", "this process"):
        assert words in str(caught.value)


def test_dask_is_not_imported_where_it_is_not_used() -> None:
    code = """
import sys
import cellflow, cellflow.cli
from cellflow.engine.runtime.scheduler import open_scheduler
with open_scheduler(None):
    pass
print(sorted({"dask", "distributed", "torch"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr

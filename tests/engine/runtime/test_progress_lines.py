"""Bars on a terminal, lines elsewhere."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from cellflow.engine.runtime import progress_lines
from cellflow.engine.runtime.progress_lines import follow, show_progress


class Clock:
    """A time that only goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress_lines, "time", made)
    return made


def lines_of(
    clock: Clock, caplog: pytest.LogCaptureFixture, total: int, seconds: float, initial: int = 0
) -> list[str]:
    with (
        caplog.at_level(logging.INFO, "cellflow"),
        show_progress("work", total, initial=initial) as progress,
    ):
        for _ in range(total - initial):
            clock.now += seconds
            progress.update()
    return [record.getMessage() for record in caplog.records]


def test_a_line_each_tenth(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    lines = lines_of(clock, caplog, 200, 0.5)
    assert len(lines) == 10
    assert lines[0] == "work: 20 of 200 images, 10.0 s, about 90.0 s left"
    assert lines[-1] == "work: 200 of 200 images, 100.0 s"


def test_a_line_each_half_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    lines = lines_of(clock, caplog, 50, 20.0)
    assert lines[0] == "work: 2 of 50 images, 40.0 s, about 16 min left"
    assert len(lines) == 25


def test_quick_work_says_one_line(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    assert lines_of(clock, caplog, 1000, 0.0001) == ["work: 1000 of 1000 images, 0.1 s"]
    caplog.clear()
    with caplog.at_level(logging.INFO, "cellflow"):
        assert list(follow("abc", "side work", brief=True)) == ["a", "b", "c"]
    assert not caplog.records


def test_what_was_done_before_takes_no_time(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    lines = lines_of(clock, caplog, 100, 1.0, initial=90)
    assert lines[0] == "work: 100 of 100 images, 10.0 s"
    assert lines_of(clock, caplog, 100, 2.0, initial=80)[1:][0].startswith("work: 90 of 100")


def test_nothing_to_do(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cellflow"):
        assert list(follow([], "work")) == []
    assert not caplog.records


CODE = """
import time
from cellflow.engine.runtime.logs import log_to_console
from cellflow.engine.runtime.progress_lines import follow
log_to_console()
for item in follow(range(4), "count", unit="cell"):
    time.sleep(0.15)
"""


def test_lines_in_a_pipe() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1].startswith("count: 4 of 4 cells, 0.")
    assert "\r" not in done.stderr


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", CODE], stderr=theirs, cwd=tmp_path)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # how the end of a pseudo terminal shows on Linux
        pass
    os.close(ours)
    assert process.wait() == 0
    assert b"count:  50%" in shown
    assert b"2/4" in shown and b"\r" in shown
    assert b"of 4 cells" not in shown

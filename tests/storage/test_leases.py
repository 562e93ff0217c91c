"""Locks of hosts that are lost; the holders are real processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cellflow.errors import RunError
from cellflow.storage import leases
from cellflow.storage.leases import hold_lease

HOLDER = """
import socket, sys, time
from pathlib import Path
socket.gethostname = lambda: sys.argv[2]
from cellflow.storage import leases
leases.BEAT_SECONDS = float(sys.argv[3])
with leases.hold_lease(Path(sys.argv[1]), "it") as lease:
    print("held", flush=True)
    for line in sys.stdin:
        try:
            lease.check()
            print("ours", flush=True)
        except Exception as error:
            print(f"{type(error).__name__}: {error}", flush=True)
"""


@pytest.fixture(autouse=True)
def _short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"BEAT": 0.2, "SILENT": 1.5, "LEAVING": 0.8, "LOOK": 0.05}.items():
        monkeypatch.setattr(leases, f"{name}_SECONDS", seconds)


@contextmanager
def holder(path: Path, *, host: str, beat: float = 0.1) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a lease, as seen from a host; one whose beat is long is as if it slept."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), host, str(beat)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str]) -> str:
    """Whether a holder may still write."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("?\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "folder" / ".lock"
    for _ in range(2):
        with hold_lease(path, "Fold 1") as lease:
            lease.check()
            with (
                pytest.raises(RunError, match=r"Fold 1 is being worked on by process \d+ on"),
                hold_lease(path, "Fold 1"),
            ):
                pass
            lease.check()
    assert "cellflow-lease" not in {thread.name for thread in threading.enumerate()}


def test_a_holder_touches_its_file(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with hold_lease(path, "it"):
        before = path.stat().st_mtime_ns
        time.sleep(0.6)
        assert path.stat().st_mtime_ns > before


def test_a_holder_that_leaves_is_waited_for(tmp_path: Path) -> None:
    with holder(tmp_path / ".lock", host="elsewhere") as process:
        threading.Timer(0.4, process.kill).start()
        with hold_lease(tmp_path / ".lock", "it", wait=True) as lease:
            lease.check()
    assert not (tmp_path / ".lock.dead").exists()


@pytest.mark.parametrize("wait", [False, True])
def test_a_holder_that_lives_elsewhere_stays(tmp_path: Path, wait: bool) -> None:
    with holder(tmp_path / ".lock", host="elsewhere") as process:
        with (
            pytest.raises(RunError, match="on elsewhere"),
            hold_lease(tmp_path / ".lock", "it", wait=wait),
        ):
            pass
        assert ask(process) == "ours"


def test_a_process_of_this_host_stays_even_if_it_sleeps(tmp_path: Path) -> None:
    """Its lock would be gone if it were dead."""
    with holder(tmp_path / ".lock", host=leases.socket.gethostname(), beat=99) as process:
        with (
            pytest.raises(RunError, match="is being worked on by"),
            hold_lease(tmp_path / ".lock", "it", wait=True),
        ):
            pass
        assert ask(process) == "ours"


def test_a_lost_host_s_lock_is_set_aside_and_the_holder_finds_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with holder(tmp_path / ".lock", host="elsewhere", beat=99) as process:
        assert ask(process) == "ours"
        with hold_lease(tmp_path / ".lock", "Fold 1", wait=True) as lease:
            lease.check()
            assert "on elsewhere" in caplog.text and "must be lost" in caplog.text
            answer = ask(process)
            assert answer.startswith("RunError: ") and "another process works there now" in answer
            with pytest.raises(RunError), hold_lease(tmp_path / ".lock", "Fold 1"):
                pass


def test_a_lock_of_an_older_cellflow_is_never_set_aside(tmp_path: Path) -> None:
    code = (
        "import sys, socket; socket.gethostname = lambda: 'elsewhere'\n"
        "from pathlib import Path; from cellflow.storage.locks import hold_lock\n"
        "with hold_lock(Path(sys.argv[1]), 'it'):\n    print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / ".lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with (
            pytest.raises(RunError, match="on elsewhere"),
            hold_lease(tmp_path / ".lock", "it", wait=True),
        ):
            pass
    finally:
        process.kill()
        process.communicate()

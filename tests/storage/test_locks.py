"""Locks that end with their process."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from faults import failing

from cellflow.errors import RunError
from cellflow.storage import locks
from cellflow.storage.locks import hold_lock, is_locked

HOLD = """
import sys
from pathlib import Path
from cellflow.storage.locks import hold_lock
with hold_lock(Path(sys.argv[1]), "It"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    path = tmp_path / "folder" / ".lock"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    assert is_locked(path)
    with (
        pytest.raises(RunError, match=f"It is being worked on by process {other.pid} on "),
        hold_lock(path, "It"),
    ):
        pass
    other.kill()
    other.communicate()
    assert not is_locked(path)
    with hold_lock(path, "It"):
        assert is_locked(path)


def test_a_full_disk_still_locks(tmp_path: Path) -> None:
    """Whoever holds it is not written down then."""
    with failing(None, files=True) as steps, hold_lock(tmp_path / "other.lock", "It"):
        written = steps.names.index("write") + 1
    with failing(written, files=True) as steps, hold_lock(tmp_path / ".lock", "It"):
        assert steps.hit == "write"
        assert is_locked(tmp_path / ".lock")


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_gives_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING, "cellflow"), hold_lock(tmp_path / ".lock", "It"):
        pass
    assert "has no file locks" in caplog.text

"""Commands of cellflow in processes that are forked from one where all is imported, and what may happen to them."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "storage")]
from faults import Steps, counted  # noqa: E402

SAID, COUNTED, HIT = "said.txt", "steps.json", "hit.txt"
"""What is kept of a command, beside its folder."""
PATIENCE = 120.0
FULL = ("write", "mkdir", "sendfile", "fsync")
"""Steps that a full disk refuses; what only removes or renames it does not."""
SETTINGS = {
    "OMP_NUM_THREADS": "1",  # also: torch starts no threads, which a fork would lose
    "CELLFLOW_THREADS": "1",
    "CELLFLOW_ENGINE": "torch",
}


@dataclass(frozen=True)
class Fault:
    """What happens to a command: it is killed after so many seconds or at a step, or the disk fails at one."""

    seconds: float | None = None
    step: int | None = None
    code: int | None = None

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"killed after {self.seconds:.3f} s"
        what = "killed" if self.code is None else errno.errorcode[self.code]
        return f"{what} at step {self.step}"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    seconds: float
    steps: list[str]
    said: str
    hit: str
    """Where in the package it was killed or the disk failed, as far as that is known."""

    @property
    def killed(self) -> bool:
        """Whether it was killed."""
        return self.code == -signal.SIGKILL


class Full(Steps):
    """Steps of which all that need space fail from one on."""

    def due(self, name: str) -> bool:
        self.names.append(name)
        if self.at is None or self.count < self.at or name not in FULL:
            return False
        self.hit = self.hit or name
        return True


def start_server(*preload: str) -> None:
    """Start what commands are forked from, with modules that it imports; more than once changes nothing."""
    places = [HERE, TESTS, TESTS / "storage", *filter(None, [os.environ.get("PYTHONPATH")])]
    path = os.pathsep.join(map(str, places))
    with mock.patch.dict(os.environ, SETTINGS, PYTHONPATH=path):
        forkserver.set_forkserver_preload(list(preload))
        forkserver.ensure_running()


def run(words: Sequence[str], folder: Path, fault: Fault | None = None) -> Ended:
    """Run a command in a folder; what it says, and how many steps it took, is kept beside that."""
    log, steps, hit = (folder.with_name(name) for name in (SAID, COUNTED, HIT))
    for path in (log, steps, hit):
        path.unlink(missing_ok=True)
    fault = fault or Fault()
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(tuple(words), folder, fault, theirs))
    process.start()
    theirs.close()
    ours.recv()
    began = time.monotonic()
    if fault.seconds is not None:
        process.join(fault.seconds)
        process.kill()
    process.join(PATIENCE)
    seconds = time.monotonic() - began
    if process.exitcode is None:
        process.kill()
        raise SystemExit(f"cellflow {' '.join(words)} did not end in {PATIENCE:g} seconds")
    names = json.loads(steps.read_text()) if steps.exists() else []
    where = hit.read_text() if hit.exists() else ""
    return Ended(process.exitcode, seconds, names, log.read_text(errors="replace"), where)


def _child(words: tuple[str, ...], folder: Path, fault: Fault, started: Connection) -> None:
    """A command, as a process of its own would run it."""
    os.environ.update(SETTINGS)
    import kill_cases
    import tqdm

    from cellflow.cli import main

    tqdm.tqdm.set_lock(
        threading.RLock()
    )  # its own is shared by all forks, and a kill may leave it held

    kill_cases.know_spots()

    log = os.open(folder.with_name(SAID), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
    os.chdir(folder)
    for name, place in (("CELLFLOW_CACHE_DIR", "cache"), ("TMPDIR", "tmp")):
        os.environ[name] = str(folder.with_name(place))
        folder.with_name(place).mkdir(exist_ok=True)
    tempfile.tempdir = None
    started.send("go")
    with _faulty(fault, folder.with_name(HIT)) as steps:
        try:
            main(words)
        finally:
            names = list(steps.names)
            steps.at = None
            folder.with_name(COUNTED).write_text(json.dumps(names))


def _place() -> str:
    """The innermost line of the package that is at work, apart from how it writes."""
    for frame in reversed(traceback.extract_stack()):
        name = frame.filename.rpartition("/cellflow/")[2]
        if name != frame.filename and not name.startswith("storage/"):
            return f"in {name}:{frame.lineno}; "
    return ""


@contextmanager
def _faulty(fault: Fault, hit: Path) -> Iterator[Steps]:
    """What is to happen at a step happens there; the place is kept in a file."""
    places, write = os.open(hit, os.O_CREAT | os.O_WRONLY), os.write

    def act(*path: object) -> None:
        write(places, _place().encode())
        if fault.code is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise OSError(fault.code, os.strerror(fault.code), *map(str, path))

    steps = (Full if fault.code == errno.ENOSPC else Steps)(fault.step)
    with counted(steps, act, files=True, named=True):
        yield steps

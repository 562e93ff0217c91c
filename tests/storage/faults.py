"""The nth step that changes a disk fails, or ends the process, with the real file system otherwise."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest import mock

from cellflow.storage.atomic import atomic_folder

STEPS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "sendfile", "write")
"""What is counted: functions of `os`, as the standard library calls them for pathlib and shutil too."""


FILES = ("a.txt", "more/b.txt", "more/c.txt")


class Steps:
    """How many steps there were, and where it stopped."""

    def __init__(self, at: int | None, last: int | None = None) -> None:
        self.at, self.last, self.hit = at, last, ""
        self.names: list[str] = []

    @property
    def count(self) -> int:
        """Steps so far."""
        return len(self.names)

    def due(self, name: str) -> bool:
        self.names.append(name)
        if self.at is None or not self.at <= self.count <= (self.last or self.at):
            return False
        self.hit = self.hit or name
        return True


@contextmanager
def counted(
    steps: Steps, act: Callable[..., None], *, files: bool = False, named: bool = False
) -> Iterator[Steps]:
    """Call `act` in place of each step that is due; what Python writes to `files` counts too.

    It gets the path of what is made, renamed or removed if it is to be `named`.
    """

    def patched(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        @wraps(real)
        def step(*args: Any, **options: Any) -> Any:
            if steps.due(name):
                act(*args[: named and not isinstance(args[0], int)])
            return real(*args, **options)

        return step

    with ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(os, **{name: patched(name) for name in STEPS}))
        if files:
            opened = _opening(steps, act)
            stack.enter_context(mock.patch("io.open", opened))  # pathlib's
            stack.enter_context(mock.patch("builtins.open", opened))
        yield steps


def _opening(steps: Steps, act: Callable[[], None]) -> Callable[..., Any]:
    """`open`, for files each write to which is a step; of one that is due half is written."""
    real = io.open

    class File(io.FileIO):
        def write(self, data: Any) -> int:
            if steps.due("write"):
                super().write(memoryview(data).cast("B")[: memoryview(data).nbytes // 2])
                act()
            return super().write(data)

    @wraps(real)
    def opened(
        file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None,
        errors: str | None = None, newline: str | None = None, closefd: bool = True, opener: Any = None,
    ) -> Any:  # fmt: skip
        if not set(mode) & set("wax+"):
            return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = File(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return binary
        text = io.TextIOWrapper(binary, encoding, errors, newline, line_buffering=buffering == 1)
        text.mode = mode
        return text

    return opened


@contextmanager
def failing(
    at: int | None, code: int = errno.ENOSPC, *, last: int | None = None, files: bool = False
) -> Iterator[Steps]:
    """Step `at` fails (those up to `last`, where that is given)."""

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    with counted(Steps(at, last), fail, files=files) as steps:
        yield steps


def killed(at: int | None, function: Callable[..., Any], *args: Any, **options: Any) -> bool:
    """Run a function in a process of its own that is killed at a step; whether it came to that."""
    context = multiprocessing.get_context("forkserver")
    _start_server()
    process = context.Process(target=_run, args=(at, function, args, options))
    process.start()
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL), f"ended with {process.exitcode}"
    return process.exitcode != 0


@cache
def _start_server() -> None:
    """Start what the processes are forked from, which finds modules in this folder too."""
    path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, path))):
        forkserver.set_forkserver_preload(["preloaded"])
        forkserver.ensure_running()


def _run(
    at: int | None, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115  # progress bars
    with counted(Steps(at), lambda: os.kill(os.getpid(), signal.SIGKILL)):
        function(*args, **options)


def hidden(folder: Path) -> list[str]:
    """Hidden files and folders anywhere below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))


def write_folder(path: Path, text: str) -> None:
    """A folder with a few files that all hold the same, replaced as a whole."""
    with atomic_folder(path, replace=True) as folder:
        (folder / "more").mkdir()
        for name in FILES:
            (folder / name).write_text(text)


def folder_text(path: Path) -> str:
    """What all files of a whole folder hold."""
    found = {str(item.relative_to(path)): item for item in path.rglob("*") if item.is_file()}
    assert sorted(found) == sorted(FILES)
    (text,) = {item.read_text() for item in found.values()}
    return text

"""Tasks that tests send to workers, which import this file."""

from __future__ import annotations

import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellflow.engine.runtime.kept import once
from cellflow.errors import DataError
from cellflow.io.source import FileImage


def leave_square(folder: Path, number: int) -> int:
    """Write a file, as tasks do, and say what was written."""
    (folder / f"{number}.txt").write_text(str(number * number))
    return number * number


def leave_slowly(folder: Path, number: int, seconds: float) -> int:
    note(folder, "started", str(number))
    time.sleep(seconds)
    return leave_square(folder, number)


def fail_first(folder: Path, name: str, times: int) -> str:
    """Fail so many times, then say which process it went well in."""
    if note(folder, name, str(os.getpid())) <= times:
        raise DataError(f"{name} is not ready", path=folder)
    return str(os.getpid())


def die(folder: Path, name: str, times: int) -> str:
    """End the worker as the system does when memory runs out, so many times."""
    if note(folder, name, str(os.getpid())) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return name


def leave(code: int) -> None:
    raise SystemExit(code)


class Opened:
    """Something that is slow to open; each opening and closing leaves a line."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        note(folder, "opened", f"{name} {os.getpid()}")

    def close(self) -> None:
        note(self.folder, "closed", f"{self.name} {os.getpid()}")


def use(folder: Path, name: str) -> int:
    assert once(("opened", name), lambda: Opened(folder, name)).name == name
    return os.getpid()


def threads_of_worker() -> dict[str, Any]:
    import torch

    from cellflow.numeric._jit import thread_count

    names = ("OMP_NUM_THREADS", "CELLFLOW_THREADS", "CUDA_VISIBLE_DEVICES")
    found = {name: os.environ.get(name) for name in names}
    return {"torch": torch.get_num_threads(), "kernels": thread_count(), **found}


def note(folder: Path, name: str, text: str) -> int:
    """Append a line to a file that all processes share; gives the number of lines."""
    path = folder / f"{name}.notes"
    with path.open("a") as file:
        file.write(f"{text}\n")
    return len(notes(folder, name))


def notes(folder: Path, name: str) -> list[str]:
    path = folder / f"{name}.notes"
    return path.read_text().splitlines() if path.exists() else []


def say(text: str) -> None:
    logging.getLogger("cellflow.engine.test").info("%s", text)


@dataclass(frozen=True, eq=False, kw_only=True)
class FaultyImage(FileImage):
    """An image that notes each time that it is read, and then does as it is told."""

    notes: Path
    fault: str = ""

    def pixels(self) -> Any:
        times = note(self.notes, f"read {self.id}", str(os.getpid()))
        if self.fault == "dies once" and times == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "breaks":
            raise RuntimeError(f"{self.id} breaks")
        return super().pixels()

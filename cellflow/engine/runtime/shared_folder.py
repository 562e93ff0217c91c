"""Whether workers see a folder of this machine: where results go must be shared storage."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cellflow.engine.runtime.tasks import Scheduler
from cellflow.errors import RunError
from cellflow.storage.atomic import naming, remove_leftovers
from cellflow.storage.locks import owned_file

__all__ = ["SharedFolder", "shared_folder"]

SEEN_SECONDS = 30.0
"""That storage may take to show another machine a new file."""
PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class SharedFolder:
    """A folder with a file in it that only the sender of tasks can have written."""

    folder: Path
    token: str

    @property
    def file(self) -> Path:
        """The file, of the name of a temporary one: whoever works there later removes what a kill has left."""
        return self.folder / f".{self.token}.tmp"

    def is_seen(self) -> bool:
        """Whether this process sees it; waits for slow storage."""
        until = time.monotonic() + SEEN_SECONDS
        while True:
            with suppress(OSError):
                if self.file.read_text(encoding="utf-8") == self.token:
                    return True
            if time.monotonic() > until:
                return False
            time.sleep(PAUSE_SECONDS)

    def check(self) -> None:
        """Make sure that this process sees it."""
        if not self.is_seen():
            raise not_shared(self.folder, [socket.gethostname()])


@contextmanager
def shared_folder(scheduler: Scheduler, folder: Path) -> Iterator[SharedFolder]:
    """Check that all workers see a folder that is there; give tasks what comes out, for workers that come later."""
    folder = folder.resolve()
    remove_leftovers(folder)
    with owned_file(lambda token: SharedFolder(folder, token).file) as (file, token):
        shared = SharedFolder(folder, token)
        try:
            with naming(folder):
                file.write_text(token, encoding="utf-8")
            seen = scheduler.everywhere(shared.is_seen)
            blind = [worker for worker, sees in seen.items() if sees is not True]
            if blind:
                raise not_shared(folder, blind)
            yield shared
        finally:
            file.unlink(missing_ok=True)


def not_shared(folder: Path, workers: list[str]) -> RunError:
    """The error of workers that do not see a folder."""
    return RunError(
        f"{folder} is not seen by {', '.join(workers[:5])}: results must lie on storage that all workers "
        "have under the same path. Choose a folder there (--runs_dir of a training, --out of a prediction), or "
        "mount it.",
        path=folder,
        found=workers,
    )

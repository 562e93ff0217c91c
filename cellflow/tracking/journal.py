"""A line of JSON per event, in the run folder, always."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import IO, Any

from cellflow.storage.plain_values import plain
from cellflow.tracking.tracker import Pictures, Tracker

try:
    import fcntl
except ImportError:  # Windows: starting two folds within the same moment is then up to the user
    fcntl = None  # type: ignore[assignment]

__all__ = ["Journal", "locked", "read_journal"]


@contextmanager
def locked(file: IO[Any]) -> Iterator[None]:
    """Exclusive while the context lasts; the lock goes with the file. File systems without locks do without.

    Not `filelock`: it falls back to files that a killed process leaves, and a tracker may wait for nobody.
    """
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
    yield


_LONGEST = 2**24
"""Bytes of a line; a longer one is damaged."""


class Journal(Tracker):
    """Appends events to a file. Several processes may share it.

    Parameters
    ----------
    path : Path
        File of lines ``{"time": UTC, "event": name, ...}``; made with the first event. What was not
        measured (nan) is null.
    """

    name = "events.jsonl"
    advice = "check that the disk of the run folder is not full"

    def __init__(self, path: Path):
        self._path = path

    def start_fold(self, fold: int, start: Mapping[str, Any]) -> None:
        """Event start, with everything that is known."""
        self._append("start", fold=fold, start=start)

    def log_epoch(self, fold: int, row: Mapping[str, float]) -> None:
        """Event epoch."""
        self._append("epoch", fold=fold, row=row)

    def log_examples(self, fold: int, epoch: float, pictures: Pictures) -> None:
        """Event examples; of the pictures only their ids."""
        self._append("examples", fold=fold, epoch=epoch, images=list(pictures))

    def end_fold(self, fold: int, summary: Mapping[str, Any], model: Path) -> None:
        """Event end."""
        self._append("end", fold=fold, summary=summary, model=model.name)

    def update_run(self, metadata: Mapping[str, Any]) -> None:
        """Event run; metadata.json has the rest."""
        self._append("run", **_main_facts(metadata))

    def fail(self, what: str, message: str) -> None:
        """Event failed."""
        self._append("failed", what=what, message=message)

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """Event finished."""
        self._append("finished", **_main_facts(metadata))

    def _append(self, event: str, **content: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        values = {"time": now, "event": event} | plain(content)
        line = (json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n").encode()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with FileIO(self._path, "a+") as file, locked(file):
            _mend(file)
            written = file.write(line)
            if written != len(line):
                raise OSError(f"{self._path}: only {written} of {len(line)} bytes were written")
            os.fsync(file.fileno())


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Events of a run in the order they came.

    What was trained again after a resume counts once: of the same fold and epoch the last row stays.
    Lines that are not whole are left out. Without a file there are no events.
    """
    events: list[dict[str, Any]] = []
    with suppress(FileNotFoundError), path.open("rb") as file:
        while line := file.readline(_LONGEST):
            if len(line) == _LONGEST == line.count(0):
                break  # a disk that lost what was written last: there may be gigabytes of zeros
            with suppress(ValueError, RecursionError):
                event = json.loads(line) if len(line) < _LONGEST else None
                if isinstance(event, dict) and "event" in event:
                    events.append(event)
    last = {_epoch_key(event): place for place, event in enumerate(events)}
    return [
        event
        for place, event in enumerate(events)
        if _epoch_key(event) is None or last[_epoch_key(event)] == place
    ]


def _epoch_key(event: dict[str, Any]) -> tuple[str, str] | None:
    if event["event"] != "epoch" or not isinstance(event.get("row"), dict):
        return None
    return repr(event.get("fold")), repr(event["row"].get("epoch"))


def _main_facts(metadata: Mapping[str, Any]) -> dict[str, Any]:
    names = ("status", "comment", "environment", "cv", "thresholds", "publication")
    return {name: metadata.get(name) for name in names}


def _mend(file: FileIO) -> None:
    """Cut off a line without an end, which a kill or a full disk has left."""
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)

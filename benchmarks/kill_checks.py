"""What a command left: as an undisturbed one, and whole?"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import same_runs
import tifffile
import yaml
import zarr
from skimage.io import imread

from cellflow.io.flow_store import FlowStore
from cellflow.nn.checkpoint import load_state
from cellflow.storage.locks import is_locked
from cellflow.tracking import read_journal

__all__ = ["differences", "files_of", "unreadable"]

OF_THE_DAY = re.compile(
    r"20\d\d-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?( UTC|\+00:00)?"
    r'|"(seconds|free_disk|commit|dirty)": ([\d.]+|\{[^}]*\}|"\w*"|\w+)'
)
"""Times in pages and records."""
NAMED_ONLY = ("said.txt", "log.txt", ".lock", "history.png", "tracking.json", "environment.json")
"""Files that are only to be there: they say when, where and how fast."""


def content(path: Path) -> Any:
    """What is compared of a file."""
    if path.name in NAMED_ONLY or path.suffix == ".log":
        return None
    if path.name == "events.jsonl":
        return what_happened(path)
    if path.suffix == ".html" or path.name in ("metadata.json", "queue.json", "slide.json"):
        return OF_THE_DAY.sub("", path.read_text())
    return same_runs.content(path)


def what_happened(path: Path) -> list[str]:
    """Epochs and ends of a journal, each once, however often a fold was started."""
    rows = [event for event in read_journal(path) if event["event"] in ("epoch", "end")]
    ends = {event["fold"]: event for event in rows if event["event"] == "end"}
    epochs = [event for event in rows if event["event"] == "epoch"]
    found = [same_runs.without_times(event | {"time": 0}) for event in (*ends.values(), *epochs)]
    return sorted(json.dumps(event, sort_keys=True) for event in found)


def files_of(work: Path, of_the_day: Sequence[str] = ()) -> dict[str, Any]:
    """Everything in a folder: files with what is compared of them, and empty folders.

    Of files with the names `of_the_day` it is only that they are there.
    """
    found: dict[str, Any] = {}
    for path in sorted(work.rglob("*")):
        name = str(path.relative_to(work))
        if path.is_file():
            found[name] = None if path.name in of_the_day else content(path)
        elif not any(path.iterdir()):
            found[name + "/"] = None
    return found


def differences(work: Path, expected: dict[str, Any], of_the_day: Sequence[str] = ()) -> list[str]:
    """In what a folder is not as it should be."""
    found = files_of(work, of_the_day)
    extra = sorted(found.keys() - expected.keys())
    wrong = [f"{'lock' if '.lock' in name else 'leftover'}: {name}" for name in extra]
    wrong += [f"differing: {name} is missing" for name in sorted(expected.keys() - found.keys())]
    both = sorted(found.keys() & expected.keys())
    wrong += [
        f"differing: {name}{where(found[name], expected[name])}"
        for name in both
        if not same_runs.is_same(found[name], expected[name])
    ]
    return wrong + [f"lock: {path} is held" for path in work.rglob(".*lock*") if is_locked(path)]


def where(found: Any, expected: Any) -> str:
    """Where two texts begin to differ."""
    if not (isinstance(found, str | bytes) and isinstance(expected, type(found))):
        return ""
    pairs = zip(found, expected, strict=False)
    at = next(
        (place for place, (a, b) in enumerate(pairs) if a != b), min(len(found), len(expected))
    )
    parts = [text[max(0, at - 60) : at + 60] for text in (found, expected)]
    return f": {parts[0]!r} instead of {parts[1]!r}"


# What must be whole at any moment


def _read_csv(path: Path) -> None:
    pd.read_csv(path)


def _read_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def _read_zarr(path: Path) -> None:
    """Flows of images, or the labels of a slide: all that is there, as blocks not done yet are empty."""
    if path.name == "labels.zarr":
        for _, array in zarr.open_group(path, mode="r").arrays():
            array[:]
        return
    store = FlowStore(path)
    for name in store:
        store.read(name)


def _read_page(path: Path) -> None:
    assert path.read_text().rstrip().endswith("</html>")


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: json.loads(path.read_text()),
    ".geojson": lambda path: json.loads(path.read_text()),
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
    ".jsonl": read_journal,
    ".csv": _read_csv,
    ".pt": load_state,
    ".tif": tifffile.imread,
    ".png": imread,
    ".zip": _read_zip,
    ".html": _read_page,
}


def unreadable(work: Path) -> list[str]:
    """Artefacts that are there and cannot be read; hidden ones are nobody's yet."""
    wrong = []
    for path in sorted(work.rglob("*")):
        inside = path.relative_to(work).parts
        if any(part.startswith(".") or part.endswith(".zarr") for part in inside[:-1]):
            continue
        if inside[-1].startswith(".") or (path.is_dir() and path.suffix != ".zarr"):
            continue
        try:
            if path.suffix == ".zarr":
                _read_zarr(path)
            elif path.suffix in READERS:
                READERS[path.suffix](path)
        except Exception as error:  # whatever a reader may say
            wrong.append(f"unreadable: {path.relative_to(work)}: {error!r:.200}")
    return wrong

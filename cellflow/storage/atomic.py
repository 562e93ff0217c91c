"""Writes that are whole or absent: temporary file beside the target, flush, fsync, rename.

What a killed process leaves is distinguished from what a living one works on by locks, which end with their
process::

    .TOKEN.tmp.csv       temporary file; its writer holds its lock
    .NAME.TOKEN.lock     held by the writer of the folder NAME while one of the next two is there
    .NAME.TOKEN.tmp      the new folder, until it is whole
    .NAME.TOKEN.old      the old folder, while the new one takes its place
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cellflow.errors import DataError
from cellflow.storage.csv_text import write_frame
from cellflow.storage.locks import abandoned, owned_file

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "atomic_folder",
    "atomic_path",
    "is_temporary",
    "made_folder",
    "naming",
    "remove_leftovers",
    "restore_folder",
    "scratch_folder",
    "what_stands",
    "write_csv",
    "write_json",
    "write_text",
]

_FILE = re.compile(r"\.([0-9a-f]{8})\.tmp(\.[^.]+)?")
_HIDDEN = re.compile(r"\.[0-9a-f]{8}\.(?:tmp|old|lock)")
_PATIENCE, _PAUSE = 2.0, 0.01
"""Seconds that a living writer may take between its two renames, and between looks at it."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it becomes `path` on success and vanishes on failure.

    Folders that are made for it vanish on failure too, as long as nothing else is in them. What killed
    processes left in the folder goes first.
    """
    path = Path(path)
    _clear(os.path.abspath(path.parent))  # noqa: PTH100  # resolving costs a look at every parent
    with (
        naming(path),
        made_folder(path.parent),
        owned_file(lambda token: path.with_name(f".{token}.tmp{path.suffix}")) as (temporary, _),
    ):
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def atomic_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it becomes `path` on success and vanishes on failure.

    An old folder stands until the new one is in its place. Where a process is killed between the two
    renames that this takes, `restore_folder` puts the old one back.

    Raises
    ------
    DataError
        If `path` exists and `replace` is false.
    """
    path = Path(os.path.realpath(path))  # a link stays, and "." has a name
    restore_folder(path)
    if path.exists() and not replace:
        text = f"{path} exists already. Choose another folder, or add --overwrite to replace it."
        raise DataError(text, path=path)
    with naming(path), made_folder(path.parent), _writing(path) as parts:
        parts.new.mkdir()
        yield parts.new
        for item in [*parts.new.rglob("*"), parts.new]:
            _sync(item)
        _swap_in(parts, path)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path`, on its disk, that is gone in the end; at the next call after a kill."""
    path = Path(os.path.realpath(path))  # a link stays, and "." has a name
    restore_folder(path)
    with naming(path), _writing(path) as parts:
        parts.new.mkdir()
        yield parts.new


def restore_folder(path: Path) -> None:
    """Put back what a killed `atomic_folder` had moved away, and remove what it left.

    What a living process works on stays, and so does what may be another host's. Nothing is raised: where
    it cannot be done, everything stays as it is.
    """
    path = Path(os.path.realpath(path))  # a link stays, and "." has a name
    until = time.monotonic() + _PATIENCE
    with suppress(OSError):
        parts = [item for item in _all_parts(path) if item.old.is_dir()]
        while parts and not _is_filled(path):
            for item in parts:
                with abandoned(item.lock, item.token) as free:
                    if (free or time.monotonic() > until) and not _is_filled(path):
                        item.old.rename(path)
            time.sleep(_PAUSE)
        for item in _all_parts(path):
            with abandoned(item.lock, item.token) as free:
                if free:
                    _remove_parts(item, path)


def is_temporary(name: str) -> bool:
    """Whether a file is called as the temporary ones of `atomic_path`."""
    return _FILE.fullmatch(name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of `atomic_path` that killed processes left in a folder."""
    with suppress(OSError):
        for path in folder.glob(".????????.tmp*"):
            found = _FILE.fullmatch(path.name)
            if found is not None and path.is_file():
                with abandoned(path, found[1]) as free, suppress(OSError):
                    if free:
                        path.unlink()


@cache
def _clear(folder: str) -> None:
    """Remove leftovers, once a process: a folder may hold many thousand files."""
    remove_leftovers(Path(folder))


def what_stands(path: Path) -> str:
    """What is there after `atomic_folder` has failed, in a sentence or two."""
    parts = [item for item in _all_parts(path) if item.old.is_dir() or item.new.is_dir()]
    old = [str(item.old) for item in parts if item.old.is_dir()]
    new = [str(item.new) for item in parts if item.new.is_dir()]
    again = "the next cellflow command there"
    if old and not path.exists():
        text = f"The old one lies in {old[0]}; {again} puts it back."
    elif old:
        text = f"The new one is in its place all the same; {again} removes the old one in {old[0]}."
    elif path.exists():
        text = "The old one stands as it was."
    else:
        text = "" if new else "Nothing half-written was left."
    if new:
        text += f" What was written lies in {new[0]}; {again} removes it."
    return text.strip()


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder with its parents; on failure those that were made vanish, if nothing is in them."""
    made = list(takewhile(lambda place: not place.exists(), (folder, *folder.parents)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for place in made:
            with suppress(OSError):
                place.rmdir()
        raise


def write_text(path: Path, text: str) -> None:
    """Write text atomically, in UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a table atomically, without its index."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        write_frame(file, frame)


class _Parts(NamedTuple):
    """What is beside a folder while it is written."""

    token: str
    lock: Path
    new: Path
    old: Path


def _parts_of(path: Path, token: str) -> _Parts:
    names = [path.with_name(f".{path.name}.{token}.{kind}") for kind in ("lock", "tmp", "old")]
    return _Parts(token, *names)


def _all_parts(path: Path) -> list[_Parts]:
    """Those of all writers of a folder, living or not."""
    name = re.compile(re.escape(f".{path.name}.") + r"([0-9a-f]{8})\.(?:lock|tmp|old)")
    if not path.parent.is_dir():
        return []
    found = {match[1] for entry in os.listdir(path.parent) if (match := name.fullmatch(entry))}  # noqa: PTH208
    return [_parts_of(path, token) for token in sorted(found)]


@contextmanager
def _writing(path: Path) -> Iterator[_Parts]:
    """Own the parts of a new folder; they are gone in the end, unless one is needed or cannot be removed."""
    with owned_file(lambda token: _parts_of(path, token).lock) as (_, token):
        parts = _parts_of(path, token)
        try:
            yield parts
        finally:
            _remove_parts(parts, path)


def _remove_parts(parts: _Parts, path: Path) -> None:
    """Remove what is no longer needed; the lock goes last, as it tells of the others."""
    shutil.rmtree(parts.new, ignore_errors=True)
    if _is_filled(path):
        shutil.rmtree(parts.old, ignore_errors=True)
    if not (parts.new.exists() or parts.old.exists()):
        with suppress(OSError):
            parts.lock.unlink()


def _is_filled(path: Path) -> bool:
    """Whether there is something; an empty folder, which anybody may have made, does not count."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def _swap_in(parts: _Parts, path: Path) -> None:
    try:
        if path.exists():
            path.rename(parts.old)
        parts.new.rename(path)
        _sync(path.parent)
    except BaseException:
        if not parts.new.exists():
            path.rename(parts.new)
        if parts.old.exists():
            parts.old.rename(path)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the disk name the target, which people know, where they name no file or a temporary one."""
    try:
        yield
    except OSError as error:
        unknown = error.filename is None or _HIDDEN.search(str(error.filename)) is not None
        if error.errno is not None and unknown:
            error.filename, error.filename2 = str(path), None
        raise


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder, and orders renames by itself
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Folders by the names that people give them, and where a data set lies when another folder was named."""

from __future__ import annotations

import logging
from pathlib import Path
from shlex import quote

from cellflow.errors import DataError
from cellflow.io.images import IMAGE_SUFFIXES, passed_over
from cellflow.io.source import counted, some
from cellflow.io.tables import find_table

__all__ = ["IMAGE_FOLDERS", "MASK_FOLDERS", "find_folder", "tell_of_passed_over", "where_else"]

_log = logging.getLogger(__name__)

IMAGE_FOLDERS = ("images", "image")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "annotation")
_MAX_LOOKED_AT = 200


def find_folder(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The folder of one of these names in another, whatever its capitals; None if there is none.

    Exactly the first name wins over all others.

    Raises
    ------
    DataError
        If there are several.
    """
    if (folder / names[0]).is_dir():
        return folder / names[0]
    found = [path for path in _folders(folder) if path.name.lower() in names]
    if len(found) > 1:
        listed = " and ".join(path.name for path in found)
        raise DataError(
            f"{folder}: {listed} are both there; expected one of them. Rename the right one to "
            f"{names[0]}" + (", or name it with --masks." if names is MASK_FOLDERS else ".")
        )
    return found[0] if found else None


def tell_of_passed_over(*folders: Path) -> None:
    """Log one line for each folder with files that look like images and are not read."""
    for folder in folders:
        files = [found for found in passed_over(folder) if not found[0].name.endswith("_seg.npy")]
        if files:
            _log.warning(
                "%s: passed over: %s (%s): %s",
                *(folder, counted(len(files), "file"), some([path.name for path, _ in files])),
                "; ".join(dict.fromkeys(reason for _, reason in files)),
            )


def where_else(folder: Path) -> str:
    """A sentence with the command for the data set that lies around or in a folder; empty without one."""
    parent = folder.resolve().parent
    for path in (parent, *_folders(folder)[:_MAX_LOOKED_AT]):
        if _is_layout(path):
            if path == parent and folder.name not in ("", ".."):
                path = folder.parent
            return f" {path} looks like the data set: cellflow prepare {quote(str(path))}"
    return ""


def _is_layout(folder: Path) -> bool:
    try:
        if find_table(folder, "train.csv") is not None and (folder / "train").is_dir():
            return True
        folders = find_folder(folder, IMAGE_FOLDERS), find_folder(folder, MASK_FOLDERS)
        return None not in folders or _has_pairs(folder)
    except (DataError, OSError):
        return False


def _has_pairs(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.glob("*_masks.*"))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")

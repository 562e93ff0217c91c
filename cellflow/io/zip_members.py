"""Files in a zip, with limits that are checked before anything is unpacked."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cellflow.errors import DataError
from cellflow.io._damage import unreadable
from cellflow.storage.sizes import size_text
from cellflow.storage.zips import ZIP_DAMAGES, names_in_zip

__all__ = ["names_in", "read_members"]

MAX_FILE = 256 * 2**20
"""Bytes of a zip."""
MAX_MEMBERS = 500_000
MAX_MEMBER, MAX_TOTAL = 64 * 2**20, 2 * 2**30
"""Bytes of one member and of all, unpacked."""
MAX_RATIO, FREE = 200, 2**20
"""Unpacked over packed size, of a member larger than so many bytes."""


def read_members(path: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the members of a zip whose names end in `suffix`, in their order.

    Names are given without folders and ending; nothing is written. What Macs put beside files is passed over.

    Raises
    ------
    DataError
        If it is no zip, is damaged or encrypted, or is larger than any that holds outlines: so many members,
        such sizes, or packed so tightly.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE:
            raise _too_large(path, f"{size_text(size)}", size_text(MAX_FILE))
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check(path, members)
            for member in members:
                name = PurePosixPath(member.filename)
                if name.suffix.lower() == suffix and name.name[0] != ".":
                    with archive.open(member) as file:
                        yield name.stem, file.read(MAX_MEMBER + 1)
    except ZIP_DAMAGES as error:
        text = f"{path}: not a zip, or a damaged or encrypted one ({error}). Save it again."
        raise DataError(text, path=path) from error
    except OSError as error:
        raise unreadable(path, error) from error


def names_in(path: Path) -> list[str]:
    """Names of what a zip says it holds; none where it is no zip, or larger than any that is read."""
    try:
        return [] if path.stat().st_size > MAX_FILE else names_in_zip(path)
    except OSError:
        return []


def _check(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse a zip by what its table says; the library stops reading where a member is larger than that."""
    if len(members) > MAX_MEMBERS:
        raise _too_large(path, f"{len(members)} files", f"{MAX_MEMBERS}")
    total = sum(member.file_size for member in members)
    if total > MAX_TOTAL:
        raise _too_large(path, f"{size_text(total)} unpacked", size_text(MAX_TOTAL))
    for member in members:
        if member.file_size > MAX_MEMBER:
            found = f"{member.filename!r} of {size_text(member.file_size)}"
            raise _too_large(path, found, size_text(MAX_MEMBER))
        if member.file_size > max(FREE, MAX_RATIO * member.compress_size):
            found = (
                f"{member.filename!r}, {member.file_size} bytes packed into {member.compress_size}"
            )
            raise _too_large(path, found, f"{MAX_RATIO} times the packed size")


def _too_large(path: Path, found: str, limit: str) -> DataError:
    text = f"{path}: expected a zip of outlines, found {found} (at most {limit}). Is it another kind of zip?"
    return DataError(text, path=path, expected=limit, found=found)

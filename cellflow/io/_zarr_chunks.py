"""The files that hold the chunks of a zarr: whether any is there, and that none unpacks to more than its chunk."""

from __future__ import annotations

import os
from pathlib import Path

from cellflow.errors import DataError
from cellflow.io._zarr_metadata import METADATA_FILES, ArrayFacts

__all__ = ["check_chunks"]

_GROWTH, _SLACK = 8, 2**16
"""By how much a filter may widen numbers, and bytes that headers and checksums may take."""
_HEAD = 18
"""Bytes at the start of a file in which its unpacked size stands, for the codecs that write it."""
_ZSTD = b"\x28\xb5\x2f\xfd"


def check_chunks(array: Path, group: Path, facts: ArrayFacts) -> bool:
    """Look at the files of an array before any of them is unpacked; returns whether there is one.

    Raises
    ------
    DataError
        If a link leads out of its group.
    ValueError
        If a file is larger than its chunk, or says that it unpacks to more.
    """
    found, top = False, Path(os.path.realpath(group))
    for place, folders, files in os.walk(array):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(top):
                raise DataError(
                    f"{name} is a link that leads out of it. Copy the whole image, without links.",
                    found=name,
                )
        for name in files:
            if name not in METADATA_FILES and name[0] != ".":
                found = True
                _refuse_swollen(Path(place, name), facts)
    return found


def _refuse_swollen(path: Path, facts: ArrayFacts) -> None:
    most = _GROWTH * facts.chunk_bytes + _SLACK
    with path.open("rb") as file:
        claimed = max(os.fstat(file.fileno()).st_size, _claimed(file.read(_HEAD), facts.packing))
    if claimed > most:
        raise ValueError(
            f"the chunk {path.name} claims {claimed:,} bytes, where {facts.chunk_bytes:,} belong"
        )


def _claimed(head: bytes, packing: str) -> int:
    """Bytes that a file unpacks to, by its header; 0 where none says so."""
    if packing == "blosc":
        return int.from_bytes(head[4:8], "little")
    if packing == "lz4":  # as numcodecs writes it
        return int.from_bytes(head[:4], "little")
    if packing == "zstd" and head.startswith(_ZSTD) and len(head) > len(_ZSTD):
        # RFC 8878, 3.1.1.1: flags, size of the window, number of the dictionary, size of the content
        flags = head[4]
        single = flags >> 5 & 1
        start = 6 - single + (0, 1, 2, 4)[flags & 3]
        length = (single, 2, 4, 8)[flags >> 6]
        size = int.from_bytes(head[start : start + length], "little")
        return size + 256 if length == 2 else size
    return 0

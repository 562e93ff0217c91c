"""The files that hold the chunks of a zarr: whether any is there, and that none unpacks to more than its chunk."""

from __future__ import annotations

import math
import operator
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np

from cellflow.errors import DataError
from cellflow.io._zarr_metadata import ArrayFacts, Shard

_GROWTH, _SLACK = 8, 2**16
"""By how much a filter may widen numbers, and bytes that headers and checksums may take."""
_HEAD = 18
"""Bytes at the start of a file in which its unpacked size stands, for the codecs that write it."""
_BY_HEADER = 47
"""What `zlib` is told for either of zlib and gzip."""
_ENTRY, _CHECKSUM, _NO_PIECE = 16, 4, 2**64 - 1
"""Bytes of a piece in the table of a shard, bytes after the table, and what stands for no piece."""
_HARDLY_ANY, _LARGE, _MANY = 1000, 2**26, 10_000
"""An image of more bytes, or more chunks, that claims more than so many times the chunks that are there is damaged."""
_ZSTD = b"\x28\xb5\x2f\xfd"


def check_chunks(array: Path, group: Path, facts: ArrayFacts) -> int:
    """Look at the files of an array before any of them is unpacked; returns how many there are.

    A link that leads out of its group is a DataError, a file that is or unpacks to more than its chunk a ValueError.
    """
    found, top = 0, Path(os.path.realpath(group))
    for place, folders, files in os.walk(array):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(top):
                raise _led_out(name)
        for path in (Path(place, name) for name in files):
            if _place_of(path, array, facts) is not None:
                found += 1
                _refuse_swollen(path, facts)
    return found


def check_chunk(array: Path, group: Path, facts: ArrayFacts, place: Sequence[int]) -> None:
    """Look at the file of one chunk, by its number along each axis, as `check_chunks` looks at all.

    One that is not there is no error: it has the fill value.
    """
    name = facts.chunk_name(place)
    path = array / name
    if not path.is_file():
        return
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(group)):
        raise _led_out(name)
    _refuse_swollen(path, facts)


def chunks_there(array: Path, facts: ArrayFacts) -> Iterator[tuple[int, ...]]:
    """Chunks that have a file, by their number along each axis."""
    for place, _, files in os.walk(array):
        for name in files:
            chunk = _place_of(Path(place, name), array, facts)
            if chunk is not None:
                yield chunk


def has_chunks(array: Path, facts: ArrayFacts) -> bool:
    """Whether an array has a chunk at all."""
    return next(chunks_there(array, facts), None) is not None


def refuse_hardly_any(facts: ArrayFacts, there: int) -> None:
    """Refuse a large image that has some chunks, but less than a thousandth of those that it claims."""
    count = math.prod(facts.counts)
    if (facts.bytes > _LARGE or count > _MANY) and 0 < there <= count // _HARDLY_ANY:
        raise ValueError(f"only {there} of its {count:,} chunks are there")


def _place_of(path: Path, array: Path, facts: ArrayFacts) -> tuple[int, ...] | None:
    """The number of a chunk along each axis by its file; None for what others put there (``Thumbs.db``)."""
    text = path.relative_to(array).as_posix()
    numbers = text.removeprefix(facts.prefix).split(facts.separator)
    if not text.startswith(facts.prefix) or not all(number.isdecimal() for number in numbers):
        return None
    place, counts = tuple(map(int, numbers)), facts.counts
    inside = len(place) == len(counts) and all(map(operator.lt, place, counts))
    return place if inside else None


def _led_out(name: str) -> DataError:
    text = f"{name} is a link that leads out of it. Copy the whole image, without links."
    return DataError(text, found=name)


def _refuse_swollen(path: Path, facts: ArrayFacts) -> None:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        _refuse_more(path.name, size, facts.chunk_bytes)
        if facts.shard is None:
            claimed = _claimed(file, size, facts.packing, facts.chunk_bytes)
            _refuse_more(path.name, claimed, facts.chunk_bytes)
            return
        expected = facts.chunk_bytes // max(1, facts.shard.pieces)
        for start, length in _pieces(file, size, facts.shard):
            file.seek(start)
            claimed = _claimed(file, length, facts.shard.packing, expected)
            _refuse_more(f"{path.name} from byte {start} on", max(length, claimed), expected)


def _refuse_more(name: str, claimed: int, expected: int) -> None:
    if claimed > _GROWTH * expected + _SLACK:
        raise ValueError(f"the chunk {name} claims {claimed:,} bytes, where {expected:,} belong")


def _pieces(file: BinaryIO, size: int, shard: Shard) -> Iterator[tuple[int, int]]:
    """Start and length of the pieces in a shard, by its table; each place once, in their order."""
    length = shard.pieces * _ENTRY
    file.seek(0 if shard.index_first else max(0, size - length - _CHECKSUM))
    table = np.frombuffer(file.read(length), "<u8")
    if len(table) < 2 * shard.pieces:
        raise ValueError(f"a shard of {size:,} bytes for {shard.pieces:,} pieces")
    for start, count in np.unique(table.reshape(-1, 2), axis=0).tolist():
        if start == count == _NO_PIECE:
            continue
        if start + count > size:
            raise ValueError(f"a piece that ends at byte {start + count:,} of {size:,}")
        yield start, count


def _claimed(file: BinaryIO, length: int, packing: str, expected: int) -> int:
    """Bytes that the next so many of a file unpack to; 0 where nothing is packed."""
    most = _GROWTH * expected + _SLACK
    if packing in ("gzip", "zlib"):
        return _inflated(file, length, most)
    start = file.tell()
    head = file.read(min(length, _HEAD))
    if packing == "blosc":
        return int.from_bytes(head[4:8], "little")
    if packing == "lz4":  # as numcodecs writes it
        return int.from_bytes(head[:4], "little")
    if packing != "zstd":
        return 0
    if (size := _zstd_size(head)) is not None:
        return size
    file.seek(start)
    return _unpacked_zstd(file.read(length), most)


def _inflated(file: BinaryIO, length: int, most: int) -> int:
    """Bytes that zlib or gzip unpack to, counted piece by piece and not much beyond `most`."""
    total, unpacker = 0, zlib.decompressobj(_BY_HEADER)
    with suppress(zlib.error):  # damage, which is told when it is read
        while length > 0 and (data := file.read(min(length, _SLACK))):
            length -= len(data)
            while data and total <= most:
                if unpacker.eof:  # gzip may go on after its end
                    unpacker = zlib.decompressobj(_BY_HEADER)
                total += len(unpacker.decompress(data, _SLACK))
                data = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            if total > most:
                break
    return total


def _zstd_size(head: bytes) -> int | None:
    """Size by the header of a frame (RFC 8878, 3.1.1.1), None where it does not say it."""
    if not head.startswith(_ZSTD) or len(head) == len(_ZSTD):
        raise ValueError("a chunk that is no zstd")
    # flags, size of the window, number of the dictionary, size of the content
    flags = head[4]
    single = flags >> 5 & 1
    start = 6 - single + (0, 1, 2, 4)[flags & 3]
    length = (single, 2, 4, 8)[flags >> 6]
    size = int.from_bytes(head[start : start + length], "little")
    return None if not length else size + 256 if length == 2 else size


def _unpacked_zstd(data: bytes, most: int) -> int:
    """Size of frames that do not say it; one more than `most` if they do not go into that."""
    try:
        return len(imagecodecs.zstd_decode(data, out=most))
    except imagecodecs.ZstdError as error:
        if "too small" in str(error):
            return most + 1
        raise

"""What a zarr says of itself in its JSON files, versions 2 and 3, before anything in it is unpacked."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cellflow.errors import DataError

__all__ = ["ArrayFacts", "array_facts", "attributes", "has_chunks", "inside", "is_zarr"]

_GROUP_FILES = ("zarr.json", ".zgroup", ".zattrs")
_METADATA = {"zarr.json", ".zgroup", ".zattrs", ".zarray", ".zmetadata"}
_LARGEST_JSON = 2**28
"""Bytes; properties of a million cells take half of it."""
_CODECS = {
    "bytes", "transpose", "blosc", "gzip", "zstd", "crc32c", "sharding_indexed", "zlib", "lz4", "lzma",
    "bz2", "delta", "shuffle", "fixedscaleoffset", "bitround", "packbits", "crc32", "adler32", "fletcher32",
}  # fmt: skip
"""Codecs that are run; others, of which pickle is one, may run whatever a file asks for."""
_NUMBERS = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {
    "bool", "float16", "float32", "float64",
}  # fmt: skip


class ArrayFacts(NamedTuple):
    """Shape, type and pieces of an array, as its metadata claims."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def bytes(self) -> int:
        """Of all its numbers in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def chunk_bytes(self) -> int:
        """Of one piece in memory."""
        return math.prod(self.chunks) * self.dtype.itemsize


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group."""
    return path.is_dir() and any((path / name).is_file() for name in _GROUP_FILES)


def inside(group: Path, name: Any) -> Path:
    """A place in a group, of which the group's metadata gives the name.

    Raises
    ------
    DataError
        If it is no name, or the name or a link leads out of the group.
    """
    place = group / str(name)
    real, top = Path(os.path.realpath(place)), Path(os.path.realpath(group))
    if not isinstance(name, str) or "\0" in name or not real.is_relative_to(top):
        raise DataError(
            f"it refers to {name!r}, which is not inside it. Copy the whole image, without links.",
            found=name,
        )
    return place


def attributes(group: Path) -> dict[str, Any]:
    """What OME-Zarr says of a group, of whatever version; empty where there is nothing."""
    if (group / "zarr.json").is_file():
        found = _load(group / "zarr.json").get("attributes", {})
        found = found.get("ome", found) if isinstance(found, dict) else {}
    elif (group / ".zattrs").is_file():
        found = _load(group / ".zattrs")
    else:
        found = {}
    return found if isinstance(found, dict) else {}


def array_facts(path: Path) -> ArrayFacts:
    """Read the metadata of an array.

    Raises
    ------
    DataError
        If there is none, or it needs a codec or holds a type that is not taken.
    ValueError, KeyError, TypeError
        If it makes no sense.
    """
    if (path / "zarr.json").is_file():
        found = _load(path / "zarr.json")
        if found.get("node_type") != "array":
            raise DataError(f"{path.name} is no array.", found=found.get("node_type"))
        chunks, kind = found["chunk_grid"]["configuration"]["chunk_shape"], found["data_type"]
        codecs: Any = found["codecs"]
    elif (path / ".zarray").is_file():
        found = _load(path / ".zarray")
        chunks, kind = found["chunks"], found["dtype"]
        codecs = [found.get("compressor"), *(found.get("filters") or [])]
    else:
        raise DataError(f"its level {path.name} is missing. Copy the whole image again.")
    _refuse_codecs(codecs)
    dtype = np.dtype(kind) if isinstance(kind, str) else None
    if dtype is None or dtype.name not in _NUMBERS:
        raise DataError(f"expected whole or real numbers, found {kind}.", found=kind)
    return ArrayFacts(_lengths(found["shape"]), _lengths(chunks), dtype)


def _refuse_codecs(codecs: Iterable[Any]) -> None:
    """Refuse codecs that are not known, those inside of shards too."""
    for codec in codecs:
        if codec is None:
            continue
        name = codec if isinstance(codec, str) else codec.get("name", codec.get("id"))
        if str(name).removeprefix("numcodecs.") not in _CODECS:
            raise DataError(f"its pixels are packed with {name!r}, which is not read.", found=name)
        inner = codec.get("configuration") if isinstance(codec, Mapping) else None
        for key in ("codecs", "index_codecs"):
            _refuse_codecs((inner or {}).get(key, ()))


def has_chunks(array: Path, group: Path) -> bool:
    """Whether any piece of an array is there; DataError where a link leads out of its group."""
    found, top = False, Path(os.path.realpath(group))
    for place, folders, files in os.walk(array):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(top):
                raise DataError(
                    f"{name} is a link that leads out of it. Copy the whole image, without links.",
                    found=name,
                )
        found = found or any(name not in _METADATA and name[0] != "." for name in files)
    return found


def _load(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; ValueError for anything else."""
    if path.stat().st_size > _LARGEST_JSON:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes")
    try:
        found = json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deep") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no object")
    return found


def _lengths(values: Any) -> tuple[int, ...]:
    """Lengths of axes; ValueError where they are not."""
    found = tuple(values)
    if not found or any(type(value) is not int or value < 1 for value in found):
        raise ValueError(f"expected lengths of axes, found {values}")
    return found

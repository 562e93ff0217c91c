"""What a zarr says of itself in its JSON files, versions 2 and 3, before anything in it is unpacked."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cellflow.errors import DataError

_GROUP_FILES = ("zarr.json", ".zgroup", ".zattrs")
_LARGEST_JSON = 2**28
"""Bytes; properties of a million cells take half of it."""
_LONGEST = 2**40
"""Pixels along an axis; zarr counts chunks in floating point, and from 2**53 on it counts without end."""
_CODECS = {
    "bytes", "transpose", "blosc", "gzip", "zstd", "crc32c", "sharding_indexed", "zlib", "lz4", "delta",
    "shuffle", "fixedscaleoffset", "bitround", "packbits", "crc32", "adler32", "fletcher32",
}  # fmt: skip
"""Codecs that are run; others, of which pickle is one, may run whatever a file asks for, or unpack to any size."""
_SHARD = "sharding_indexed"
_PACKINGS = {"blosc", "gzip", "zstd", "zlib", "lz4", _SHARD}
"""Those of which the size must be known before they are run; others widen numbers at most."""
_CHECKSUMS = {"crc32c", "crc32", "adler32", "fletcher32"}
_NUMBERS = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {
    "bool", "float16", "float32", "float64",
}  # fmt: skip


class Shard(NamedTuple):
    """How the chunks of an array are cut into pieces that are packed each for itself."""

    pieces: int
    """Of one chunk."""
    packing: str
    index_first: bool
    """Whether the table of the pieces stands before them."""


class ArrayFacts(NamedTuple):
    """Shape, type and pieces of an array, as its metadata claims."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    packing: str
    """The codec that packs chunks last, empty where none does."""
    shard: Shard | None = None
    prefix: str = ""
    """What the names of chunks begin with."""
    separator: str = "."
    """Between their numbers along the axes."""

    @property
    def bytes(self) -> int:
        """Of all its numbers in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def chunk_bytes(self) -> int:
        """Of one piece in memory."""
        return math.prod(self.chunks) * self.dtype.itemsize

    @property
    def counts(self) -> tuple[int, ...]:
        """Chunks along each axis."""
        return tuple(-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True))

    def chunk_name(self, place: Sequence[int]) -> str:
        """File of a chunk in the folder of the array, by its number along each axis."""
        return self.prefix + self.separator.join(map(str, place))


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group; one that may not be looked into is none."""
    with suppress(OSError):
        return path.is_dir() and any((path / name).is_file() for name in _GROUP_FILES)
    return False


def inside(group: Path, name: Any) -> Path:
    """A place in a group, of which the group's metadata gives the name; it must not lead out of the group."""
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
    """Read the metadata of an array; ValueError, KeyError or TypeError where it makes no sense."""
    if (path / "zarr.json").is_file():
        found = _load(path / "zarr.json")
        if found.get("node_type") != "array":
            raise DataError(f"{path.name} is no array.", found=found.get("node_type"))
        chunks, kind = found["chunk_grid"]["configuration"]["chunk_shape"], found["data_type"]
        codecs: Any = found["codecs"]
        prefix, separator = _names_of_chunks(found.get("chunk_key_encoding"))
    elif (path / ".zarray").is_file():
        found = _load(path / ".zarray")
        if (path / ".zattrs").is_file():
            _refuse_large(path / ".zattrs")  # zarr reads it too
        chunks, kind = found["chunks"], found["dtype"]
        codecs = [*(found.get("filters") or []), found.get("compressor")]
        prefix, separator = "", str(found.get("dimension_separator") or ".")
    else:
        raise DataError(f"its level {path.name} is missing. Copy the whole image again.")
    packing = _packing(codecs)
    dtype = np.dtype(kind) if isinstance(kind, str) else None
    if dtype is None or dtype.name not in _NUMBERS:
        raise DataError(f"expected whole or real numbers, found {kind}.", found=kind)
    shape, chunks = _lengths(found["shape"]), _lengths(chunks)
    shard = _shard(codecs[-1]["configuration"], chunks) if packing == _SHARD else None
    return ArrayFacts(shape, chunks, dtype, packing, shard, prefix, separator)


def _names_of_chunks(encoding: Any) -> tuple[str, str]:
    """What the names of chunks begin with, and what stands between their numbers, in zarr 3."""
    facts: Mapping[str, Any] = (
        encoding if isinstance(encoding, dict) else {"name": encoding or "default"}
    )
    settings = facts.get("configuration") or {}
    if facts["name"] == "v2":
        return "", str(settings.get("separator", "."))
    separator = str(settings.get("separator", "/"))
    return f"c{separator}", separator


def _packing(codecs: Iterable[Any]) -> str:
    """The codec that packs last, without checksums; refuses those that are not known, and packed data packed again."""
    given = [codec for codec in codecs if codec is not None]
    names = [_codec_name(codec) for codec in given]
    if given and _at_the_end(given[-1]):
        del names[-1]
    if len(set(names)) < len(names) or _PACKINGS & set(names[:-1]):
        text = f"its pixels are packed with {', '.join(names)} in turn, which is not read."
        raise DataError(text, found=names)
    found = [name for name in names if name not in _CHECKSUMS]
    return found[-1] if found else ""


def _codec_name(codec: Any) -> str:
    name = codec if isinstance(codec, str) else codec.get("name", codec.get("id"))
    plain = str(name).removeprefix("numcodecs.")
    if plain not in _CODECS:
        raise DataError(f"its pixels are packed with {name!r}, which is not read.", found=name)
    return plain


def _shard(facts: Mapping[str, Any], chunks: tuple[int, ...]) -> Shard:
    """How chunks are cut; their table must be plain numbers and a checksum, as writers make it."""
    packing = _packing(facts["codecs"])
    index = facts["index_codecs"]
    names = [_codec_name(codec) for codec in index]
    known = names == ["bytes", "crc32c"] and _at_the_end(index[1])
    if packing == _SHARD or not known or index[0]["configuration"]["endian"] != "little":
        raise DataError(
            f"its pixels are packed with {_SHARD} of {packing or 'bytes'} with a table of {', '.join(names)}, "
            "which is not read.",
            found=names,
        )
    pieces = math.prod(chunks) // math.prod(_lengths(facts["chunk_shape"]))
    return Shard(pieces, packing, facts.get("index_location") == "start")


def _at_the_end(codec: Any) -> bool:
    """Whether a codec puts a checksum behind the bytes, and not before them."""
    return codec == "crc32c" or (
        isinstance(codec, Mapping)
        and codec.get("name") == "crc32c"
        and not codec.get("configuration")
    )


def _load(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; ValueError for anything else."""
    _refuse_large(path)
    try:
        found = json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deep") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no object")
    return found


def _refuse_large(path: Path) -> None:
    size = path.stat().st_size
    if size > _LARGEST_JSON:
        raise ValueError(f"{path.name} has {size:,} bytes")


def _lengths(values: Any) -> tuple[int, ...]:
    """Lengths of axes; ValueError where they are not."""
    found = tuple(values)
    if not found or any(type(value) is not int or not 1 <= value <= _LONGEST for value in found):
        raise ValueError(f"expected lengths of axes, found {values}")
    return found

"""Hashes that say whether two things are the same."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["hash_array", "hash_bytes", "hash_file", "hash_json"]

_DIGEST_BYTES = 16


def hash_bytes(*chunks: bytes) -> str:
    """Hash of chunks of bytes, as 32 hexadecimal digits; where one chunk ends matters."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for chunk in chunks:
        digest.update(len(chunk).to_bytes(8, "little"))
        digest.update(chunk)
    return digest.hexdigest()


def hash_array(array: NDArray[Any]) -> str:
    """Hash of dtype, shape and content of an array."""
    import numpy as np  # not needed for hashes of text, which every command makes

    plain = np.ascontiguousarray(array)
    little = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
    return hash_bytes(little.dtype.str.encode(), str(plain.shape).encode(), little.tobytes())


def hash_json(value: Any) -> str:
    """Hash of a value made of JSON types, whatever the order of its keys."""
    return hash_bytes(json.dumps(value, sort_keys=True).encode())


def hash_file(path: Path) -> str:
    """Hash of the content of a file."""
    blake = partial(hashlib.blake2b, digest_size=_DIGEST_BYTES)
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, blake).hexdigest()

"""Flows of many images in one zarr folder: float16, one array an image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from cellflow.errors import DataError
from cellflow.storage.records import LARGEST

__all__ = ["FlowStore"]

_MODES: dict[str, Literal["r", "w", "r+"]] = {"r": "r", "w": "w", "a": "r+"}
_LARGEST_RATIO = 300
"""How much smaller than its array a file can be: blosc's best, and some more."""


class FlowStore:
    """Flow and logit per image id.

    Parameters
    ----------
    path : Path
        Folder of the store.
    mode : {"r", "w", "a"}
        Read an existing store, make a new one, or add to one; several processes may add images, each others.

    Notes
    -----
    Each array is ``(3, H, W)`` float16: dY and dX (5 times the unit flow) and the cellprob logit. Its
    attributes say what made it. The mask step rounds live flows the same way.
    """

    def __init__(self, path: Path, mode: str = "r"):
        self.path = Path(path)
        if mode != "w" and not self.path.is_dir():
            text = f"No flows at {self.path}. Make them with: cellflow oof"
            raise DataError(text, path=self.path)
        with self._damage_told():
            _check_metadata(self.path)
            self._root = zarr.open_group(self.path, mode=_MODES[mode])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: str) -> bool:
        with self._damage_told():
            return _key(name) in self._root

    def __iter__(self) -> Iterator[str]:
        with self._damage_told():
            for folder in self.path.iterdir():
                _check_metadata(folder)
            return iter(sorted(key.removeprefix(".") for key in self._root.array_keys()))

    def write(
        self,
        name: str,
        flow: NDArray[np.floating[Any]],
        cellprob: NDArray[np.floating[Any]],
        **facts: Any,
    ) -> None:
        """Store flow ``(2, H, W)`` and logit ``(H, W)`` of an image, with facts of JSON types."""
        stacked = np.concatenate([flow, cellprob[np.newaxis]]).astype(np.float16)
        array = self._root.create_array(
            _key(name),
            shape=stacked.shape,
            chunks=stacked.shape,
            overwrite=True,  # by a second try of a task
            dtype=stacked.dtype,
            compressors=[BloscCodec(cname="lz4", clevel=5), Crc32cCodec()],
            attributes=facts,
            config={"write_empty_chunks": True},  # a chunk that is not there has been lost
        )
        array[:] = stacked

    def read(self, name: str) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """Flow ``(2, H, W)`` and logit ``(H, W)`` of an image, float16."""
        with self._damage_told(name):
            array = self._array(name)
            self._check(array)
            stacked = np.asarray(array[:])
        return stacked[:2], stacked[2]

    def facts(self, name: str) -> dict[str, Any]:
        """What was stored with an image's flows."""
        with self._damage_told(name):
            return dict(self._array(name).attrs)

    def number(self, name: str, fact: str) -> float:
        """A number that was stored with an image's flows."""
        with self._damage_told(name):
            return float(self.facts(name)[fact])

    def _check(self, array: zarr.Array[Any]) -> None:
        """Refuse what `write` does not write, before memory is taken for what it claims."""
        if array.ndim != 3 or array.shape[0] != 3 or array.dtype != np.float16:
            raise ValueError(f"expected (3, H, W) float16, found {array.shape} {array.dtype}")
        if array.chunks != array.shape or array.nchunks_initialized != 1:
            raise ValueError("expected one chunk for the whole image, found another number")
        if array.nbytes > _LARGEST_RATIO * array.nbytes_stored():
            raise ValueError(f"{array.shape} claims more than the file holds")
        if array.nbytes_stored() > 2 * array.nbytes + LARGEST:
            raise ValueError(f"{array.shape} is stored in {array.nbytes_stored():,} bytes")

    def _array(self, name: str) -> zarr.Array[Any]:
        if name not in self:
            text = f"No flows of image {name!r} in {self.path}, which has {len(self)} images."
            raise DataError(text, path=self.path, id=name)
        _check_metadata(self.path / _key(name))
        array = self._root[_key(name)]
        if not isinstance(array, zarr.Array):
            raise ValueError(f"expected an array, found {type(array).__name__}")
        return array

    @contextmanager
    def _damage_told(self, name: str = "") -> Iterator[None]:
        """Turn what zarr and its codecs raise on damaged files, of whatever kind, into one message."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:
            where = f" at image {name!r}" if name else ""
            why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            text = f"{self.path} is damaged{where} ({why}). Make it again with: cellflow oof"
            raise DataError(text, path=self.path, id=name or None) from error


def _check_metadata(folder: Path) -> None:
    """Refuse what zarr would read whole, whatever its size."""
    file = folder / "zarr.json"
    size = file.stat().st_size if file.is_file() else 0
    if size > LARGEST:
        raise ValueError(f"{file.name} has {size:,} bytes")


def _key(name: str) -> str:
    """Name of an image's array; zarr.json is zarr's own, and no id begins with a dot."""
    return f".{name}" if name.casefold() == "zarr.json" else name

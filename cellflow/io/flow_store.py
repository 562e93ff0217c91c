"""Flows of many images in one zarr folder: float16, one array an image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from cellflow.errors import DataError

__all__ = ["FlowStore"]


class FlowStore:
    """Flow and logit per image id.

    Parameters
    ----------
    path : Path
        Folder of the store.
    mode : {"r", "w"}
        Read an existing store, or make a new one.

    Notes
    -----
    Each array is ``(3, H, W)`` float16: dY and dX (5 times the unit flow) and the cellprob logit. Its
    attributes say what made it. The mask step rounds live flows the same way.
    """

    def __init__(self, path: Path, mode: str = "r"):
        self.path = Path(path)
        if mode == "r" and not self.path.is_dir():
            raise DataError(f"No flows at {self.path}. Make them with: cellflow oof")
        with self._damage_told():
            self._root = zarr.open_group(self.path, mode="w" if mode == "w" else "r")

    def __len__(self) -> int:
        return sum(1 for _ in self._root.array_keys())

    def __contains__(self, name: str) -> bool:
        return _key(name) in self._root

    def __iter__(self) -> Iterator[str]:
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
            dtype=stacked.dtype,
            compressors=BloscCodec(cname="lz4", clevel=5),
            attributes=facts,
        )
        array[:] = stacked

    def read(self, name: str) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """Flow ``(2, H, W)`` and logit ``(H, W)`` of an image, float16."""
        with self._damage_told():
            stacked = np.asarray(self._array(name)[:], dtype=np.float16)
        if stacked.ndim != 3 or len(stacked) != 3:
            raise DataError(f"{self.path}: expected (3, H, W) for {name!r}, found {stacked.shape}.")
        return stacked[:2], stacked[2]

    def facts(self, name: str) -> dict[str, Any]:
        """What was stored with an image's flows."""
        with self._damage_told():
            return dict(self._array(name).attrs)

    def _array(self, name: str) -> zarr.Array[Any]:
        if name not in self:
            raise DataError(
                f"No flows of image {name!r} in {self.path}, which has {len(self)} images."
            )
        return cast("zarr.Array[Any]", self._root[_key(name)])

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        """Turn what zarr and its codecs raise on damaged files into one message."""
        try:
            yield
        except DataError:
            raise
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path} is damaged ({type(error).__name__}: {error}). Make it again with: "
                "cellflow oof"
            ) from error


def _key(name: str) -> str:
    """Name of an image's array; zarr.json is zarr's own, and no id begins with a dot."""
    return f".{name}" if name.casefold() == "zarr.json" else name

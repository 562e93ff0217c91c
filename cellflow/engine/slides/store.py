"""What the blocks of a slide leave on disk while it is under way, in ``.blocks/`` of its folder.

::

    plan.json       what is done, see `cellflow.engine.slides.plan`
    NAME.zarr       flow, cellprob, disagreement, ends and cells of the whole image; no two blocks share a chunk
    STEP/NAME.npz   what else a step leaves of a block; written last, so where it is, the block is done
    joined.npy ...  what is known of all cells, see `cellflow.engine.slides.cell_list`
"""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from cellflow.engine.runtime.tasks import is_cancelled
from cellflow.engine.slides.blocks import BlockGrid
from cellflow.engine.slides.plan import BLOCKS, PLAN
from cellflow.errors import DataError, RunError
from cellflow.storage.arrays import map_array, read_again
from cellflow.storage.atomic import atomic_path, naming, remove_leftovers
from cellflow.types import Box

__all__ = ["NOTHING", "STEPS", "SlideStore", "remove_blocks"]

_log = logging.getLogger(__name__)

NOTHING = -1000.0
"""Logit where nothing was computed: background, whatever the thresholds."""
STEPS = ("flows", "ends", "cells", "checks", "labels", "tables")
"""Steps that leave something of every block, in their order; levels of the pyramid come after the labels."""

_ARRAYS: dict[str, tuple[tuple[int, ...], str, float]] = {
    "flow": ((2,), "float16", 0.0),
    "cellprob": ((), "float16", NOTHING),
    "disagreement": ((), "float16", 0.0),
    "ends": ((), "int32", -1),
    "cells": ((), "int32", 0),
}
"""Axes before rows and columns, type, and what stands where nothing was written."""


class SlideStore:
    """Arrays and records of a slide's blocks."""

    def __init__(self, folder: Path, grid: BlockGrid) -> None:
        self.path = folder / BLOCKS
        self.grid = grid

    def create(self) -> None:
        """Make the arrays that are not there."""
        side = self.grid.chunk
        for name, (before, dtype, fill) in _ARRAYS.items():
            if (self._array_path(name) / "zarr.json").is_file():
                continue
            path = self._array_path(name)
            with naming(path):
                zarr.create_array(
                    path,
                    shape=(*before, *self.grid.shape),
                    chunks=(*before, side, side),
                    dtype=dtype,
                    fill_value=fill,
                    compressors=BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
                    overwrite=True,
                )

    def _array_path(self, name: str) -> Path:
        return self.path / f"{name}.zarr"

    @cached_property
    def _arrays(self) -> dict[str, zarr.Array[Any]]:
        return {name: zarr.open_array(self._array_path(name), mode="r+") for name in _ARRAYS}

    def write(self, name: str, box: Box, values: NDArray[Any]) -> None:
        """Write a box of an array that no other block writes to."""
        array = self._arrays[name]
        with naming(self._array_path(name)):
            array[(..., *box.slices)] = values.astype(array.dtype, copy=False)

    def read(self, name: str, box: Box) -> NDArray[Any]:
        """Read a box of an array, in its own type."""
        return np.asarray(self._arrays[name][(..., *box.slices)])

    def fields(self, box: Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Flow ``(2, h, w)`` and logit ``(h, w)`` of a box."""
        flow, cellprob = self.read("flow", box), self.read("cellprob", box)
        return flow.astype(np.float32), cellprob.astype(np.float32)

    def done(self, step: str) -> set[str]:
        """Names of the blocks of which a step is done."""
        return {path.stem for path in (self.path / step).glob("*.npz") if path.name[0] != "."}

    def missing(self, step: str, names: Iterable[str]) -> list[str]:
        """Blocks of which a step is not done."""
        done = self.done(step)
        return [name for name in names if name not in done]

    def save(self, step: str, name: str, **values: Any) -> None:
        """Note that a step is done, with what it found; written last of all.

        Refused if nobody waits for it any more: its command was ended, and another one may have begun anew.
        """
        if is_cancelled():
            raise RunError(f"{self.path.parent}: {step} of block {name} is not wanted any more.")
        packed = (
            io.BytesIO()
        )  # a zip that a full disk cuts off complains again when it is collected
        np.savez(packed, **values)
        with atomic_path(self.path / step / f"{name}.npz") as temporary:
            temporary.write_bytes(packed.getbuffer())

    def load(self, step: str, name: str) -> dict[str, NDArray[Any]]:
        """What a step found in a block."""
        path = self.path / step / f"{name}.npz"
        try:
            return read_again(lambda: _arrays(path))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise DataError(
                f"{path} cannot be read ({error}). Remove it and repeat the command.", path=path
            ) from error

    def save_list(self, name: str, values: NDArray[Any]) -> None:
        """Keep an array that is about all blocks."""
        with (
            atomic_path(self.path / f"{name}.npy") as temporary,
            temporary.open("wb") as file,
        ):
            np.save(file, values)

    def open_list(self, name: str) -> NDArray[Any]:
        """An array that is about all blocks, read where it is looked at."""
        return map_array(self.path / f"{name}.npy")

    def forget(self, steps: Iterable[str]) -> None:
        """Remove what steps have found, so that they are done again."""
        for step in steps:
            shutil.rmtree(self.path / step, ignore_errors=True)

    def tidy(self) -> None:
        """Remove what killed processes have left."""
        for folder in (self.path, *(self.path / step for step in STEPS)):
            remove_leftovers(folder)

    def remove(self) -> None:
        """Remove all of it; the plan first, without which the rest means nothing."""
        (self.path.parent / PLAN).unlink(missing_ok=True)
        remove_blocks(self.path.parent)


def remove_blocks(folder: Path) -> None:
    """Remove what blocks have left in a slide's folder; what cannot be removed is told."""
    path = folder / BLOCKS
    if path.exists():
        shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            _log.warning("%s could not be removed; nothing needs it any more", path)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as found:
        return {key: found[key] for key in found.files}

"""OME-Zarr images (0.1 to 0.5, zarr 2 and 3), read chunk by chunk."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io import _ome_zarr
from cellflow.io._damage import damage_told
from cellflow.io._ome_zarr import Level, open_array, open_level, read_part
from cellflow.io._zarr_chunks import check_chunk, check_chunks, has_chunks, refuse_hardly_any
from cellflow.io.large.large_image import LargeImage, check_chunk_size, cut, log, pieces, place_text
from cellflow.io.pixel_size import PixelSize
from cellflow.types import Box

__all__ = ["ZarrImage"]

_AT_ONCE = 2**25
"""Bytes of small chunks that zarr unpacks in one call: one chunk a call takes twice the time."""

_MANY_CHANNELS = 1000
"""Of more, which a damaged digit may claim, most chunks must not be missing; slides may be of few chunks."""


class ZarrImage(LargeImage):
    """The folder of an OME-Zarr image.

    Every chunk is looked at before it is unpacked, as in whole reads. One that is not there has the fill
    value, as zarr has it.
    """

    kind: ClassVar[str] = "OME-Zarr"

    def __init__(self, path: Path, *, level: int = 0, pixel_size: PixelSize | None = None):
        with damage_told(path, self.kind):
            self._levels = _levels(path)
            first = self._levels[0]
            for item in self._levels:
                shard = item.facts.shard
                check_chunk_size(
                    item.facts.chunk_bytes // max(1, shard.pieces if shard else 1), "chunks"
                )
                if item.shape[2:] > (_MANY_CHANNELS,):  # a block of them all is read
                    refuse_hardly_any(item.facts, check_chunks(item.array, item.group, item.facts))
            shapes = [item.shape for item in self._levels]
            self._arrays = [open_array(item) for item in self._levels]
            self._checked: set[tuple[int, ...]] = set()
        super().__init__(path, shapes, first.facts.dtype, level=level, pixel_size=pixel_size)
        if not has_chunks(self._levels[self.level].array, self._levels[self.level].facts):
            log.warning(
                "%s: none of its chunks is there, so every pixel has the fill value. Unless it is meant to be "
                "empty, copy it again.",
                path,
            )

    def chunk(self, level: int | None = None) -> tuple[int, int]:
        """A chunk; of a shard, which is read in parts, the whole."""
        item = self._levels[self._known(level)]
        rows, columns = (item.facts.chunks[axis] for axis in item.order[:2])
        return rows, columns

    def factor(self, level: int | None = None) -> tuple[float, float]:
        """By the scales of the levels; by their shapes where they have none that make sense."""
        with suppress(ZeroDivisionError, *_ome_zarr.NONSENSE):
            fine, coarse = self._levels[0].scale, self._levels[self._known(level)].scale
            if fine is not None and coarse is not None:
                found = coarse[0] / fine[0], coarse[1] / fine[1]
                if all(math.isfinite(value) and value > 0 for value in found):
                    return found
        return super().factor(level)

    def _pixels(self, box: Box, level: int) -> NDArray[Any]:
        item, array = self._levels[level], self._arrays[level]
        out = np.empty((*box.shape, self.channels), self.dtype)
        rows, columns = self.chunk(level)
        more = max(1, math.isqrt(_AT_ONCE // max(1, item.facts.chunk_bytes)))
        planes = item.facts.chunks[item.order[2]] if len(item.order) == 3 else 1
        for piece in pieces(box, (rows * more, columns * more)):
            with damage_told(self.path, self.kind, f"level {level}, {place_text(piece)}"):
                for first in range(0, self.channels, planes):
                    part = slice(first, min(first + planes, self.channels))
                    self._check(item, piece, part.start // planes)
                    found = read_part(item, [*piece.slices, part][: len(item.order)], array)
                    out[(*cut(piece, box), part)] = found.reshape(*piece.shape, -1)
        return out

    def _check(self, item: Level, piece: Box, plane: int) -> None:
        """Look at the files of the chunks that a piece meets, before one of them is unpacked."""
        place = [0] * len(item.facts.shape)
        if len(item.order) == 3:
            place[item.order[2]] = plane
        rows, columns = (item.facts.chunks[axis] for axis in item.order[:2])
        for chunk in pieces(piece, (rows, columns)):
            place[item.order[0]], place[item.order[1]] = chunk.top // rows, chunk.left // columns
            name = (item.number, *place)
            if name not in self._checked:
                check_chunk(item.array, item.group, item.facts, place)
                self._checked.add(name)


def _levels(path: Path) -> list[Level]:
    """All levels; the first that cannot be opened ends them, and is told."""
    first = open_level(path)
    found = [first]
    for number in range(1, first.levels):
        try:
            item = open_level(path, number)
            _check_level(first, item)
        except (DataError, *_ome_zarr.NONSENSE) as error:
            log.warning("%s: level %d and those after it cannot be read (%s)", path, number, error)
            break
        found.append(item)
    return found


def _check_level(first: Level, item: Level) -> None:
    """That a level is a smaller copy of the first."""
    if (item.facts.dtype, item.shape[2:]) != (first.facts.dtype, first.shape[2:]):
        raise ValueError(
            f"expected {first.facts.dtype} with the channels {first.shape[2:]}, found {item.facts.dtype} with "
            f"{item.shape[2:]}"
        )
    if any(small > large for small, large in zip(item.shape, first.shape, strict=True)):
        raise ValueError(f"its shape {item.shape} is larger than {first.shape}")

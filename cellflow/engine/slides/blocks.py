"""The blocks of an image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cellflow.types import Box

__all__ = ["CHUNK", "BlockGrid"]

CHUNK = 512
"""Side of what is stored as one piece, at most; reading a margin around a block unpacks no more than it must."""

_SMALLEST_CHUNK = 128


@dataclass(frozen=True)
class BlockGrid:
    """An image of `shape` cut into squares of `block` pixels a side; those at the end are smaller.

    Blocks have names, ``ROW_COLUMN``, and numbers in the order of these.

    Examples
    --------
    >>> grid = BlockGrid((1000, 700), 512)
    >>> grid.names
    ['0_0', '0_1', '1_0', '1_1']
    >>> grid.core("1_1")
    Box(top=512, bottom=1000, left=512, right=700)
    """

    shape: tuple[int, int]
    block: int

    @property
    def rows(self) -> int:
        """Blocks below each other."""
        return -(-self.shape[0] // self.block)

    @property
    def columns(self) -> int:
        """Blocks beside each other."""
        return -(-self.shape[1] // self.block)

    @cached_property
    def names(self) -> list[str]:
        """Names of all blocks, row by row."""
        return [f"{row}_{column}" for row in range(self.rows) for column in range(self.columns)]

    @property
    def chunk(self) -> int:
        """Side of what is stored as one piece, which no two blocks share: the largest part of one that fits `CHUNK`.

        A block that has no sensible part, as its side is a prime number, is one piece: small pieces are files
        without number.
        """
        if max(self.shape) <= self.block:
            return CHUNK
        sides = (
            self.block // parts for parts in range(1, self.block + 1) if self.block % parts == 0
        )
        side = next(side for side in sides if side <= CHUNK)
        return side if side >= _SMALLEST_CHUNK else self.block

    def core(self, name: str) -> Box:
        """Where a block lies."""
        row, column = map(int, name.split("_"))
        top, left = row * self.block, column * self.block
        return Box(top, top + self.block, left, left + self.block).intersection(
            Box(0, self.shape[0], 0, self.shape[1])
        )

    def touching(self, box: Box) -> list[str]:
        """Names of the blocks that hold a pixel of a box, row by row."""
        if box.is_empty:
            return []
        rows = range(box.top // self.block, -(-box.bottom // self.block))
        columns = range(box.left // self.block, -(-box.right // self.block))
        return [f"{row}_{column}" for row in rows for column in columns]

    def number_of(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of the block that holds each place, a flat index of the image."""
        rows, columns = np.divmod(places, self.shape[1])
        return np.asarray(rows // self.block * self.columns + columns // self.block)

"""All cells of a slide: joined from the parts that lie in blocks, and numbered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellflow.config import MaskConfig
from cellflow.engine.slides.store import SlideStore
from cellflow.numeric.block_cells import CellTable

__all__ = ["JoinedCells", "join_cells", "number_cells"]

Longs = NDArray[np.int64]


class JoinedCells:
    """Cells of the whole slide, ascending by seed, read where they are looked at.

    ::

        joined.npy    seed, area, box (4), first pixel: a row per cell
        owned.npy     rows of the cells that may stay, by the block that holds their first pixel
        owners.npy    where the rows of each block begin in it, and the end
        numbers.npy   the number of each cell, 0 for one that is dropped; once all are checked
        holes.npy     place and number of every pixel of a hole, by the block that holds it
        hole_blocks.npy   where the pixels of each block begin in it, and the end
    """

    def __init__(self, store: SlideStore) -> None:
        self._store = store

    def table(self, rows: Longs) -> CellTable:
        """Some of the cells."""
        found = np.asarray(self._store.open_list("joined")[rows])
        return CellTable(found[:, 0], found[:, 1], found[:, 2:6], found[:, 6])

    def owned(self, name: str) -> Longs:
        """Rows of the cells that may stay and have their first pixel in a block."""
        return self._of_block("owners", "owned", name)

    def numbers(self, rows: Longs) -> Longs:
        """Numbers of some of the cells."""
        return np.asarray(self._store.open_list("numbers")[rows])

    def numbers_of_seeds(self, seeds: Longs) -> Longs:
        """Numbers of cells by their seeds."""
        known = self._store.open_list("joined")[:, 0]
        return self.numbers(np.searchsorted(known, seeds))

    def holes(self, name: str) -> Longs:
        """Place and number of every pixel in a block that a cell encloses, ascending by number."""
        return self._of_block("hole_blocks", "holes", name)

    def _of_block(self, starts: str, values: str, name: str) -> Longs:
        at = self._store.grid.names.index(name)
        begin, end = self._store.open_list(starts)[at : at + 2]
        return np.asarray(self._store.open_list(values)[begin:end])


def join_cells(store: SlideStore, mask: MaskConfig) -> int:
    """Put the parts of cells together that blocks have found; how many cells there are before the checks."""
    grid = store.grid
    parts = [store.load("cells", name) for name in grid.names]
    seed, area, box, first = (
        np.concatenate([part[key] for part in parts]) for key in ("seed", "area", "box", "first")
    )
    order = np.argsort(seed, kind="stable")
    seeds, starts = np.unique(seed[order], return_index=True)
    area, box, first = area[order], box[order], first[order]
    joined = np.empty((len(seeds), 7), dtype=np.int64)
    if len(seeds):
        joined[:, 0], joined[:, 1] = seeds, np.add.reduceat(area, starts)
        for column, least in enumerate((True, False, True, False)):
            extreme = np.minimum if least else np.maximum
            joined[:, 2 + column] = extreme.reduceat(box[:, column], starts)
        joined[:, 6] = np.minimum.reduceat(first, starts)
    pixels = grid.shape[0] * grid.shape[1]
    may_stay = joined[:, 1] <= mask.max_size_fraction * pixels
    if mask.min_size > 0:
        may_stay &= joined[:, 1] >= mask.min_size
    rows = np.flatnonzero(may_stay)
    owners = grid.number_of(joined[rows, 6])
    store.save_list("joined", joined)
    store.save_list("owned", rows[np.argsort(owners, kind="stable")])
    store.save_list("owners", _starts(owners, len(grid.names)))
    return len(rows)


def number_cells(store: SlideStore, mask: MaskConfig) -> int:
    """Number the cells that pass the checks by their first pixels, as in a whole image; how many they are."""
    grid = store.grid
    checks = [store.load("checks", name) for name in grid.names]
    rows = np.concatenate([item["rows"] for item in checks])
    keep = np.ones(len(rows), dtype=np.bool_)
    if mask.flow_threshold > 0:
        error = np.concatenate([item["error"] for item in checks])
        keep &= ~(error > np.float32(mask.flow_threshold))
    if mask.score_per_pixel > 0:
        probability = np.concatenate([item["probability"] for item in checks])
        keep &= probability >= mask.score_per_pixel
    joined = store.open_list("joined")
    rows = rows[keep]
    rows = rows[np.argsort(joined[rows, 6], kind="stable")]
    numbers = np.zeros(len(joined), dtype=np.int64)
    numbers[rows] = np.arange(1, len(rows) + 1)
    holes = np.empty((0, 2), dtype=np.int64)
    if mask.fill_holes:
        places = np.concatenate([item["holes"] for item in checks])
        of = numbers[np.concatenate([item["hole_of"] for item in checks])]
        holes = np.stack([places[of > 0], of[of > 0]], axis=1)
    blocks = grid.number_of(holes[:, 0])
    store.save_list("holes", holes[np.lexsort((holes[:, 1], blocks))])
    store.save_list("hole_blocks", _starts(blocks, len(grid.names)))
    store.save_list("numbers", numbers)
    return len(rows)


def _starts(blocks: Longs, count: int) -> Longs:
    """Where the items of each block begin, once they are sorted by it, and the end."""
    return np.concatenate([[0], np.cumsum(np.bincount(blocks, minlength=count))]).astype(np.int64)

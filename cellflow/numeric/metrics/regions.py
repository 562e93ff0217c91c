"""Cells that are left out of an evaluation: at the border, and in regions to ignore."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.numeric._runs import owner_of_runs, pixels_of_runs
from cellflow.numeric.labels import bounded, measure_areas
from cellflow.types import Instances

__all__ = ["BORDER", "drop_border", "drop_ignored", "leave_out"]

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Drops = Callable[[Ints, Ints], Bools]

BORDER = 2
"""Pixels from the edge of an image in which a cell is at the border, as in NeurIPS 2022."""


def leave_out(cells: Any, *, border: bool = False, ignore: Any = None) -> tuple[Any, Bools]:
    """What of the cells of one side counts.

    Parameters
    ----------
    cells : Instances or (H, W) integer ndarray
    border : bool
        Leave out cells at the border, see `drop_border`.
    ignore : (H, W) bool or integer ndarray, optional
        Regions to ignore, see `drop_ignored`.

    Returns
    -------
    cells : Instances or (H, W) integer ndarray
        The same kind; numbers of a label map stay.
    kept : (n,) bool ndarray
        Which of the cells are left, in their order.

    Raises
    ------
    DataError
        If the region has another size.
    """
    kept = np.ones(_count(cells), dtype=np.bool_)
    if border:
        cells, kept = drop_border(cells)
    if ignore is not None:
        cells, left = drop_ignored(cells, ignore)
        kept[kept] = left
    return cells, kept


def drop_border(cells: Any) -> tuple[Any, Bools]:
    """The cells that have no pixel within `BORDER` pixels of the edge of the image, and which these are.

    The NeurIPS 2022 cell segmentation challenge leaves out cells in the outer 2 pixels, true and predicted
    ones each by themselves (``remove_boundary_cells`` of its ``compute_metric.py``). Its evaluator cuts images
    of 5000 x 5000 pixels and more into tiles first and drops the cells at their edges too; this does not.
    """
    height, width = cells.shape
    frame = np.ones((height, width), dtype=np.bool_)
    frame[BORDER : max(height - BORDER, 0), BORDER : max(width - BORDER, 0)] = False
    return _without(cells, lambda inside, areas: inside > 0, frame, clip=False)


def drop_ignored(cells: Any, ignore: Any) -> tuple[Any, Bools]:
    """Cells without what lies in regions to ignore, and which are left.

    A cell with more than half of its pixels there is left out; of the others those pixels are taken away. Done
    to truth and prediction alike, no pixel of these regions counts, and a prediction that lies mostly in them
    is neither right nor wrong.
    """
    region = np.asarray(ignore) != 0
    if region.shape != tuple(cells.shape):
        raise DataError(
            f"regions to ignore: expected the size of the image, {tuple(cells.shape)}, found {region.shape}",
            expected=tuple(cells.shape),
            found=region.shape,
        )
    return _without(cells, lambda inside, areas: 2 * inside > areas, region, clip=True)


def _count(cells: Any) -> int:
    if isinstance(cells, Instances):
        return len(cells)
    return int(np.count_nonzero(measure_areas(*bounded(cells))))


def _without(cells: Any, drops: Drops, region: Bools, *, clip: bool) -> tuple[Any, Bools]:
    """Cells that `drops` does not name by their pixels in a region and in all; clipped, without that region."""
    if isinstance(cells, Instances):
        return _instances_without(cells, drops, region, clip=clip)
    plain, top = bounded(cells)
    areas = measure_areas(plain, top)
    inside = np.bincount(plain[region], minlength=top + 1)
    dropped = drops(inside, areas)
    table = np.arange(top + 1, dtype=np.int32)
    table[dropped] = 0
    kept = table[plain]
    if clip:
        kept[region] = 0
    return kept, ~dropped[areas > 0]


def _instances_without(
    cells: Instances, drops: Drops, region: Bools, *, clip: bool
) -> tuple[Instances, Bools]:
    owner = owner_of_runs(cells)
    covered = np.concatenate([[0], np.cumsum(region.reshape(-1))])
    in_run = covered[cells.starts + cells.lengths] - covered[cells.starts]
    inside = np.bincount(owner, weights=in_run, minlength=len(cells)).astype(np.int64)
    kept = ~drops(inside, cells.areas)
    stays = kept[owner]
    owner, starts, lengths = owner[stays], cells.starts[stays], cells.lengths[stays]
    if clip:
        run, starts, lengths = _runs_outside(region.reshape(-1), starts, lengths)
        owner = owner[run]
    offsets = np.searchsorted(owner, np.append(np.flatnonzero(kept), len(kept)))
    return Instances(cells.shape, starts, lengths, offsets.astype(np.int64)), kept


def _runs_outside(region: Bools, starts: Ints, lengths: Ints) -> tuple[Ints, Ints, Ints]:
    """Parts of runs that lie outside a region: of which run each is, starts and lengths."""
    run = np.repeat(np.arange(len(starts)), lengths)
    place = pixels_of_runs(starts, lengths)
    outside = ~region[place]
    run, place = run[outside], place[outside]
    begins = np.ones(len(place), dtype=np.bool_)
    begins[1:] = (run[1:] != run[:-1]) | (place[1:] != place[:-1] + 1)
    first = np.flatnonzero(begins)
    return run[first], place[first], np.diff(np.append(first, len(place)))

"""Scores of one image for whole grids of thresholds, following flows once per cellprob threshold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.numeric._jit import run_blocks
from cellflow.numeric._measure import close_holes, relabel
from cellflow.numeric.dynamics import (
    Candidates,
    Method,
    candidate_errors,
    candidate_probabilities,
    check_fields,
    drop_disagreeing,
    find_candidates,
    finish,
)
from cellflow.numeric.labels import measure_areas
from cellflow.numeric.matching import as_instances, match
from cellflow.numeric.metrics.counts import count_cells
from cellflow.numeric.metrics.selection import SelectCounts
from cellflow.numeric.score import (
    AT_50,
    AT_75,
    COMPETITION_THRESHOLDS,
    exact_fractions,
    hit_levels,
)
from cellflow.types import Instances, Score

__all__ = ["MaskFilter", "SweepCounts", "score_filters", "sweep"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Number = TypeVar("Number", np.int64, np.float64)

_FRACTIONS = exact_fractions(np.array(COMPETITION_THRESHOLDS))
# Pixels. Up to here one thread takes a whole threshold, which wastes nothing; each needs some 30 bytes
# a pixel at once, so larger images are taken one after the other, each by all threads.
_SMALL = 2**21


@dataclass(frozen=True, eq=False, kw_only=True)
class SweepCounts(SelectCounts):
    """Counts of one image for every combination of thresholds, axes ``(C, F, M)``.

    Attributes
    ----------
    cellprob_thresholds, flow_thresholds, min_sizes : (C,), (F,), (M,) float64 ndarray
        The grid; a flow threshold of 0 is "no check".
    iou_thresholds : (T,) float64 ndarray
        Those of the competition.
    """

    cellprob_thresholds: NDArray[np.float64]
    flow_thresholds: NDArray[np.float64]
    min_sizes: NDArray[np.float64]
    iou_thresholds: NDArray[np.float64]

    @property
    def scores(self) -> NDArray[np.float64]:
        """Competition score of the image per combination, ``(C, F, M)``."""
        return self.value("competition")

    def at(self, cellprob_index: int, flow_index: int, size_index: int) -> Score:
        """The counts of one combination as the `Score` of one image."""
        place = cellprob_index, flow_index, size_index
        return Score(
            self.iou_thresholds, self.tp[place][None], self.fp[place][None], self.fn[place][None]
        )


def sweep(
    flow: Any,
    cellprob: Any,
    truth: Any,
    *,
    cellprob_thresholds: Sequence[float],
    flow_thresholds: Sequence[float | None],
    min_sizes: Sequence[int],
    niter: int | None = None,
    method: Method = "basin",
    max_size_fraction: float = 0.4,
    score_per_pixel: float = 0.0,
    fill_holes: bool = True,
    check_scale: bool = False,
) -> SweepCounts:
    """Count what `flows_to_labels` and `competition_score` would for every combination.

    Flows are followed and flow errors computed once per cellprob threshold. A combination of the other
    two keeps some of the labels; predicted labels do not overlap, so at an IoU above one half a truth
    has at most one of them, and the counts are sums over the labels that are kept.

    Parameters
    ----------
    flow : (2, H, W) float ndarray
        dY and dX, `FLOW_SCALE` times the unit flow.
    cellprob : (H, W) float ndarray
        Logit.
    truth : Instances or (H, W) integer ndarray
    cellprob_thresholds, flow_thresholds, min_sizes : sequence of numbers
        The grid. Flow threshold None or 0 is "no check".
    niter, method, max_size_fraction, score_per_pixel, fill_holes, check_scale
        As in `flows_to_labels`; the scale is not checked by default, because at a very low cellprob
        threshold nearly all of an image may be background.

    Returns
    -------
    SweepCounts
        Equal to single calls, exactly; but for sums of IoU, which have the rounding of their order.

    Raises
    ------
    DataError
        As `flows_to_labels`; also if one of the grids is empty or sizes differ.
    """
    flow, cellprob = check_fields(flow, cellprob)
    real = as_instances(truth)
    if tuple(real.shape) != cellprob.shape:
        raise DataError(
            f"truth: expected the size of cellprob, {cellprob.shape}, found {tuple(real.shape)}"
        )
    grid = _Grid(cellprob_thresholds, flow_thresholds, min_sizes)
    counts = np.zeros((2, *grid.shape, len(COMPETITION_THRESHOLDS)), dtype=np.int64)
    pairs = np.zeros((*grid.shape, 2), dtype=np.int64)
    iou = np.zeros((*grid.shape, 2))

    def count(_: int, start: int, stop: int) -> None:
        for index in range(start, stop):
            candidates = find_candidates(
                flow, cellprob, cellprob_threshold=float(grid.cellprob[index]), niter=niter,
                max_size_fraction=max_size_fraction, method=method, check_scale=check_scale,
            )  # fmt: skip
            wanted = candidates.areas > 0
            if score_per_pixel > 0:
                wanted &= candidate_probabilities(candidates, cellprob) >= score_per_pixel
            counts[:, index], pairs[index], iou[index] = _count_grid(
                candidates, real, grid, wanted, fill_holes=fill_holes
            )

    run_blocks(count, len(grid.cellprob), 1 if cellprob.size <= _SMALL else len(grid.cellprob))
    tp, fp = counts
    return SweepCounts(
        n_truth=len(real), tp=tp, fp=fp, fn=len(real) - tp, pairs=pairs, iou=iou[..., 0],
        covered_iou=iou[..., 1],
        n_prediction=pairs[..., 0] + fp[..., AT_50],  # that hit a true cell, and that hit none
        cellprob_thresholds=grid.cellprob, flow_thresholds=grid.flow, min_sizes=grid.size,
        iou_thresholds=np.array(COMPETITION_THRESHOLDS),
    )  # fmt: skip


class MaskFilter(NamedTuple):
    """Options of `flows_to_labels` that drop labels or shape them after all else is known."""

    max_size_fraction: float
    score_per_pixel: float
    fill_holes: bool


def score_filters(
    flow: Any,
    cellprob: Any,
    truth: Any,
    filters: Sequence[MaskFilter],
    *,
    cellprob_threshold: float,
    flow_threshold: float,
    min_size: int,
    niter: int | None = None,
) -> list[SelectCounts]:
    """Counts of one image for several filters at one setting, following its flows once.

    Parameters
    ----------
    flow, cellprob, truth
        As in `sweep`.
    filters : sequence of MaskFilter
    cellprob_threshold, flow_threshold, min_size, niter
        As in `flows_to_labels`.

    Returns
    -------
    list of SelectCounts
        Equal to single calls of `flows_to_labels` and `count_cells`, exactly.
    """
    flow, cellprob = check_fields(flow, cellprob)
    found = find_candidates(
        flow, cellprob, cellprob_threshold=cellprob_threshold, max_size_fraction=1.0, niter=niter,
        method="basin", check_scale=False,
    )  # fmt: skip
    agrees = (found.areas > 0) & (found.areas >= min_size)
    if flow_threshold > 0:
        drop_disagreeing(found, agrees, flow_threshold)
    probability = candidate_probabilities(found, cellprob)
    counts = []
    for item in filters:
        keep = agrees & (found.areas <= item.max_size_fraction * cellprob.size)
        keep &= probability >= item.score_per_pixel
        labels = finish(
            replace(found, labels=found.labels.copy()), keep, fill_holes=item.fill_holes
        )
        counts.append(SelectCounts.of(count_cells(truth, labels)))
    return counts


class _Grid:
    """The three axes as arrays, and the last two sorted and without repetitions."""

    def __init__(
        self,
        cellprob: Sequence[float],
        flow: Sequence[float | None],
        size: Sequence[int],
    ) -> None:
        self.cellprob = np.array(list(cellprob), dtype=np.float64)
        self.flow = np.array([t or 0.0 for t in flow], dtype=np.float64)
        self.size = np.array(list(size), dtype=np.float64)
        self.shape = len(self.cellprob), len(self.flow), len(self.size)
        names = ("cellprob_thresholds", "flow_thresholds", "min_sizes")
        for name, count in zip(names, self.shape, strict=True):
            if not count:
                raise DataError(f"{name}: expected at least one value, found none")
        self.checks = bool((self.flow > 0).any())
        limits = np.where(self.flow > 0, self.flow, np.inf).astype(np.float32)
        self._limits, self._flow_place = np.unique(limits, return_inverse=True)
        self._sizes, self._size_place = np.unique(self.size, return_inverse=True)

    def ranks(self, errors: NDArray[np.float32], areas: Ints) -> tuple[Ints, Ints]:
        """How many flow thresholds drop each label, and how many sizes keep it; see `totals`."""
        return np.searchsorted(self._limits, errors), np.searchsorted(self._sizes, areas, "right")

    def totals(self, ranks: tuple[Ints, Ints], values: NDArray[Number]) -> NDArray[Number]:
        """Sums of the values ``(n, K)`` of the labels that each combination keeps, ``(F, M, K)``."""
        shape = len(self._limits) + 1, len(self._sizes) + 1, values.shape[1]
        cells = np.zeros(shape, dtype=values.dtype)
        np.add.at(cells, ranks, values)
        sums = cells.cumsum(axis=0)[:-1, ::-1].cumsum(axis=1)[:, -2::-1]
        return np.asarray(sums[self._flow_place[:, None], self._size_place], dtype=values.dtype)

    def keeps(self, ranks: tuple[Ints, Ints]) -> NDArray[np.bool_]:
        """Whether each combination keeps each label, ``(F, M, n)``."""
        agrees = ranks[0] <= self._flow_place[:, None]
        large = ranks[1] > self._size_place[:, None]
        return np.asarray(agrees[:, None] & large, dtype=np.bool_)


def _count_grid(
    candidates: Candidates,
    truth: Instances,
    grid: _Grid,
    wanted: NDArray[np.bool_],
    *,
    fill_holes: bool,
) -> tuple[Ints, Ints, Floats]:
    """Counts of the wanted labels for all flow thresholds and sizes.

    TP and FP ``(2, F, M, T)``, one-to-one pairs above IoU 0.5 and 0.75 ``(F, M, 2)``, and the sums of IoU of
    the pairs above 0.5 and of true cells that are covered ``(F, M, 2)``.
    """
    present = np.flatnonzero(wanted & (candidates.areas >= grid.size.min()))
    present = present[np.argsort(candidates.first[present], kind="stable")]
    errors = np.zeros(len(present), dtype=np.float32)
    if grid.checks:
        errors = candidate_errors(candidates, (present + 1).astype(np.int32))
    ranks = grid.ranks(errors, candidates.areas[present])
    counts = np.zeros((2, *grid.shape[1:], len(COMPETITION_THRESHOLDS)), dtype=np.int64)
    pairs = np.zeros((*grid.shape[1:], 2), dtype=np.int64)
    iou = np.zeros((*grid.shape[1:], 2))
    for where, labels in _label_maps(candidates, present, grid, ranks, fill_holes=fill_holes):
        hits, values = _hits_per_label(truth, labels, len(present))
        false = hits == 0
        held = ~false[:, [AT_50, AT_75]]
        sums = grid.totals(ranks, np.concatenate([hits, false, held], axis=1))[where]
        counts[0][where], counts[1][where], pairs[where] = np.split(
            sums, [len(_FRACTIONS), 2 * len(_FRACTIONS)], axis=-1
        )
        iou[where] = grid.totals(ranks, values)[where]
    return counts, pairs, iou


def _label_maps(
    candidates: Candidates,
    present: Ints,
    grid: _Grid,
    ranks: tuple[Ints, Ints],
    *,
    fill_holes: bool,
) -> Iterator[tuple[Any, NDArray[np.int32]]]:
    """Label maps, with filled holes if so wanted, each with the combinations for which it is right.

    What a label gains by filling depends on the others only where one of them lies in its hole: that
    one is either kept, or it is background and filled as well. There is one map for each way in which
    such labels are kept, hence nearly always a single one.
    """
    boxes = candidates.boxes[present]
    table = np.zeros(len(candidates.areas) + 1, dtype=np.int32)
    table[present + 1] = np.arange(1, len(present) + 1, dtype=np.int32)
    raw = relabel(candidates.labels, table)
    if not fill_holes:
        yield slice(None), raw
        return
    full = raw.copy()
    nested = np.flatnonzero(close_holes(full, boxes)[1:])
    if not len(nested):
        yield slice(None), full
        return
    keep = grid.keeps((ranks[0][nested], ranks[1][nested]))
    ways, which = np.unique(keep.reshape(-1, len(nested)), axis=0, return_inverse=True)
    for index, way in enumerate(ways):
        table = np.arange(len(present) + 1, dtype=np.int32)
        table[nested[~way] + 1] = 0
        labels = table[raw]
        close_holes(labels, boxes)
        yield which.reshape(keep.shape[:2]) == index, labels


def _hits_per_label(
    truth: Instances, labels: NDArray[np.int32], n_labels: int
) -> tuple[Ints, Floats]:
    """What each label is worth.

    Truths it hits per IoU threshold ``(n, T)``; and its IoU with the best of those above 0.5, which is its pair
    as no other label hits one of them, and the sum of those with the truths it covers by more than half, ``(n, 2)``.
    """
    found = match(truth, labels)
    level = hit_levels(found.shared, found.union, _FRACTIONS)
    index = found.prediction
    if len(found.prediction_areas) < n_labels:  # one that was nested and dropped is not in the map
        index = np.flatnonzero(measure_areas(labels, n_labels)[1:])[index]
    hits = np.zeros((n_labels, len(_FRACTIONS)), dtype=np.int64)
    close = np.flatnonzero(level.any(axis=1))
    np.add.at(hits, index[close], level[close])
    values, iou = np.zeros((n_labels, 2)), found.shared / found.union
    np.maximum.at(values[:, 0], index[level[:, AT_50]], iou[level[:, AT_50]])
    covered = 2 * found.shared > found.truth_areas[found.truth]
    np.add.at(values[:, 1], index[covered], iou[covered])
    return hits, values

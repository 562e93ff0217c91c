"""What is counted of truth and prediction in an image; sums over images pool them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric.matching import Matches, match
from cellflow.numeric.metrics.assignment import best_pairs
from cellflow.numeric.metrics.coco import CocoMatches, check_scores, coco_matches, join_coco
from cellflow.numeric.metrics.regions import leave_out
from cellflow.numeric.score import (
    AT_50,
    AT_75,
    COMPETITION_THRESHOLDS,
    count_matches,
    exact_fractions,
    hit_levels,
)
from cellflow.types import Instances

__all__ = ["CellCounts", "Hits", "count_cells", "pool"]

Ints = NDArray[np.int64]
_FRACTIONS = exact_fractions(np.array(COMPETITION_THRESHOLDS))


@dataclass(frozen=True)
class Hits:
    """Cells of one-to-one pairs above an IoU.

    Attributes
    ----------
    pairs : int
        How many.
    iou : float
        Sum of their IoU.
    """

    pairs: int
    iou: float

    def __add__(self, other: Hits) -> Hits:
        return Hits(self.pairs + other.pairs, self.iou + other.iou)


@dataclass(frozen=True)
class Overlap:
    """Pixels in both and in either of what is compared."""

    shared: int
    union: int

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(self.shared + other.shared, self.union + other.union)


@dataclass(frozen=True, eq=False)
class CellCounts:
    """Counts of one image, or their sums over several.

    Attributes
    ----------
    n_truth, n_prediction : int
        Cells.
    competition : (3, T) int64 ndarray
        TP, FP and FN as the competition counts them, at IoU 0.50, 0.55 ... 0.95.
    at_50, at_75 : Hits
        One-to-one pairs with an IoU above 0.5 and 0.75.
    aji, aji_plus : Overlap
        Pixels as the aggregated Jaccard index counts them, and as its one-to-one form does.
    foreground : Overlap
        Pixels of any cell.
    covered_iou : float
        Sum over true cells of their IoU with the prediction that covers more than half of them.
    covered, covering, covers : int
        True cells that have such a prediction, predictions that are one, and pairs of the two.
    count_difference : int
        Sum over images of how many cells too many or too few there are, without its sign.
    coco : CocoMatches
        Matches as COCO makes them.
    """

    n_truth: int
    n_prediction: int
    competition: Ints
    at_50: Hits
    at_75: Hits
    aji: Overlap
    aji_plus: Overlap
    foreground: Overlap
    covered_iou: float
    covered: int
    covering: int
    covers: int
    count_difference: int
    coco: CocoMatches

    @property
    def empty(self) -> bool:
        """Whether there is no cell on either side."""
        return self.n_truth + self.n_prediction == 0


def pool(counts: Sequence[CellCounts]) -> CellCounts:
    """Sums of the counts of images, at least one."""
    first, *rest = counts
    sums: dict[str, Any] = {}
    for name in (item.name for item in fields(CellCounts) if item.name != "coco"):
        total = getattr(first, name)
        for other in rest:
            total = total + getattr(other, name)
        sums[name] = total
    return CellCounts(coco=join_coco([item.coco for item in counts]), **sums)


def count_cells(
    truth: Any,
    prediction: Any,
    *,
    scores: Any = None,
    max_dets: int = 100,
    border: bool = False,
    ignore: Any = None,
) -> CellCounts:
    """Count all that the metrics are made of in one image.

    Parameters
    ----------
    truth, prediction : Instances or (H, W) integer ndarray
        Cells of one side may overlap when given as Instances.
    scores, max_dets
        As in `coco_matches`.
    border, ignore
        What does not count, as in `leave_out`; scores are those of all predicted cells.

    Raises
    ------
    DataError
        If the two are not of the same image size, or scores do not fit.
    """
    if border or ignore is not None:
        truth, _ = leave_out(truth, border=border, ignore=ignore)
        prediction, kept = leave_out(prediction, border=border, ignore=ignore)
        scores = None if scores is None else check_scores(scores, len(kept))[kept]
    found = match(truth, prediction)
    iou = found.shared / found.union
    hits = hit_levels(found.shared, found.union, _FRACTIONS)
    n_truth, n_prediction = len(found.truth_areas), len(found.prediction_areas)
    most = 2 * found.shared > found.truth_areas[found.truth]
    covered = np.zeros(n_truth)
    np.maximum.at(covered, found.truth[most], iou[most])
    return CellCounts(
        n_truth=n_truth,
        n_prediction=n_prediction,
        competition=count_matches(found, hits),
        at_50=_one_to_one(found, iou, hits[:, AT_50]),
        at_75=_one_to_one(found, iou, hits[:, AT_75]),
        aji=_aggregated(found, _closest(found, iou)),
        aji_plus=_aggregated(found, best_pairs(found.truth, found.prediction, iou)),
        foreground=_foreground(truth, prediction, found),
        covered_iou=float(covered.sum()),
        covered=int(np.count_nonzero(covered)),
        covering=len(np.unique(found.prediction[most])),
        covers=int(np.count_nonzero(most)),
        count_difference=abs(n_prediction - n_truth),
        coco=coco_matches(found, scores, max_dets),
    )


def _one_to_one(found: Matches, iou: NDArray[np.float64], hits: NDArray[np.bool_]) -> Hits:
    """As many pairs as there can be, and of all ways to have so many that of the largest IoU."""
    truth, prediction, value = found.truth[hits], found.prediction[hits], iou[hits]
    if not len(truth):
        return Hits(0, 0.0)
    # one more pair outweighs whatever the others could gain
    taken = best_pairs(truth, prediction, 1 + value / (2 * len(value)))
    return Hits(len(taken), float(value[taken].sum()))


def _closest(found: Matches, iou: NDArray[np.float64]) -> Ints:
    """For every true cell that is touched the pair of the largest IoU; the first of equals."""
    order = np.lexsort((found.prediction, -iou, found.truth))
    first = np.unique(found.truth[order], return_index=True)[1]
    return np.asarray(order[first], dtype=np.int64)


def _aggregated(found: Matches, pairs: Ints) -> Overlap:
    """Pixels in both and in either of all pairs; cells of no pair count in either."""
    lone_truth = np.delete(found.truth_areas, np.unique(found.truth[pairs]))
    lone_prediction = np.delete(found.prediction_areas, np.unique(found.prediction[pairs]))
    union = found.union[pairs].sum() + lone_truth.sum() + lone_prediction.sum()
    return Overlap(int(found.shared[pairs].sum()), int(union))


def _foreground(truth: Any, prediction: Any, found: Matches) -> Overlap:
    """Pixels of cells on both sides and on either; where cells overlap a pixel counts once."""
    true, predicted = _merged(truth), _merged(prediction)
    if true is truth and predicted is prediction:
        shared = found.shared.sum()
        either = found.truth_areas.sum() + found.prediction_areas.sum()
    else:
        both = match(true, predicted)
        # merged cells are one cell, maps have many: no side overlaps itself now
        shared = both.shared.sum()
        either = both.truth_areas.sum() + both.prediction_areas.sum()
    return Overlap(int(shared), int(either - shared))


def _merged(cells: Any) -> Any:
    """Cells that do not overlap as they are; overlapping ones as one cell of all their pixels."""
    if not isinstance(cells, Instances) or not len(cells.starts):
        return cells
    order = np.argsort(cells.starts, kind="stable")
    starts = cells.starts[order]
    reach = np.maximum.accumulate(starts + cells.lengths[order])
    if not np.any(starts[1:] < reach[:-1]):
        return cells
    begins = np.concatenate([[True], starts[1:] > reach[:-1]])
    first = np.flatnonzero(begins)
    ends = reach[np.append(first[1:], len(starts)) - 1]
    offsets = np.array([0, len(first)], dtype=np.int64)
    return Instances(cells.shape, starts[first], ends - starts[first], offsets)

"""COCO's average precision of masks, with its own matching and its own curve.

Source: ``pycocotools.cocoeval`` (T.-Y. Lin and P. Dollar), whose results these are to the last bit for one
category, the area range "all" and truths that are no crowds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.numeric._jit import kernel
from cellflow.numeric.matching import Matches

__all__ = [
    "COCO_THRESHOLDS",
    "CocoMatches",
    "check_scores",
    "coco_matches",
    "coco_precision",
    "join_coco",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COCO_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)


class CocoMatches(NamedTuple):
    """Predicted cells of one image or several, and at which IoU thresholds each has a true cell.

    Attributes
    ----------
    scores : (D,) float64 ndarray
        How sure each is; image by image, in each the highest first.
    matched : (T, D) bool ndarray
        Whether it has a true cell of its own, per threshold of `COCO_THRESHOLDS`.
    n_truth : int
        True cells.
    """

    scores: Floats
    matched: NDArray[np.bool_]
    n_truth: int


def coco_matches(found: Matches, scores: Any = None, max_dets: int = 100) -> CocoMatches:
    """Match predicted cells to true ones as COCO does.

    The predictions of an image are taken in the order of their scores, at most `max_dets`; each gets that
    of the true cells left which it overlaps most, if their IoU is at least the threshold. Where two are
    overlapped alike it gets the later one.

    Parameters
    ----------
    found : Matches
        Overlaps in one image.
    scores : (m,) array_like of float, optional
        How sure each predicted cell is; without them all are 1, and are taken in the order they have.
    max_dets : int
        Predicted cells per image that count.

    Raises
    ------
    DataError
        If there is not one finite score per predicted cell.
    """
    count = len(found.prediction_areas)
    values = np.ones(count) if scores is None else check_scores(scores, count)
    order = np.argsort(-values, kind="stable")[:max_dets]
    by_prediction = np.argsort(found.prediction, kind="stable")  # in each, truths stay in order
    first = np.searchsorted(found.prediction[by_prediction], np.arange(count + 1))
    matched = _match_greedily(
        order.astype(np.int64),
        first.astype(np.int64),
        found.truth[by_prediction],
        (found.shared / found.union)[by_prediction],
        np.minimum(COCO_THRESHOLDS, 1 - 1e-10),
        len(found.truth_areas),
    )
    return CocoMatches(values[order], matched, len(found.truth_areas))


def check_scores(scores: Any, count: int) -> Floats:
    """One finite number per predicted cell."""
    values = np.asarray(scores, dtype=np.float64)
    if values.shape == (count,) and np.isfinite(values).all():
        return values
    raise DataError(
        f"scores: expected one finite number for each of {count} predicted cells, found shape "
        f"{values.shape} with {np.count_nonzero(~np.isfinite(values))} not finite",
        expected=(count,),
        found=values.shape,
    )


def join_coco(parts: Sequence[CocoMatches]) -> CocoMatches:
    """Matches of several images as one."""
    return CocoMatches(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.matched for part in parts], axis=1),
        sum(part.n_truth for part in parts),
    )


def coco_precision(found: CocoMatches) -> Floats:
    """Average precision per threshold, ``(T,)``: precision at recall 0, 0.01 ... 1, where it is highest from there on.

    Without true cells COCO has no value (it prints -1); here it is 1.0 without predictions too, else 0.0.
    """
    if not found.n_truth:
        return np.full(len(COCO_THRESHOLDS), float(not len(found.scores)))
    order = np.argsort(-found.scores, kind="stable")
    result = np.zeros(len(COCO_THRESHOLDS))
    for t, matched in enumerate(found.matched[:, order]):
        true = np.cumsum(matched).astype(np.float64)
        precision = true / (np.arange(1.0, len(order) + 1) + np.spacing(1))
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        place = np.searchsorted(true / found.n_truth, _RECALLS, side="left")
        reached = place < len(order)
        curve = np.zeros(len(_RECALLS))
        curve[reached] = envelope[place[reached]]
        result[t] = curve.mean()
    return result


@kernel
def _match_greedily(
    order: Ints, first: Ints, truth: Ints, iou: Floats, thresholds: Floats, n_truth: int
) -> NDArray[np.bool_]:
    """Whether each prediction, in order, has a true cell of its own per threshold, ``(T, D)``."""
    matched = np.zeros((thresholds.size, order.size), dtype=np.bool_)
    for t in range(thresholds.size):
        given = np.zeros(n_truth, dtype=np.bool_)
        for place in range(order.size):
            best = thresholds[t]
            chosen = -1
            for pair in range(first[order[place]], first[order[place] + 1]):
                if iou[pair] >= best and not given[truth[pair]]:
                    best = iou[pair]
                    chosen = truth[pair]
            if chosen >= 0:
                given[chosen] = True
                matched[t, place] = True
    return matched

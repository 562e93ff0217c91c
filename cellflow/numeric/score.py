"""The competition metric and average precision, decided in whole numbers.

At a threshold t a prediction hits a truth when their IoU is above t. TP are the truths hit by exactly
one prediction, FN those hit by none, FP the predictions that hit none; nothing is assigned. Thresholds
are turned into exact fractions p / q and IoU > t is decided as ``q * intersection > p * union``.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.numeric.matching import Matches, match
from cellflow.types import Instances, Score

__all__ = [
    "AT_50",
    "AT_75",
    "COMPETITION_THRESHOLDS",
    "average_precision",
    "competition_score",
    "detection_rates",
    "hit_cells",
    "precision_of",
]

COMPETITION_THRESHOLDS: tuple[float, ...] = tuple(k / 20 for k in range(10, 20))
AT_50, AT_75 = 0, 5
"""Places of IoU 0.5 and 0.75 among them."""


def competition_score(truth: Any, prediction: Any) -> Score:
    """Mean precision ``TP / (TP + FP + FN)`` at IoU 0.50, 0.55, ..., 0.95.

    Parameters
    ----------
    truth, prediction : Instances or (H, W) integer ndarray, or a list of them
        A list always means many images. Cells of one image may overlap when given as Instances.

    Returns
    -------
    Score
        ``mean`` is the competition score; an image without truth and prediction counts 1.0, one
        where only one of the two is empty 0.0.

    Raises
    ------
    DataError
        If the numbers of images or the sizes of an image differ.

    Examples
    --------
    >>> import numpy as np
    >>> from cellflow import competition_score
    >>> truth = np.array([[1, 1, 1, 1, 0, 2]])
    >>> prediction = np.array([[1, 1, 1, 0, 0, 2]])  # IoU 0.75 and 1
    >>> score = competition_score(truth, prediction)
    >>> round(score.mean, 4)
    0.6667
    >>> competition_score([truth, truth], [truth, prediction]).per_image.round(4).tolist()
    [1.0, 0.6667]
    """
    return average_precision(truth, prediction, COMPETITION_THRESHOLDS)


def average_precision(
    truth: Any, prediction: Any, thresholds: Iterable[float] = (0.5, 0.75, 0.9)
) -> Score:
    """Precision ``TP / (TP + FP + FN)`` per IoU threshold, with the counting of `competition_score`.

    Parameters
    ----------
    truth, prediction : Instances or (H, W) integer ndarray, or a list of them
        A list always means many images.
    thresholds : iterable of float
        IoU thresholds, 0 <= t < 1; a hit needs an IoU *above* the threshold.

    Returns
    -------
    Score
        ``per_threshold`` holds the average precision at each threshold.

    Raises
    ------
    DataError
        If the numbers of images or the sizes of an image differ, or a threshold is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from cellflow import average_precision
    >>> truth = np.array([[1, 1, 1, 1, 0, 2]])
    >>> prediction = np.array([[1, 1, 1, 0, 0, 2]])  # IoU 0.75 and 1
    >>> score = average_precision(truth, prediction, thresholds=(0.5, 0.75))
    >>> score.per_threshold.round(4).tolist()
    [1.0, 0.3333]
    """
    values = np.array(list(thresholds), dtype=np.float64)
    fractions = exact_fractions(values)
    truths, predictions = as_list(truth, "truth"), as_list(prediction, "prediction")
    if len(truths) != len(predictions):
        raise DataError(
            f"expected as many predictions as truths, found {len(predictions)} and {len(truths)}"
        )
    counts = np.zeros((3, len(truths), len(values)), dtype=np.int64)
    for i, (one_truth, one_prediction) in enumerate(zip(truths, predictions, strict=True)):
        try:
            found = match(one_truth, one_prediction)
            counts[:, i] = count_matches(found, hit_levels(found.shared, found.union, fractions))
        except DataError as error:
            if len(truths) == 1:
                raise
            raise DataError(f"image {i} of {len(truths)} (counted from 0): {error}") from None
    return Score(values, counts[0], counts[1], counts[2])


def hit_cells(truth: Any, prediction: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which cells of either side hit any of the other with an IoU above 0.5, with the counting of `competition_score`.

    Parameters
    ----------
    truth, prediction : Instances or (H, W) integer ndarray
        Cells of one image.

    Returns
    -------
    truth_hit : (n,) bool ndarray
        By true cell; those that are not hit are the missed ones.
    prediction_hit : (m,) bool ndarray
        By predicted cell, of a label map in the order of its numbers; those that hit none are the false
        ones.

    Raises
    ------
    DataError
        If the two are not of the same image size.
    """
    found = match(truth, prediction)
    hits = 2 * found.shared > found.union
    truth_hit = np.zeros(len(found.truth_areas), dtype=np.bool_)
    prediction_hit = np.zeros(len(found.prediction_areas), dtype=np.bool_)
    truth_hit[found.truth[hits]] = True
    prediction_hit[found.prediction[hits]] = True
    return truth_hit, prediction_hit


def precision_of(
    tp: NDArray[np.int64], fp: NDArray[np.int64], fn: NDArray[np.int64]
) -> NDArray[np.float64]:
    """``tp / (tp + fp + fn)`` of counts of any one shape, as `Score.precision` has it; 1.0 for 0 / 0."""
    total = tp + fp + fn
    return np.where(total > 0, tp / np.maximum(total, 1), 1.0)


def detection_rates(tp: float, fp: float, fn: float) -> tuple[float, float, float]:
    """Precision, recall and F1 of counts at one threshold.

    Parameters
    ----------
    tp, fp, fn : float
        Found, false and missed cells, such as sums over images.

    Returns
    -------
    tuple of float
        ``tp / (tp + fp)``, ``tp / (tp + fn)`` and ``2 tp / (2 tp + fp + fn)``. As in the competition
        score all are 1.0 where there is nothing to find and nothing was found, and 0.0 where only one
        of the two is empty. NaN counts give NaN.
    """
    if tp + fp + fn == 0:
        return 1.0, 1.0, 1.0
    if tp == 0:
        return 0.0, 0.0, 0.0
    return tp / (tp + fp), tp / (tp + fn), 2 * tp / (2 * tp + fp + fn)


def exact_fractions(thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numerators and denominators, ``(T, 2)``: 0.55 becomes 11 / 20 whatever its last bits are."""
    if not len(thresholds):
        raise DataError("thresholds: expected at least one, found none")
    if not np.all((thresholds >= 0) & (thresholds < 1)):
        raise DataError(f"thresholds: expected 0 <= t < 1, found {thresholds.tolist()}")
    exact = [Fraction(float(t)).limit_denominator(10**6) for t in thresholds]
    return np.array([(f.numerator, f.denominator) for f in exact], dtype=np.int64)


def hit_levels(
    intersection: NDArray[np.int64], union: NDArray[np.int64], fractions: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which pairs hit at which threshold, ``(P, T)``."""
    over = fractions[:, 1] * intersection[:, None]
    return np.asarray(over > fractions[:, 0] * union[:, None], dtype=np.bool_)


def as_list(cells: Any, name: str) -> list[Any]:
    if isinstance(cells, (list, tuple)):
        return list(cells)
    if not isinstance(cells, Instances) and np.ndim(cells) != 2:
        raise DataError(
            f"{name}: expected a label map (H, W), Instances, or a list of them, found shape"
            f" {np.shape(cells)}"
        )
    return [cells]


def count_matches(found: Matches, hits: NDArray[np.bool_]) -> NDArray[np.int64]:
    """TP, FP, FN of one image, ``(3, T)``, from which pairs hit at which threshold ``(P, T)``."""
    n_truth, n_prediction = len(found.truth_areas), len(found.prediction_areas)
    counts = np.empty((3, hits.shape[1]), dtype=np.int64)
    for t in range(hits.shape[1]):
        per_truth = np.bincount(found.truth[hits[:, t]], minlength=n_truth)
        per_prediction = np.bincount(found.prediction[hits[:, t]], minlength=n_prediction)
        counts[0, t] = np.count_nonzero(per_truth == 1)
        counts[1, t] = np.count_nonzero(per_prediction == 0)
        counts[2, t] = np.count_nonzero(per_truth == 0)
    return counts

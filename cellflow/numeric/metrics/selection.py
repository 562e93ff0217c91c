"""Metrics that can choose models and thresholds: those that are sums over predicted cells that do not overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric.metrics.counts import CellCounts
from cellflow.numeric.score import AT_50, AT_75, precision_of

__all__ = ["SELECT_METRICS", "SelectCounts"]

SELECT_METRICS = ("competition", "ap50", "ap75", "f1_50", "f1_75", "pq", "seg")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class SelectCounts:
    """Counts of one image for any number of predictions of it, axes ``...``.

    Attributes
    ----------
    n_truth : int
        True cells.
    tp, fp, fn : (..., T) int64 ndarray
        As the competition counts, at IoU 0.50, 0.55 ... 0.95.
    pairs : (..., 2) int64 ndarray
        One-to-one pairs with an IoU above 0.5 and 0.75.
    iou, covered_iou : (...) float64 ndarray
        Summed IoU of the pairs above 0.5, and of true cells with the prediction that covers more than half.
    n_prediction : (...) int64 ndarray
        Predicted cells.
    """

    n_truth: int
    tp: Ints
    fp: Ints
    fn: Ints
    pairs: Ints
    iou: Floats
    covered_iou: Floats
    n_prediction: Ints

    @classmethod
    def of(cls, counts: CellCounts) -> SelectCounts:
        """Those of one prediction; the axes ``...`` are none."""
        tp, fp, fn = counts.competition
        return cls(
            n_truth=counts.n_truth, tp=tp, fp=fp, fn=fn,
            pairs=np.array([counts.at_50.pairs, counts.at_75.pairs]),
            iou=np.array(counts.at_50.iou), covered_iou=np.array(counts.covered_iou),
            n_prediction=np.array(counts.n_prediction),
        )  # fmt: skip

    def value(self, metric: str) -> Floats:
        """A metric of `SELECT_METRICS`, ``(...)``; 1.0 without any cells, 0.0 where one side alone has none."""
        if metric in ("competition", "ap50", "ap75"):
            precision = precision_of(self.tp, self.fp, self.fn)
            if metric == "competition":
                return np.asarray(precision.mean(axis=-1), dtype=np.float64)
            return precision[..., AT_50 if metric == "ap50" else AT_75]
        cells = self.n_truth + self.n_prediction
        if metric == "seg":
            return np.where(cells > 0, self.covered_iou / max(self.n_truth, 1), 1.0)
        both = {"f1_50": self.pairs[..., 0], "f1_75": self.pairs[..., 1], "pq": self.iou}[metric]
        return np.where(cells > 0, 2.0 * both / np.maximum(cells, 1), 1.0)

"""Every metric by its name: its value for counts of one image or of many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cellflow.numeric.metrics.coco import coco_precision
from cellflow.numeric.metrics.counts import CellCounts, Hits, Overlap
from cellflow.numeric.score import detection_rates, precision_of

__all__ = ["METRICS", "Metric"]

Better = Literal["higher", "lower", "zero"]


@dataclass(frozen=True)
class Metric:
    """A metric of segmentations.

    Attributes
    ----------
    compute : callable
        Its value for counts with any cell at all.
    better : {"higher", "lower", "zero"}
        Where good values lie.
    """

    compute: Callable[[CellCounts], float]
    better: Better = "higher"

    def value(self, counts: CellCounts) -> float:
        """The metric of an image, or pooled where the counts are sums over images.

        Where there is nothing to find and nothing was found it is 1.0, and 0.0 where only one of the two is
        empty; errors of the count are what they are.
        """
        if self.better == "higher" and not (counts.n_truth and counts.n_prediction):
            return float(counts.empty)
        return float(self.compute(counts))


def _competition(counts: CellCounts) -> float:
    # where predictions overlap, all may hit and none of them alone: 0 / 0, which is 1
    return float(precision_of(*counts.competition).mean())


def _rates(counts: CellCounts, hits: Hits) -> tuple[float, float, float]:
    false, missed = counts.n_prediction - hits.pairs, counts.n_truth - hits.pairs
    return detection_rates(hits.pairs, false, missed)


def _segmentation_quality(counts: CellCounts) -> float:
    return counts.at_50.iou / counts.at_50.pairs if counts.at_50.pairs else 0.0


def _panoptic_quality(counts: CellCounts) -> float:
    return 2 * counts.at_50.iou / (counts.n_truth + counts.n_prediction)


def _part(overlap: Overlap) -> float:
    return overlap.shared / overlap.union


def _dice(counts: CellCounts) -> float:
    foreground = counts.foreground
    return 2 * foreground.shared / (foreground.shared + foreground.union)


def _detection(counts: CellCounts) -> float:
    """``1 - min(AOGM-D, all missed) / all missed``, with 5 for a split, 10 for a missed and 1 for a false cell."""
    splits = counts.covers - counts.covering
    missed, false = counts.n_truth - counts.covered, counts.n_prediction - counts.covering
    worst = 10 * counts.n_truth
    return 1 - min(5 * splits + 10 * missed + false, worst) / worst


def _count_error(counts: CellCounts) -> float:
    return counts.n_prediction - counts.n_truth


def _rate(place: int, level: str) -> Callable[[CellCounts], float]:
    return lambda counts: _rates(counts, getattr(counts, level))[place]


METRICS: dict[str, Metric] = {
    "competition": Metric(_competition),
    "precision_50": Metric(_rate(0, "at_50")),
    "recall_50": Metric(_rate(1, "at_50")),
    "f1_50": Metric(_rate(2, "at_50")),
    "precision_75": Metric(_rate(0, "at_75")),
    "recall_75": Metric(_rate(1, "at_75")),
    "f1_75": Metric(_rate(2, "at_75")),
    "pq": Metric(_panoptic_quality),
    "sq": Metric(_segmentation_quality),
    "rq": Metric(_rate(2, "at_50")),
    "aji": Metric(lambda counts: _part(counts.aji)),
    "aji_plus": Metric(lambda counts: _part(counts.aji_plus)),
    "seg": Metric(lambda counts: counts.covered_iou / counts.n_truth),
    "det": Metric(_detection),
    "dice": Metric(_dice),
    "count_error": Metric(_count_error, "zero"),
    "count_error_absolute": Metric(lambda counts: counts.count_difference, "lower"),
    "count_error_relative": Metric(
        lambda counts: counts.count_difference / max(counts.n_truth, 1), "lower"
    ),
    "coco_ap": Metric(lambda counts: coco_precision(counts.coco).mean()),
    "coco_ap50": Metric(lambda counts: coco_precision(counts.coco)[0]),
    "coco_ap75": Metric(lambda counts: coco_precision(counts.coco)[5]),
}
"""By name, in the order of tables; `cellflow.config.metrics` says in words what each is."""

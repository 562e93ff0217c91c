"""Names of metrics, for the commands that compute them and for those that choose by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

__all__ = ["MEANINGS", "SELECT_NAMES", "MetricName", "MetricWord", "SelectMetric"]

MetricName = Literal[
    "competition", "precision_50", "recall_50", "f1_50", "precision_75", "recall_75", "f1_75", "pq", "sq", "rq",
    "aji", "aji_plus", "seg", "det", "dice", "count_error", "count_error_absolute", "count_error_relative",
    "coco_ap", "coco_ap50", "coco_ap75",
]  # fmt: skip
"""What can be computed: the names of `cellflow.numeric.metrics.table.METRICS`."""
MEANINGS: Mapping[str, str] = {
    "competition": "mean of TP / (TP + FP + FN), IoU 0.50, 0.55 ... 0.95",
    "precision_50": "part of predicted cells in one-to-one pairs, IoU > 0.5",
    "recall_50": "part of true cells in one-to-one pairs, IoU > 0.5",
    "f1_50": "2 pairs / (true + predicted cells), IoU > 0.5",
    "precision_75": "part of predicted cells in one-to-one pairs, IoU > 0.75",
    "recall_75": "part of true cells in one-to-one pairs, IoU > 0.75",
    "f1_75": "2 pairs / (true + predicted cells), IoU > 0.75",
    "pq": "panoptic quality: sq times rq, IoU > 0.5",
    "sq": "mean IoU of one-to-one pairs, IoU > 0.5",
    "rq": "recognition quality: f1_50",
    "aji": "aggregated Jaccard index, predictions used more than once",
    "aji_plus": "aggregated Jaccard index of one-to-one pairs",
    "seg": "SEG of the Cell Tracking Challenge: mean IoU of true cells",
    "det": "DET of the Cell Tracking Challenge: cells found",
    "dice": "Dice of the foreground, cells not told apart",
    "count_error": "predicted minus true cells",
    "count_error_absolute": "predicted minus true cells of an image, without sign",
    "count_error_relative": "count_error_absolute / true cells (at least 1)",
    "coco_ap": "COCO's mask AP, mean over IoU 0.50, 0.55 ... 0.95",
    "coco_ap50": "COCO's mask AP at IoU 0.50",
    "coco_ap75": "COCO's mask AP at IoU 0.75",
}
"""What each metric is, in a line, in the order of tables."""
MetricWord = Literal[MetricName, "all"]
SelectMetric = Literal["competition", "ap50", "ap75", "f1_50", "f1_75", "pq", "seg"]
"""What can choose models and thresholds: the names of `cellflow.numeric.metrics.selection.SELECT_METRICS`."""
SELECT_NAMES: Mapping[str, str] = {
    "competition": "competition score",
    "ap50": "competition precision at IoU 0.5",
    "ap75": "competition precision at IoU 0.75",
    "f1_50": "F1 at IoU 0.5",
    "f1_75": "F1 at IoU 0.75",
    "pq": "PQ",
    "seg": "SEG",
}
"""What these are called in texts."""

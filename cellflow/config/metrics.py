"""Names of metrics, for the commands that compute them and for those that choose by one."""

from __future__ import annotations

from typing import Literal

__all__ = ["MetricName", "MetricWord", "SelectMetric"]

MetricName = Literal[
    "competition", "precision_50", "recall_50", "f1_50", "precision_75", "recall_75", "f1_75", "pq", "sq", "rq",
    "aji", "aji_plus", "seg", "det", "dice", "count_error", "count_error_absolute", "count_error_relative",
    "coco_ap", "coco_ap50", "coco_ap75",
]  # fmt: skip
"""What can be computed: the names of `cellflow.numeric.metrics.table.METRICS`."""
MetricWord = Literal[MetricName, "all"]
SelectMetric = Literal["competition", "ap50", "ap75", "f1_50", "f1_75", "pq", "seg"]
"""What can choose models and thresholds: the names of `cellflow.numeric.metrics.selection.SELECT_METRICS`."""

"""All metrics of segmentations, per image and pooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.numeric.metrics.counts import count_cells, pool
from cellflow.numeric.metrics.table import METRICS
from cellflow.numeric.score import as_list
from cellflow.types import one_line

__all__ = ["SegmentationMetrics", "segmentation_metrics"]


@one_line
@dataclass(frozen=True, eq=False)
class SegmentationMetrics:
    """Metrics of one image or several, by name.

    Attributes
    ----------
    per_image : dict of str to (N,) float64 ndarray
        Values of the images.
    mean : dict of str to float
        Means over images.
    pooled : dict of str to float
        Values of all cells counted together.
    """

    per_image: dict[str, NDArray[np.float64]]
    mean: dict[str, float]
    pooled: dict[str, float]


def segmentation_metrics(
    truth: Any,
    prediction: Any,
    *,
    metrics: Sequence[str] | None = None,
    scores: Any = None,
    border: Literal["keep", "drop"] = "keep",
    ignore: Any = None,
    max_dets: int = 100,
) -> SegmentationMetrics:
    """Metrics of cells against the truth, per image, as means over images, and pooled.

    An image without true and predicted cells counts 1.0, one with only one of the two 0.0, in every metric but
    the errors of the count. What each metric is stands in ``docs/metrics.md``.

    Parameters
    ----------
    truth, prediction : Instances or (H, W) integer ndarray, or a list of them
        A list always means many images. Cells of one image may overlap when given as Instances.
    metrics : sequence of str, optional
        Names of metrics; without it all.
    scores : (m,) array_like of float, or a list of them, optional
        How sure each predicted cell is, of a label map in the order of its numbers; for COCO's AP only. Without
        it all are 1, and the order of the cells decides.
    border : {"keep", "drop"}
        drop: leave out true and predicted cells that have a pixel in the outer 2 pixels of the image.
    ignore : (H, W) bool or integer ndarray, or a list of them, optional
        Regions, not 0, whose pixels count for nothing; cells that lie mostly in them are left out.
    max_dets : int
        Predicted cells of an image that count for COCO's AP, the surest first; COCO's own value is 100.

    Raises
    ------
    DataError
        If numbers of images, sizes or scores do not fit, or a metric is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from cellflow import segmentation_metrics
    >>> truth = np.array([[1, 1, 1, 1, 0, 2]])
    >>> prediction = np.array([[1, 1, 1, 0, 0, 2]])  # IoU 0.75 and 1
    >>> found = segmentation_metrics(truth, prediction, metrics=["pq", "f1_75", "dice"])
    >>> found.mean
    {'pq': 0.875, 'f1_75': 0.5, 'dice': 0.8888888888888888}
    >>> empty = np.zeros_like(truth)
    >>> segmentation_metrics([truth, empty], [prediction, empty], metrics=["pq"]).per_image["pq"]
    array([0.875, 1.   ])
    """
    names = list(METRICS) if metrics is None else list(metrics)
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise DataError(
            f"metrics: expected names of {', '.join(METRICS)}, found {', '.join(map(str, unknown))}",
            expected=list(METRICS),
            found=unknown,
        )
    truths, predictions = as_list(truth, "truth"), as_list(prediction, "prediction")
    if not truths:
        raise DataError("truth: expected at least one image, found none")
    options = {"scores": scores, "ignore": ignore}
    if not isinstance(truth, (list, tuple)):
        options = {name: [value] for name, value in options.items()}
    given = {name: [None] * len(truths) if v is None else v for name, v in options.items()}
    for name, values in {"predictions": predictions, **given}.items():
        if len(values) != len(truths):
            raise DataError(
                f"expected as many {name} as truths, found {len(values)} and {len(truths)}"
            )
    counts = [
        count_cells(*cells, scores=sure, ignore=region, border=border == "drop", max_dets=max_dets)
        for *cells, sure, region in zip(
            truths, predictions, given["scores"], given["ignore"], strict=True
        )
    ]
    per_image = {
        name: np.array([METRICS[name].value(item) for item in counts], dtype=np.float64)
        for name in names
    }
    mean = {name: float(values.mean()) for name, values in per_image.items()}
    total = pool(counts)
    pooled = {name: METRICS[name].value(total) for name in names}
    return SegmentationMetrics(per_image, mean, pooled)

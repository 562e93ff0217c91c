"""Score predictions of images whose cells are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cellflow.engine.segmentation.result import Prediction
from cellflow.engine.segmentation.segmenter import Ready, Segmenter
from cellflow.io.dataset import Dataset
from cellflow.numeric.metrics.counts import count_cells
from cellflow.numeric.metrics.selection import SelectCounts
from cellflow.numeric.score import competition_score, detection_rates
from cellflow.types import Instances

__all__ = [
    "COUNTS",
    "SCORE_COLUMNS",
    "Seen",
    "mean_score",
    "rates",
    "score_images",
    "score_row",
    "select_column",
]

PRECISIONS = [f"ap{percent}" for percent in range(50, 100, 5)]
"""Precision at IoU 0.50, 0.55 ... 0.95."""
COUNTS = ["n_found", "n_missed", "n_false"]
"""True positives, false negatives and false positives at IoU 0.5, as the competition counts them."""
READY_BYTES = 2**28
"""What images that were made ready for the network may take of memory between passes over them."""
Seen = Callable[[str, NDArray[np.int32], Mapping[str, Any]], None]
"""What gets an image's id, its label map, and its row of scores."""
SCORE_COLUMNS = ["score", *PRECISIONS, "n_true", "n_predicted", *COUNTS]
"""What is kept for each scored image: competition score, the precisions it is the mean of, numbers of cells."""


def select_column(metric: str) -> str:
    """Column of a metric that chooses models, in tables of scores per image."""
    return "score" if metric == "competition" else metric


def score_row(
    truth: Instances, labels: NDArray[np.int32], metric: str = "competition"
) -> dict[str, Any]:
    """Scores of one image, a value per name in `SCORE_COLUMNS`, and the metric where it is none of them."""
    score = competition_score(truth, labels)
    more = {}
    if select_column(metric) not in SCORE_COLUMNS:
        counts = SelectCounts.of(count_cells(truth, labels))
        more[metric] = float(counts.value(metric))
    cells = len(truth), int(labels.max(initial=0))
    found = (int(part[0, 0]) for part in (score.tp, score.fn, score.fp))
    values = float(score.mean), *map(float, score.precision[0]), *cells, *found
    return dict(zip(SCORE_COLUMNS, values, strict=True)) | more


def rates(rows: pd.DataFrame) -> dict[str, float]:
    """Precision, recall and F1 at IoU 0.5 from the summed counts of some images.

    NaN where tables from before these columns, or other ones, do not have them.
    """
    found = missed = false = float("nan")
    if set(COUNTS) <= set(rows):
        found, missed, false = (float(rows[name].sum(skipna=False)) for name in COUNTS)
    precision, recall, f1 = detection_rates(found, false, missed)
    return {"precision": precision, "recall": recall, "f1": f1}


def score_images(
    segmenter: Segmenter,
    dataset: Dataset,
    names: Sequence[str],
    *,
    check: Callable[[], None] | None = None,
    watching: Sequence[Seen] = (),
    ready: dict[str, Ready] | None = None,
    truth: Callable[[str], Instances] | None = None,
    metric: str = "competition",
) -> list[dict[str, Any]]:
    """Segment images of a dataset and score them.

    Parameters
    ----------
    segmenter : Segmenter
        What segments them.
    dataset : Dataset
        Images and their cells.
    names : sequence of str
        Ids of the images.
    check : callable, optional
        Called in the caller's thread before every image. What it raises ends the evaluation.
    watching : sequence of callable
        Each gets the id of every image, its label map and its row of scores, in the order of `names` and
        in another thread. What one raises ends the evaluation.
    ready : dict, optional
        Gets the images as the network wants them, as many as fit `READY_BYTES`, and gives them back in
        the next call: for passes over the same images with networks of the same channels.
    truth : callable, optional
        Gives the cells of an image; by default the dataset reads them anew.
    metric : str
        What chooses models.

    Returns
    -------
    list of dict
        A row per image, in the order of `names`: id, the `SCORE_COLUMNS`, and the metric where it is none of them.
    """
    cells_of = truth or dataset.instances

    def finish(name: str, result: Prediction) -> dict[str, Any]:
        row = {"id": name} | score_row(cells_of(name), result.labels, metric)
        for see in watching:
            see(name, result.labels, row)
        return row

    images = ((name, _ready_image(segmenter, dataset, name, ready)) for name in names)
    rows = []
    with closing(segmenter.stream(images, finish)) as stream:
        for _ in tqdm(names, desc="evaluation", unit="image", disable=None, leave=False):
            if check is not None:
                check()
            rows.append(next(stream))
    return rows


def _ready_image(
    segmenter: Segmenter, dataset: Dataset, name: str, ready: dict[str, Ready] | None
) -> Ready:
    """An image as the network wants it, from `ready` where it is there."""
    if ready is not None and name in ready:
        return ready[name]
    image = segmenter.ready(dataset.image(name))
    if ready is not None:
        held = sum(array.nbytes for item in (*ready.values(), image) for array in item)
        if held <= READY_BYTES:
            ready[name] = image
    return image


def mean_score(rows: pd.DataFrame, metric: str = "competition") -> float:
    """Mean of a metric that chooses models over images, by default of the competition score; nan for none."""
    return float(rows[select_column(metric)].mean())

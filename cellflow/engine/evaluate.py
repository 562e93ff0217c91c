"""Score predictions of images whose cells are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.numeric.score import competition_score
from cellflow.types import Instances

__all__ = ["SCORE_COLUMNS", "mean_score", "score_row"]

SCORE_COLUMNS = ["score", "ap50", "ap75", "n_true", "n_predicted"]
"""What is kept for each scored image: competition score, precision at IoU 0.5 and 0.75, numbers of cells."""


def score_row(truth: Instances, labels: NDArray[np.int32]) -> dict[str, Any]:
    """Scores of one image, a value per name in `SCORE_COLUMNS`."""
    score = competition_score(truth, labels)
    precision = dict(zip(np.round(score.thresholds, 2), score.precision[0], strict=True))
    return {
        "score": float(score.mean),
        "ap50": float(precision[0.5]),
        "ap75": float(precision[0.75]),
        "n_true": len(truth),
        "n_predicted": int(labels.max(initial=0)),
    }


def mean_score(rows: pd.DataFrame) -> float:
    """Mean competition score over images; nan for none."""
    return float(rows["score"].mean())

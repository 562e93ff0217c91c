"""What `cellflow score` finds: a row per image, means with intervals, and a verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.engine.segmentation.scoring import rates
from cellflow.numeric.bootstrap import MIN_GROUPS, bootstrap_mean
from cellflow.types import one_line

__all__ = ["ScoreResult", "mean_row", "scopes", "summary", "verdict_of"]


@one_line
@dataclass(frozen=True, eq=False)
class ScoreResult:
    """Scores of predicted masks, and how they compare with others.

    Attributes
    ----------
    pred : str
        What was scored, as it was named.
    versus : str or None
        What it was compared with.
    images : DataFrame
        A row per image: id, cell_type, group, score (competition metric), ap50 ... ap95, n_true,
        n_predicted, and at IoU 0.5 n_found, n_missed and n_false; with `versus` also the same of the
        others, ending in _versus, and difference (score - score_versus).
    table : DataFrame
        Means over images, a row per cell type (where there are several) and one overall: scope, name,
        images, groups, score with its 95 % interval low..high, ap50, ap75, and at IoU 0.5 precision,
        recall and f1 of the summed counts of cells; with `versus` also
        score_versus, difference with its interval difference_low..difference_high, and verdict:
        "better" or "worse" where that interval lies on one side of 0 and there are at least
        `MIN_GROUPS` groups, else "undecided". Intervals come from resampling whole groups.
    metrics : DataFrame
        Other metrics that were asked for, a row per scope and metric: scope, name, metric, images, groups, mean
        with its 95 % interval low..high, and pooled (all cells counted together); with `versus` also mean_versus,
        pooled_versus, difference with its interval and verdict, as in `table`. Empty without any.
    compared : tuple of str
        What was taken for the prediction and for the truth, and what matched, a line each.
    outlines : Path or None
        Sheet of the worst images, in the folder with pictures of all; None where none were asked for.
    """

    pred: str
    versus: str | None
    images: pd.DataFrame
    table: pd.DataFrame
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    compared: tuple[str, ...] = ()
    outlines: Path | None = None

    @property
    def worst(self) -> pd.DataFrame:
        """Images by their score, the worst first; of those with a score of 1 none."""
        below = self.images[self.images["score"] < 1]
        return below.sort_values(["score", "id"], kind="stable")

    @property
    def conclusion(self) -> str:
        """The comparison over all images in one sentence; empty without one."""
        if self.versus is None:
            return ""
        row = self.table.iloc[-1]
        found = (
            f"difference {row['difference']:+.4f}, 95 % interval {row['difference_low']:+.4f} to "
            f"{row['difference_high']:+.4f}, {row['images']} images in {row['groups']} groups"
        )
        if row["verdict"] != "undecided":
            return f"{self.pred} is {row['verdict']} than {self.versus}: {found}."
        why = f" (a verdict needs {MIN_GROUPS})" if row["groups"] < MIN_GROUPS else ""
        return f"Undecided between {self.pred} and {self.versus}: {found}{why}."


def scopes(images: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Images per cell type, where there are several, and all: scope, name, rows."""
    found = []
    if images["cell_type"].nunique() > 1:
        found = [("cell_type", str(name), part) for name, part in images.groupby("cell_type")]
    return [*found, ("overall", "all", images)]


def summary(images: pd.DataFrame) -> pd.DataFrame:
    """The table of means."""
    return pd.DataFrame([mean_row(*scope) for scope in scopes(images)])


def mean_row(scope: str, name: str, part: pd.DataFrame) -> dict[str, Any]:
    """A row of the table: mean score of some images with its interval, and of what they are compared to."""
    groups = part["group"].to_numpy(str)
    score = bootstrap_mean(part["score"], groups)
    row: dict[str, Any] = {
        "scope": scope,
        "name": name,
        "images": len(part),
        "groups": part["group"].nunique(),
        "score": score.mean,
        "low": score.low,
        "high": score.high,
        "ap50": float(part["ap50"].mean()),
        "ap75": float(part["ap75"].mean()),
        **rates(part),
    }
    if "difference" not in part:
        return row
    difference = bootstrap_mean(part["difference"], groups)
    return row | {
        "score_versus": float(part["score_versus"].mean()),
        "difference": difference.mean,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "verdict": verdict_of(difference.low, difference.high, row["groups"]),
    }


def verdict_of(low: float, high: float, groups: int) -> str:
    """What the interval of a difference says, where larger is better."""
    if groups < MIN_GROUPS or low <= 0 <= high:
        return "undecided"
    return "better" if low > 0 else "worse"

"""Tables of out-of-fold predictions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cellflow.engine.data.folds import image_groups
from cellflow.engine.runs.contents import read_table, run_select_metric
from cellflow.engine.segmentation.member import Member
from cellflow.engine.segmentation.result import Prediction
from cellflow.engine.segmentation.scoring import score_row, select_column
from cellflow.engine.validation.selection_bias import selection_bias
from cellflow.errors import RunError
from cellflow.io.dataset import Dataset
from cellflow.storage.atomic import write_csv
from cellflow.storage.run_folder import RunFolder

__all__ = []

_log = logging.getLogger(__name__)


RECOGNITION_COLUMNS = ["median_diameter", "diameter", "style_diameter", "predicted_type"]
"""True diameter, the one used, the style's estimate, and the style's cell type ("" where unsure)."""


class OofImage(NamedTuple):
    """What the tables say of one image: its scores, and the runs of the cells found."""

    name: str
    rles: list[str]
    scores: dict[str, Any]


def oof_score_row(
    dataset: Dataset, name: str, member: Member, result: Prediction
) -> dict[str, Any]:
    image = dataset.images.loc[name].to_dict()
    facts = {"id": name, "fold": member.facts["fold"], "cell_type": image.get("cell_type", "")}
    scores = score_row(dataset.instances(name), result.labels)
    found = {
        "median_diameter": float(image["median_diameter"]),
        "diameter": result.diameter,
        "style_diameter": result.recognition.diameter,
        "predicted_type": result.recognition.cell_type,
    }
    return facts | {"epoch": member.facts["epoch"]} | scores | found


def predictions_table(done: list[OofImage]) -> pd.DataFrame:
    """A row per cell, in the order of the images."""
    rows = [(item.name, rle) for item in done for rle in item.rles]
    return pd.DataFrame(rows, columns=["id", "predicted"])


def last_epoch_scores(run: RunFolder, tables: Mapping[int, pd.DataFrame]) -> pd.Series[float]:
    """Each image's score at the last evaluation of its fold, by id.

    Where a run has a moving average of the weights, it is the average's score and no other: which of
    the two counts must not depend on the scores.
    """
    averaged = any((table["weights"] == "ema").any() for table in tables.values())
    weights = "ema" if averaged else "net"
    parts = []
    for fold, table in tables.items():
        rows = table[table["weights"] == weights]
        if rows.empty:
            raise RunError(
                f"{run.fold(fold).evaluations}: expected evaluations of the weights {weights!r}, as in "
                "the run's other folds, found none. Repeat the command that trained this fold: it "
                "writes the table again from last.pt."
            )
        parts.append(rows[rows["epoch"] == rows["epoch"].max()])
    last: pd.DataFrame = pd.concat(parts)
    return pd.Series(last["score"].to_numpy(np.float64), last["id"])


def fold_evaluations(path: Path) -> pd.DataFrame:
    """Scores of every evaluation of a fold: epoch, id, score, weights ("net" or "ema")."""
    return read_table(path, ["epoch", "id", "score", "weights"])


def selection_biases(
    dataset: Dataset, run: RunFolder, folds: pd.Series[int], evaluations: Mapping[int, pd.DataFrame]
) -> pd.Series[float]:
    """How much choosing the epoch flatters each image, from its fold's evaluations; by id."""
    groups = image_groups(dataset, run.folds).to_dict()
    column = select_column(run_select_metric(run))
    parts = []
    for fold, table in evaluations.items():
        if column not in table:
            raise RunError(
                f"{run.fold(fold).evaluations}: expected the column {column}, by which the run chooses its models, "
                f"found {', '.join(map(str, table))}. Repeat the command that trained this fold: it writes the "
                "table again."
            )
        own = table["id"].isin(folds.index[folds == fold])
        if own.all() and len(own):
            own_groups = {name: groups[name] for name in set(table["id"])}
            parts.append(selection_bias(table, own_groups, chosen_by=column))
            continue
        raise RunError(
            f"{run.fold(fold).evaluations}: expected scores of the images that fold {fold} validates on, "
            "found others. Repeat the command that trained this fold: it writes the table again."
        )
    return pd.concat(parts)


def write_confusion(path: Path, scores: pd.DataFrame) -> None:
    """True against predicted cell type of images that their model never saw; "unsure" where it was."""
    true, found = scores["cell_type"], scores["predicted_type"].replace("", "unsure")
    table = pd.crosstab(true, found).rename_axis(index="true", columns=None)
    write_csv(path, table.reset_index(allow_duplicates=True))  # a type may be called true


def log_recognition(scores: pd.DataFrame) -> None:
    """How good the style models are on images that their network never saw."""
    typed = scores[scores["cell_type"] != ""]
    if len(typed):
        right = int((typed["cell_type"] == typed["predicted_type"]).sum())
        unsure = int((typed["predicted_type"] == "").sum())
        _log.info("cell types told by style: %d of %d right, %d unsure", right, len(typed), unsure)
    sized = scores[(scores["median_diameter"] > 0) & (scores["style_diameter"] > 0)]
    if len(sized):
        error = np.abs(np.log(sized["style_diameter"] / sized["median_diameter"])).median()
        _log.info("diameters told by style: median error %.0f %%", 100 * np.expm1(error))

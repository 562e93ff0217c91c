"""The numbers of a cross-validation, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cellflow.engine.segmentation.scoring import rates
from cellflow.numeric.bootstrap import Interval, bootstrap_mean
from cellflow.report.text_table import interval, key_text, number, text_table
from cellflow.storage.sizes import type_text

__all__ = ["CV_COLUMNS", "RATES_KEY", "cross_validation", "cv_text"]

CV_COLUMNS = {
    "last_epoch": (
        "last",
        "last epoch, default thresholds, diameters as in training's evaluations",
    ),
    "best_epoch": ("best", "best epoch, default thresholds: optimistic, chosen on these images"),
    "cross_fitted": ("fitted", "best epoch, thresholds fitted on the other folds"),
    "selection_bias": ("bias", "how much choosing the epoch flatters, from halves of the groups"),
    "expected": ("expected", "a single fold model on unseen images: fitted (else best) minus bias"),
}
"""Columns of a cross-validation's scores: what they are called in print, and what they mean."""
RATES_KEY = {
    "AP 0.5": "found / (found + missed + false) cells at IoU 0.5, mean over images",
    "precision": "part of the predicted cells that is true, at IoU 0.5",
    "recall": "part of the true cells that was found; F1: both in one",
    "": "(these three of all cells counted together)",
}
"""What the columns of cells mean."""


def cross_validation(scores: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Means over images, per fold, per cell type and overall.

    Parameters
    ----------
    scores : pandas.DataFrame
        A row per image: id, fold, cell_type, group, score, last_epoch_score, selection_bias, ap50, ap75,
        n_true, n_found, n_missed and n_false, and cross_fitted once thresholds are calibrated.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        `scope`, `name`, numbers of images, groups and cells, the columns of `CV_COLUMNS`, the interval
        `low` to `high` of `expected`, `ap50`, `ap75`, and `precision`, `recall` and `f1` at IoU 0.5 (all
        of the masks of the out-of-fold pass). Every value is a mean over images, never over folds; only
        the last three are made of the summed counts of cells. They are NaN for scores without these
        counts, which come from an older cellflow.
    """
    if "cross_fitted" not in scores:
        scores = scores.assign(cross_fitted=np.nan)
    rows = [_row("fold", str(fold), part, seed) for fold, part in scores.groupby("fold")]
    if scores["cell_type"].nunique() > 1:
        groups = scores.groupby("cell_type")
        rows += [_row("cell_type", str(name), part, seed) for name, part in groups]
    rows.append(_row("overall", "all", scores, seed))
    return pd.DataFrame(rows)


def cv_text(cv: pd.DataFrame) -> str:
    """The table for people, at 80 columns, with what its columns mean."""
    blocks = [_scores_text(cv), _cells_text(cv), key_text(_key(cv) | RATES_KEY)]
    if cv["cross_fitted"].isna().all():
        blocks.append("thresholds are not calibrated yet: cellflow calibrate")
    return "\n\n".join(blocks)


def _shown(cv: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Columns of scores that have any number."""
    return {name: words for name, words in CV_COLUMNS.items() if cv[name].notna().any()}


def _scores_text(cv: pd.DataFrame) -> str:
    shown, with_interval = _shown(cv), bool(cv["low"].notna().any())
    headings = [heading for heading, _ in shown.values()]
    rows = [["SCORE", "images", *headings, *["95 % interval"] * with_interval]]
    for row in cv.to_dict("records"):
        cells = [_name(row), str(row["images"]), *(number(row[name]) for name in shown)]
        rows.append([*cells, *[interval(row["low"], row["high"])] * with_interval])
    return text_table(rows)


def _key(cv: pd.DataFrame) -> dict[str, str]:
    """What the columns of scores mean."""
    key = {"score": "mean precision over IoU 0.50, 0.55 ... 0.95, mean over images, each of"}
    key |= {" ": "them by the model of the fold that never saw it"}
    key |= dict(_shown(cv).values())
    if cv["low"].notna().any():
        key["interval"] = "of expected, whole groups drawn anew"
    return key


def _cells_text(cv: pd.DataFrame) -> str:
    rows = [["CELLS", "groups", "cells", "AP 0.5", "AP 0.75", "precision", "recall", "F1"]]
    for row in cv.to_dict("records"):
        rates = ("ap50", "ap75", "precision", "recall", "f1")
        counts = [str(row["groups"]), str(row["cells"])]
        rows.append([_name(row), *counts, *(number(row[key], 3) for key in rates)])
    return text_table(rows)


def _name(row: Mapping[Any, Any]) -> str:
    return f"fold {row['name']}" if row["scope"] == "fold" else type_text(row["name"])


def _row(scope: str, name: str, part: pd.DataFrame, seed: int) -> dict[str, Any]:
    deployed = part["score"].where(part["cross_fitted"].isna(), part["cross_fitted"])
    # Images of a fold with one validation group have no bias of their own.
    bias = part["selection_bias"].fillna(part["selection_bias"].mean())
    interval = Interval(np.nan, np.nan, np.nan)
    if bias.notna().all():
        interval = bootstrap_mean((deployed - bias).to_numpy(), part["group"].to_numpy(), seed=seed)
    return {
        "scope": scope,
        "name": name,
        "images": len(part),
        "groups": part["group"].nunique(),
        "cells": int(part["n_true"].sum()),
        "last_epoch": float(part["last_epoch_score"].mean()),
        "best_epoch": float(part["score"].mean()),
        "cross_fitted": float(part["cross_fitted"].mean()),
        "selection_bias": float(part["selection_bias"].mean()),
        "expected": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "ap50": float(part["ap50"].mean()),
        "ap75": float(part["ap75"].mean()),
        **rates(part),
    }

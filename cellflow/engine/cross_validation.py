"""The numbers of a cross-validation, side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cellflow.numeric.bootstrap import Interval, bootstrap_mean

__all__ = ["CV_NAMES", "cross_validation", "cv_text"]

CV_NAMES = {
    "last_epoch": "last epoch, default thresholds, at the diameters of training's evaluations (--eval_diameter)",
    "best_epoch": "best epoch, default thresholds: optimistic, the epoch was chosen on these images",
    "cross_fitted": "best epoch, thresholds fitted on the other folds",
    "selection_bias": "how much choosing the epoch flatters, from halves of the validation groups",
    "expected": "cross_fitted (before calibration best_epoch) minus selection_bias: what a single fold "
    "model should score on unseen images",
    "low, high": "95 % interval of expected, groups resampled",
}
"""What the columns of a cross-validation mean."""


def cross_validation(scores: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Means over images, per fold, per cell type and overall.

    Parameters
    ----------
    scores : pandas.DataFrame
        A row per image: id, fold, cell_type, group, score, last_epoch_score, selection_bias, ap50, ap75,
        n_true, and cross_fitted once thresholds are calibrated.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        `scope`, `name`, numbers of images, groups and cells, the columns of `CV_NAMES`, `ap50`, `ap75`
        (best epoch, default thresholds). Every value is a mean over images, never over folds.
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
    """The table for people, with what its columns mean; columns without any number are left out."""
    shown = cv.dropna(axis="columns", how="all")
    text = shown.to_string(index=False, float_format=lambda value: f"{value:.4f}", na_rep="-")
    notes = [
        f"{name}: {meaning}" for name, meaning in CV_NAMES.items() if name.split(",")[0] in shown
    ]
    if "cross_fitted" not in shown:
        notes.append("thresholds are not calibrated yet: cellflow calibrate")
    return "\n".join([text, "", *notes])


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
    }

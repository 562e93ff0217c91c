"""The numbers of a cross-validation, side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cellflow.engine.segmentation.scoring import rates
from cellflow.numeric.bootstrap import Interval, bootstrap_mean

__all__ = ["cross_validation"]


def cross_validation(
    scores: pd.DataFrame,
    *,
    seed: int = 0,
    selected_by: str = "competition",
    fitted_for: str = "competition",
) -> pd.DataFrame:
    """Means over images, per fold, per cell type and overall.

    Parameters
    ----------
    scores : pandas.DataFrame
        A row per image: id, fold, cell_type, group, score, last_epoch_score, selection_bias, ap50, ap75,
        n_true, n_found, n_missed and n_false, and cross_fitted once thresholds are calibrated.
    seed : int
        Seed of the bootstrap.
    selected_by, fitted_for : str
        Metrics that chose the models, and that thresholds were fitted for.

    Returns
    -------
    pandas.DataFrame
        `scope`, `name`, numbers of images, groups and cells, `last_epoch`, `best_epoch`, `cross_fitted`,
        `selection_bias` and `expected` (see `cellflow.report.text.cv`), the interval
        `low` to `high` of `expected`, `ap50`, `ap75`, and `precision`, `recall` and `f1` at IoU 0.5 (all
        of the masks of the out-of-fold pass). Every value is a mean over images, never over folds; only
        the last three are made of the summed counts of cells.
        `selected_by` and `fitted_for` are the metrics; the second is empty before the calibration.
    """
    if "cross_fitted" not in scores:
        scores = scores.assign(cross_fitted=np.nan)
    rows = [_row("fold", str(fold), part, seed) for fold, part in scores.groupby("fold")]
    if scores["cell_type"].nunique() > 1:
        groups = scores.groupby("cell_type")
        rows += [_row("cell_type", str(name), part, seed) for name, part in groups]
    rows.append(_row("overall", "all", scores, seed))
    fitted = fitted_for if scores["cross_fitted"].notna().any() else ""
    return pd.DataFrame(rows).assign(selected_by=selected_by, fitted_for=fitted)


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

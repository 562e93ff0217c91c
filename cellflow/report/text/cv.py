"""A cross-validation, as `cellflow oof` and `cellflow calibrate` print it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cellflow.config.metrics import SELECT_NAMES
from cellflow.report.text.table import interval, key_text, number, text_table
from cellflow.storage.sizes import type_text

__all__ = ["CV_COLUMNS", "RATES_KEY", "cv_text", "part_name"]

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


def cv_text(cv: pd.DataFrame) -> str:
    """The table for people, at 80 columns, with what its columns mean."""
    blocks = [_scores_text(cv), _cells_text(cv), key_text(_key(cv) | RATES_KEY)]
    blocks += [text for text in [_selection(cv)] if text]
    if cv["cross_fitted"].isna().all():
        blocks.append("thresholds are not calibrated yet")
    return "\n\n".join(blocks)


def _selection(cv: pd.DataFrame) -> str:
    """What chose models and thresholds, where that was not the score; a mix is said."""
    if "selected_by" not in cv:
        return ""
    selected, fitted = str(cv["selected_by"].iloc[-1]), str(cv["fitted_for"].iloc[-1])
    if {selected, fitted} <= {"competition", ""}:
        return ""
    text = f"models chosen by {SELECT_NAMES[selected]}"
    if fitted:
        text += f", thresholds fitted for {SELECT_NAMES[fitted]}"
    if fitted not in ("", selected):
        text += ": two metrics, so neither is at its best"
    return f"{text}; the scores above are competition scores all the same"


def _shown(cv: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Columns of scores that have any number."""
    return {name: words for name, words in CV_COLUMNS.items() if cv[name].notna().any()}


def _scores_text(cv: pd.DataFrame) -> str:
    shown, with_interval = _shown(cv), bool(cv["low"].notna().any())
    headings = [heading for heading, _ in shown.values()]
    rows = [["SCORE", "images", *headings, *["95 % interval"] * with_interval]]
    for row in cv.to_dict("records"):
        cells = [part_name(row), str(row["images"]), *(number(row[name]) for name in shown)]
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
        rows.append([part_name(row), *counts, *(number(row[key], 3) for key in rates)])
    return text_table(rows)


def part_name(row: Mapping[Any, Any], overall: str = "") -> str:
    """The fold or the cell type that a row is of; for that of all `overall`, or as the table calls it."""
    if row["scope"] == "fold":
        return f"fold {row['name']}"
    return overall if overall and row["scope"] == "overall" else type_text(row["name"])

"""The numbers at the top of a run's page: the four of the cross-validation, or how far the training is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from cellflow.errors import DataError
from cellflow.numeric.bootstrap import MIN_GROUPS, bootstrap_mean
from cellflow.report.pages.run_facts import FoldFacts
from cellflow.storage.records import number_or_none

__all__ = ["run_tiles"]

Tile = tuple[str, str, str, str]

_NUMBERS = {
    "last_epoch": (
        "last_epoch_score",
        "Last epoch",
        "the last epoch at the training's thresholds, with the diameters of the training's evaluations",
    ),
    "best_epoch": (
        "score",
        "Best epoch",
        "the best epoch at the training's thresholds: optimistic, since it was chosen on these images",
    ),
    "cross_fitted": (
        "cross_fitted",
        "Fitted thresholds",
        "the best epoch with thresholds that were fitted on the other folds",
    ),
    "selection_bias": (
        "selection_bias",
        "Selection bias",
        "how much choosing the epoch flatters: chosen on half of the groups and scored on the other half",
    ),
}
"""The four numbers of `cv.csv`: the column of single images behind each, its title, and what it is."""


def run_tiles(
    cv: pd.DataFrame | None, scores: pd.DataFrame | None, folds: Sequence[FoldFacts]
) -> list[Tile]:
    """Label, value, note and explanation of each number."""
    overall = {} if cv is None else _overall(cv)
    if not overall:
        return _training_tiles(folds)
    tiles = [_expected(overall)]
    for key, (column, title, says) in _NUMBERS.items():
        value = number_or_none(overall.get(key))
        note = "cellflow calibrate" if value is None and key == "cross_fitted" else ""
        tiles.append((title, _text(value), note or _interval(scores, column), says))
    counts = [
        f"{int(overall[key])} {key}"
        for key in ("images", "groups", "cells")
        if number_or_none(overall.get(key)) is not None
    ]
    if counts:
        tiles.append(("Scored", counts[0], ", ".join(counts[1:]), "what these are means over"))
    return tiles


def _overall(cv: pd.DataFrame) -> dict[str, Any]:
    rows = cv[cv["scope"] == "overall"].to_dict("records")
    return {str(key): value for key, value in rows[0].items()} if rows else {}


def _expected(overall: dict[str, Any]) -> Tile:
    low, high = (number_or_none(overall.get(key)) for key in ("low", "high"))
    note = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    says = "fitted (else best) minus bias: what one fold's model should score on images that nobody has seen"
    return "Expected on new images", _text(number_or_none(overall.get("expected"))), note, says


def _interval(scores: pd.DataFrame | None, column: str) -> str:
    """The 95 % interval of the mean, whole groups drawn anew."""
    if scores is None or not {column, "group"} <= set(scores):
        return ""
    known = scores.dropna(subset=[column])
    if known["group"].nunique() < 2:
        return ""
    try:
        found = bootstrap_mean(known[column].to_numpy(), known["group"].to_numpy())
    except DataError:
        return ""
    few = known["group"].nunique() < MIN_GROUPS
    return f"{found.low:.3f} to {found.high:.3f}" + (", few groups" if few else "")


def _training_tiles(folds: Sequence[FoldFacts]) -> list[Tile]:
    """How far the training is, where there is no cross-validation yet."""
    ended = sum(item.state == "finished" for item in folds)
    tiles = [("Folds trained", f"{ended} of {len(folds)}", "", "to their last epoch")]
    for item in folds:
        if item.epochs is None:
            continue
        score = "no evaluation yet" if item.score is None else f"{item.score:.3f}"
        best = "best" if item.state == "finished" else "best so far"
        at = "" if item.epoch is None else f"{best}, at epoch {item.epoch:g} of {item.epochs:g}"
        says = "mean score of the validation images: optimistic, since the epoch is chosen on them"
        tiles.append((f"Fold {item.fold}", score, at or f"{item.epochs:g} epochs", says))
    return tiles


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"

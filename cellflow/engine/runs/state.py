"""How far a run has come, from what is on disk. A run may be half-way and its files damaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.engine.runs.run_records import (
    OofRecord,
    find_oof_record,
    read_fold_summary,
    select_metric_of,
)
from cellflow.engine.runs.thresholds import find_thresholds
from cellflow.errors import DataError, RunError
from cellflow.io.tables import read_frame
from cellflow.storage.records import dict_or_empty, number_or_none, read_json
from cellflow.storage.run_folder import RunFolder

__all__ = [
    "FoldState",
    "RunLabels",
    "RunState",
    "is_debug",
    "overall_cv",
    "run_created",
    "run_labels",
    "run_state",
]


TEXT_COLUMNS = (
    "id", "cell_type", "predicted_type", "group", "weights", "scope", "name", "selected_by", "fitted_for",
)  # fmt: skip
"""Columns of the tables of a run that are text, whatever it looks like; all others are numbers."""
CV_COLUMNS = (
    "last_epoch", "best_epoch", "cross_fitted", "selection_bias", "expected", "low", "high",
)  # fmt: skip
"""Columns of `cv.csv` that are kept."""


@dataclass(frozen=True)
class FoldState:
    """How far the training of a fold has come."""

    fold: int
    finished: str
    """Why it is complete ("epochs", "patience"); empty while it is not."""
    has_model: bool
    """Whether there is a best model."""
    score: float | None
    """The best on the validation images."""
    epoch: float | None
    """That of the best score."""
    epochs: float | None
    """Those trained."""

    @property
    def complete(self) -> bool:
        """Whether the training came to its end and its model is there."""
        return bool(self.finished) and self.has_model


@dataclass(frozen=True)
class RunState:
    """How far a run has come."""

    record: dict[str, Any] | None
    """What it was started with; None where that cannot be read."""
    problem: str
    """What is broken, for people; empty where nothing is."""
    folds: tuple[FoldState, ...]
    """Every fold that a complete run has."""
    predicted: bool
    """Whether there are out-of-fold predictions of the models that are there."""
    calibrated: bool
    """Whether there are thresholds fitted on these."""

    @property
    def complete(self) -> bool:
        """Whether every fold is trained to its end."""
        return bool(self.folds) and all(fold.complete for fold in self.folds)

    @property
    def status(self) -> str:
        """How far: "training", "trained", "predicted" or "calibrated"."""
        if not self.complete:
            return "training"
        return "calibrated" if self.calibrated else "predicted" if self.predicted else "trained"


def run_state(run: RunFolder, hashes: Mapping[int, str | None] | None = None) -> RunState:
    """How far a run has come.

    `hashes` are those of the best model of every fold. Without them predictions and models are compared by their
    epochs, which needs none of the large files.
    """
    try:
        record = run.read_record()
    except RunError as error:
        return RunState(None, str(error), (), False, False)
    metric = select_metric_of(record)
    folds = tuple(
        _fold_state(run, fold, metric) for fold in record["folds"] if isinstance(fold, int)
    )
    problem = ""
    if len(folds) < max(1, len(record["folds"])):
        problem = f"{run.record_path}: expected numbers of folds, found {record['folds']}"
    gone = [state.fold for state in folds if state.finished and not state.has_model]
    if gone:
        problem = f"fold {', '.join(map(str, gone))}: trained, but best.pt is gone"
    made = find_oof_record(run)
    predicted = (
        made is not None
        and made.is_of_this_length(record)
        and _is_predicted(run, made, folds, hashes)
    )
    calibrated = predicted and _is_calibrated(run, hashes)
    return RunState(record, problem, folds, predicted, calibrated)


@dataclass(frozen=True)
class RunLabels:
    """What people said of a run, and where trackers keep it."""

    comment: str
    environment: str
    """Name of the host as it was given or else detected; may be empty."""
    links: dict[str, Any]
    """Links or folders, by tracker."""


def run_labels(run: RunFolder, metadata: Mapping[str, Any] | None) -> RunLabels:
    """Labels of a run from what its trackers keep; from its metadata where that is not there."""
    old, tracking = metadata or {}, read_json(run.tracking)
    if tracking is None:
        tracking = {"settings": old, "links": old.get("trackers")}
    settings = dict_or_empty(tracking.get("settings"))
    detected = (read_json(run.environment) or {}).get("environment")
    environment = settings.get("environment") or detected or old.get("environment")
    comment = settings.get("comment") or ""
    return RunLabels(str(comment), str(environment or ""), dict_or_empty(tracking.get("links")))


def run_created(run: RunFolder, metadata: Mapping[str, Any] | None) -> str:
    """When a run was started: as its metadata say, else when its record was written; ISO 8601, UTC."""
    known = (metadata or {}).get("created")
    if isinstance(known, str):
        return known
    for path in (run.record_path, run.path):
        if path.exists():
            return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    return now_text()


def overall_cv(run: RunFolder) -> dict[str, float | None]:
    """The overall row of `cv.csv`, a value for each of its columns; empty where there is none."""
    return next((row for scope, _, row in cv_rows(run) if scope == "overall"), {})


def is_debug(record: Mapping[str, Any]) -> bool:
    """Whether a run's record marks it as one of `--debug`."""
    return True in (record.get("debug"), dict_or_empty(record.get("config")).get("debug"))


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _fold_state(run: RunFolder, fold: int, metric: str) -> FoldState:
    """From the summary of a finished fold; else from the history, which is never older."""
    files_ = run.fold(fold)
    summary, has_model = read_fold_summary(files_), files_.best.is_file()
    if summary.finished:
        numbers = summary.best_score, summary.best_epoch, summary.epochs
        return FoldState(fold, summary.finished, has_model, *numbers)
    score, epoch, epochs = _from_history(files_.history, metric)
    return FoldState(fold, "", has_model, score, epoch, epochs)


def _from_history(path: Path, metric: str) -> tuple[float | None, float | None, float | None]:
    """Best score, its epoch, and the epochs done; a tie goes to the earlier epoch, as in training.

    Where another metric chooses, the score of the epoch that it has chosen.
    """
    table = lenient_table(path)
    if table is None or "epoch" not in table or not len(table):
        return None, None, None
    epochs = pd.to_numeric(table["epoch"], errors="coerce")
    column = f"val_{'score' if metric == 'competition' else metric}"
    names = [name for name in (column, f"{column}_ema") if name in table]
    chosen = table[names].apply(pd.to_numeric, errors="coerce").max(axis=1)
    scores = chosen
    if metric != "competition" and "best_score" in table:
        scores = pd.to_numeric(table["best_score"], errors="coerce")
    if chosen.isna().all():
        return None, None, number_or_none(epochs.max())
    best = chosen.idxmax()
    return number_or_none(scores[best]), number_or_none(epochs[best]), number_or_none(epochs.max())


def _is_predicted(
    run: RunFolder,
    made: OofRecord,
    folds: Iterable[FoldState],
    hashes: Mapping[int, str | None] | None,
) -> bool:
    """Whether the out-of-fold predictions were made by the models that are there."""
    scores = lenient_table(run.scores)
    if scores is None or not {"fold", "epoch"} <= set(scores):
        return False
    if hashes is not None:
        return bool(hashes) and made.models == hashes
    epochs = dict(zip(scores["fold"], scores["epoch"], strict=True))
    return all(state.has_model and epochs.get(state.fold) == state.epoch for state in folds)


def _is_calibrated(run: RunFolder, hashes: Mapping[int, str | None] | None) -> bool:
    found = find_thresholds(run.thresholds)
    return found is not None and (hashes is None or set(hashes.values()) == set(found.members))


def cv_rows(run: RunFolder) -> list[tuple[str, str, dict[str, float | None]]]:
    table = lenient_table(run.cv)
    if table is None or not {"scope", "name"} <= set(table):
        return []
    rows = table.to_dict("records")
    numbers = [{key: number_or_none(row.get(key)) for key in CV_COLUMNS} for row in rows]
    return list(zip(map(str, table["scope"]), map(str, table["name"]), numbers, strict=True))


def lenient_table(path: Path) -> pd.DataFrame | None:
    """A CSV, or None where there is none that can be read."""
    try:
        return read_frame(path, text=TEXT_COLUMNS)
    except DataError:
        return None

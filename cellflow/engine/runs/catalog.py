"""What runs there are, and how far each has come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.config.catalog import RunsConfig
from cellflow.config.checks import check_config
from cellflow.engine.runs.metadata import read_metadata
from cellflow.engine.runs.state import (
    RunState,
    is_debug,
    overall_cv,
    run_created,
    run_labels,
    run_state,
)
from cellflow.errors import DataError
from cellflow.storage.locks import is_locked
from cellflow.storage.run_folder import RunFolder, is_final_record

__all__ = ["find_runs", "is_trained_now", "list_runs"]

COLUMNS = (
    "name", "status", "cv_raw", "cv_post", "low", "high", "best_val", "folds", "folds_scored", "date",
    "comment", "host", "debug", "problem",
)  # fmt: skip


def list_runs(config: RunsConfig) -> pd.DataFrame:
    """Every run of a folder, a row each; no large file is read.

    Returns
    -------
    pandas.DataFrame
        name; status ("training 1/3 folds", "running 1/3 folds" while a process trains one, "trained",
        "predicted", "calibrated", "broken"); cv_raw and cv_post, the score at the training's and at
        cross-fitted thresholds, with low and high, the 95 % interval of what a model should score on
        unseen images; best_val, the mean of the best scores of single folds while training (optimistic, and
        no cross-validation), of so many folds_scored; folds; date (UTC); comment; host; debug; problem (what is
        broken).

    Raises
    ------
    DataError
        If there is no such folder.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from cellflow import list_runs, RunsConfig
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = list_runs(RunsConfig(runs_dir=Path(folder)))
    >>> table.empty, list(table)[:3]
    (True, ['name', 'status', 'cv_raw'])
    """
    check_config(config)
    if not config.runs_dir.is_dir():
        raise DataError(
            f"No folder {config.runs_dir}. Start a run with: cellflow train --fold all; or say where "
            "runs are with --runs_dir."
        )
    rows = [_row(run) for run in find_runs(config.runs_dir)]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(_TYPES)
    table = _sorted(table, config.sort)
    return (table.head(config.most) if config.most else table).reset_index(drop=True)


def find_runs(runs_dir: Path) -> Iterator[RunFolder]:
    """Every run of a folder by name, the damaged too: whatever has a record, metadata, or a fold."""
    for path in sorted(runs_dir.iterdir()):
        run = RunFolder(path)
        if path.name.startswith(".") or not path.is_dir():
            continue
        if run.exists() or run.metadata.exists() or run.fold_folders():
            yield run


def is_trained_now(run: RunFolder) -> bool:
    """Whether a process of this machine trains a fold of the run."""
    return any(is_locked(fold.lock) for fold in run.fold_folders())


_TYPES = {
    "cv_raw": float, "cv_post": float, "low": float, "high": float, "best_val": float, "folds": int,
    "folds_scored": int, "debug": bool,
}  # fmt: skip


def _row(run: RunFolder) -> dict[str, Any]:
    state, metadata = run_state(run), read_metadata(run)
    labels = run_labels(run, metadata)
    cv = overall_cv(run) if state.predicted else {}
    scores = [fold.score for fold in state.folds if fold.score is not None]
    if is_final_record(state.record):  # those of images that it was trained on
        scores = []
    return {
        "name": run.name,
        "status": _status(run, state),
        "cv_raw": cv.get("best_epoch"),
        "cv_post": cv.get("cross_fitted"),
        "low": cv.get("low"),
        "high": cv.get("high"),
        "best_val": sum(scores) / len(scores) if scores else None,
        "folds": len(state.folds),
        "folds_scored": len(scores),
        "date": run_created(run, metadata),
        "comment": labels.comment,
        "host": labels.environment,
        "debug": is_debug(state.record or {}),
        "problem": state.problem,
    }


def _status(run: RunFolder, state: RunState) -> str:
    done = f"{sum(fold.complete for fold in state.folds)}/{len(state.folds)} folds"
    if is_trained_now(run):
        return f"running {done}"
    if state.problem:
        return "broken"
    return state.status if state.complete else f"training {done}"


def _sorted(table: pd.DataFrame, by: str) -> pd.DataFrame:
    if by == "name":
        return table.sort_values("name", kind="stable")
    key = table["date"] if by == "date" else table["cv_post"].fillna(table["cv_raw"])
    order = key.sort_values(ascending=False, kind="stable", na_position="last").index
    return table.loc[order]

"""The page of a run, from its files: it can be made at any moment."""

from __future__ import annotations

import dataclasses
import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.config.metrics import SELECT_NAMES
from cellflow.engine.pages.explorer import run_explorer
from cellflow.engine.pages.run_commands import again_commands, use_commands
from cellflow.engine.pages.run_hints import run_hints
from cellflow.engine.pages.run_machine import machine_rows, setting_rows, time_rows
from cellflow.engine.pages.run_tables import RunTables, ensemble_rows, prediction_rows
from cellflow.engine.pages.run_thresholds import threshold_facts
from cellflow.engine.pages.run_tiles import run_tiles
from cellflow.engine.runs.next_command import run_word
from cellflow.engine.runs.run_records import select_metric_of
from cellflow.engine.runs.state import (
    FoldState,
    RunState,
    is_debug,
    run_created,
    run_labels,
    run_state,
)
from cellflow.errors import CellflowError
from cellflow.report.pages.run_facts import FoldFacts, RunFacts
from cellflow.report.pages.run_page import draw_run_page
from cellflow.storage.hashing import hash_file
from cellflow.storage.locks import is_locked
from cellflow.storage.records import dict_or_empty, number_or_none
from cellflow.storage.run_folder import RunFolder

__all__ = ["gather_run", "try_run_page", "write_run_page"]

_log = logging.getLogger(__name__)
_CV = ["scope", "name", "images", "groups", "best_epoch"]
_SCORES = ["id", "fold", "cell_type", "group", "score"]


def write_run_page(
    run: RunFolder,
    out: Path | None = None,
    *,
    data: Path | None = None,
    ensembles_dir: Path | None = None,
    predictions_dir: Path | None = None,
    refresh: float | None = None,
) -> Path:
    """Write the page of a run, whatever there is of it, atomically.

    Parameters
    ----------
    run : RunFolder
        The run.
    out : Path, optional
        File to write; without it ``report.html`` in the run's folder.
    data : Path, optional
        Dataset folder of the run, when it is not where the run found it.
    ensembles_dir, predictions_dir : Path, optional
        Where calibrations of ensembles and results of predictions lie; by default beside the folder of the
        runs.
    refresh : float, optional
        Seconds after which an open page loads itself again.

    Returns
    -------
    Path
        The page.
    """
    path = run.report if out is None else out
    facts = gather_run(run, ensembles_dir=ensembles_dir, predictions_dir=predictions_dir)
    made_by = f"cellflow report {run_word(run)}"
    # another page of the run has files of its own: each finds those that it was made with
    beside = run.report_files if path == run.report else path.with_name(f"{path.stem}-files")
    draw_run_page(
        path, facts, run_explorer(run, data=data, folder=beside), made_by=made_by, refresh=refresh
    )
    return path


def try_run_page(
    run: RunFolder,
    *,
    data: Path | None = None,
    ensembles_dir: Path | None = None,
    predictions_dir: Path | None = None,
) -> Path | None:
    """The same at the end of another command, which it never fails; None where it could not be written."""
    try:
        return write_run_page(
            run, data=data, ensembles_dir=ensembles_dir, predictions_dir=predictions_dir
        )
    except Exception as error:
        _log.warning(
            "%s could not be written (%s: %s); to try again: cellflow report %s",
            run.report, type(error).__name__, error, shlex.quote(str(run.path)),
        )  # fmt: skip
        return None


def gather_run(
    run: RunFolder, *, ensembles_dir: Path | None = None, predictions_dir: Path | None = None
) -> RunFacts:
    """What the page of a run shows. Nothing is written."""
    files, beside = RunTables(run), run.path.resolve().parent.parent
    record = files.record()
    hashes = _hashes(run)
    state = run_state(run, {item: hashes.get(item) for item in record.get("folds", [])})
    metadata = files.json(run.metadata)
    labels = run_labels(run, metadata)
    folds = [_fold_facts(files, item) for item in _fold_states(run, state)]
    cv = files.table(run.cv, _CV)
    scores = _scores(files)
    known = set(filter(None, hashes.values()))
    found = files.thresholds(run.thresholds)
    host = files.json(run.environment) or dict_or_empty(metadata.get("host"))
    settings = setting_rows(record)
    facts = RunFacts(
        run.path.resolve().name, _status(state, folds), created=run_created(run, metadata),
        comment=labels.comment, debug=is_debug(record),
        select_metric=SELECT_NAMES[select_metric_of(record)], folds=folds,
        tiles=run_tiles(cv, scores, folds), cv=cv, scores=scores,
        confusion=files.grid(run.oof / "cell_types.csv"),
        thresholds=None if found is None else threshold_facts(found),
        ensembles=ensemble_rows(files, ensembles_dir or beside / "ensembles", known),
        predictions=prediction_rows(files, predictions_dir or beside / "predictions", known),
        machine=machine_rows(host, record), time=time_rows(folds), settings=settings,
        changed=[row for row in settings if row["changed"]], again=_commands(run, record),
        use=use_commands(run, unfinished=not state.complete), data=str(record.get("data", "")),
        word=run_word(run), flows=run.flows.exists(),
    )  # fmt: skip
    facts = dataclasses.replace(facts, problems=tuple(files.problems))
    return dataclasses.replace(facts, hints=run_hints(run, state, facts))


def _commands(run: RunFolder, record: dict[str, Any]) -> list[tuple[str, str]]:
    try:
        return again_commands(run, record)
    except CellflowError:  # a damaged record, which is told by itself
        return []


def _hashes(run: RunFolder) -> dict[int, str | None]:
    """Hash of the best model of every fold that has one."""
    found: dict[int, str | None] = {}
    for fold in run.fold_folders():
        number = fold.path.name.removeprefix("fold_")
        if number.isdecimal() and fold.best.is_file():
            found[int(number)] = hash_file(fold.best)
    return found


def _fold_states(run: RunFolder, state: RunState) -> list[FoldState]:
    """Those of the record; where that is damaged, of the folders that are there."""
    if state.record is not None:
        return list(state.folds)
    numbers = [item.path.name.removeprefix("fold_") for item in run.fold_folders()]
    return [
        FoldState(int(number), "", run.fold(int(number)).best.is_file(), None, None, None)
        for number in numbers
        if number.isdecimal()
    ]


def _fold_facts(files: RunTables, state: FoldState) -> FoldFacts:
    folder = files.run.fold(state.fold)
    history = files.table(folder.history, ["epoch"])
    evaluations = files.table(folder.evaluations, ["epoch", "id", "score"])
    skipped = 0.0
    if history is not None and "skipped_steps" in history:
        skipped = float(pd.to_numeric(history["skipped_steps"], errors="coerce").sum())
    return FoldFacts(
        state.fold, _fold_word(files.run, state),
        pd.DataFrame() if history is None else history.dropna(subset=["epoch"]),
        pd.DataFrame() if evaluations is None else evaluations,
        epoch=state.epoch, score=state.score, epochs=state.epochs, ended=state.finished,
        skipped_steps=int(skipped),
    )  # fmt: skip


def _fold_word(run: RunFolder, state: FoldState) -> str:
    """How far a fold is; a lock tells that a process of this machine trains it."""
    if state.complete:
        return "finished"
    if is_locked(run.fold(state.fold).lock):
        return "running"
    return "not begun" if state.epochs is None else "stopped"


def _status(state: RunState, folds: list[FoldFacts]) -> str:
    if any(item.state == "running" for item in folds):
        done = sum(item.state == "finished" for item in folds)
        return f"in training, {done} of {len(folds)} folds finished"
    if state.record is None:
        return "its record is damaged"
    if not state.complete:
        done = sum(item.state == "finished" for item in folds)
        return f"training stopped, {done} of {len(folds)} folds finished"
    return state.status


def _scores(files: RunTables) -> pd.DataFrame | None:
    """Scores of the out-of-fold predictions, with the cross-fitted ones where there is a calibration."""
    run = files.run
    scores = files.table(run.scores, _SCORES)
    if scores is None or not run.thresholds.exists():
        return scores
    fitted = files.table(run.calibration / "scores.csv", ["id", "cross_fitted"])
    if fitted is None:
        return scores
    known: Mapping[str, float] = dict(zip(fitted["id"], fitted["cross_fitted"], strict=True))
    values = [number_or_none(known.get(name)) for name in scores["id"]]
    return scores.assign(cross_fitted=pd.Series(values, index=scores.index, dtype=float))

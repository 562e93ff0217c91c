"""`metadata.json`: one file that says of a run what there is to know, made from what is on disk.

Nothing here needs torch. A run may be half-way and its files damaged: what cannot be read is None.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.errors import DataError, RunError
from cellflow.io.tables import read_frame
from cellflow.storage.atomic import write_json
from cellflow.storage.hashing import hash_file, hash_json
from cellflow.storage.records import load_json
from cellflow.storage.run_folder import RunFolder, is_of_this_length

__all__ = [
    "FORMAT",
    "VERSION",
    "FoldState",
    "RunLabels",
    "RunState",
    "build_metadata",
    "is_debug",
    "overall_cv",
    "read_json",
    "read_metadata",
    "run_created",
    "run_labels",
    "run_state",
    "schema",
    "write_metadata",
]

FORMAT, VERSION = "cellflow-metadata", 1
CV_COLUMNS = (
    "last_epoch", "best_epoch", "cross_fitted", "selection_bias", "expected", "low", "high",
)  # fmt: skip
"""Columns of `cv.csv` that are kept."""
_PUBLISHED = ("to", "url", "title", "version", "date")
_PRECISION = re.compile(r"ap(\d\d)")
TEXT_COLUMNS = ("id", "cell_type", "predicted_type", "group", "weights", "scope", "name")
"""Columns of the tables of a run that are text, whatever it looks like; all others are numbers."""


def schema() -> dict[str, Any]:
    """JSON schema (2020-12) of `metadata.json`, as it is published with the package."""
    path = files("cellflow") / "schemas" / "metadata.schema.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class FoldState:
    """How far the training of a fold has come.

    Attributes
    ----------
    fold : int
        Its number.
    finished : str
        Why it is complete ("epochs", "patience"); empty while it is not.
    has_model : bool
        Whether there is a best model.
    score, epoch : float or None
        Best score on the validation images, and its epoch.
    epochs : float or None
        Epochs trained.
    """

    fold: int
    finished: str
    has_model: bool
    score: float | None
    epoch: float | None
    epochs: float | None

    @property
    def complete(self) -> bool:
        """Whether the training came to its end and its model is there."""
        return bool(self.finished) and self.has_model


@dataclass(frozen=True)
class RunState:
    """How far a run has come.

    Attributes
    ----------
    record : dict or None
        What the run was started with; None where that cannot be read.
    problem : str
        What is broken, for people; empty where nothing is.
    folds : tuple of FoldState
        Every fold that a complete run has.
    predicted : bool
        Whether there are out-of-fold predictions of the models that are there.
    calibrated : bool
        Whether there are thresholds fitted on these.
    """

    record: dict[str, Any] | None
    problem: str
    folds: tuple[FoldState, ...]
    predicted: bool
    calibrated: bool

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

    Parameters
    ----------
    run : RunFolder
        The run.
    hashes : mapping, optional
        Hash of the best model of every fold. Without them predictions and models are compared by their
        epochs, which needs none of the large files.
    """
    try:
        record = run.read_record()
    except RunError as error:
        return RunState(None, str(error), (), False, False)
    folds = tuple(_fold_state(run, fold) for fold in record["folds"] if isinstance(fold, int))
    problem = ""
    if len(folds) < max(1, len(record["folds"])):
        problem = f"{run.record_path}: expected numbers of folds, found {record['folds']}"
    gone = [state.fold for state in folds if state.finished and not state.has_model]
    if gone:
        problem = f"fold {', '.join(map(str, gone))}: trained, but best.pt is gone"
    current = is_of_this_length(record, read_json(run.oof_record) or {})
    predicted = current and _is_predicted(run, folds, hashes)
    calibrated = predicted and _is_calibrated(run, hashes)
    return RunState(record, problem, folds, predicted, calibrated)


def build_metadata(run: RunFolder, *, ensembles_dir: Path | None = None) -> dict[str, Any]:
    """Metadata of a run as `schema` describes them, from what is on disk. Writes nothing.

    Parameters
    ----------
    run : RunFolder
        The run, however far it has come.
    ensembles_dir : Path, optional
        Where calibrations of ensembles lie; without it the folder ``ensembles`` beside that of the runs.
    """
    old = read_metadata(run) or {}
    listed = _fold_numbers(run)
    hashes = {fold: _hash(run.fold(fold).best) for fold in listed}
    state = run_state(run, hashes)
    record = state.record or {}
    config = record.get("config")
    labels = run_labels(run, old)
    known_hashes = {item for item in hashes.values() if item}
    ensembles_dir = ensembles_dir or run.path.resolve().parent.parent / "ensembles"
    return {
        "format": FORMAT,
        "version": VERSION,
        "experiment": run.path.resolve().name,
        "status": state.status,
        "debug": is_debug(record),
        "created": run_created(run, old),
        "updated": _now(),
        "comment": labels.comment,
        "environment": labels.environment,
        "host": read_json(run.environment),
        "versions": _dict(record.get("versions")),
        "data": {
            "path": record.get("data"),
            "hash": record.get("data_hash"),
            "images": _count(run.folds),
        },
        "split": {"id": record.get("folds_hash"), "folds": listed},
        "config": config,
        "config_hash": None if config is None else hash_json(config),
        "model": _model(run, state, hashes),
        "policy": _policy(run) if state.predicted else None,
        "cv": _cv(run) if state.predicted else None,
        "thresholds": _thresholds(run) if state.calibrated else None,
        "ensembles": _ensembles(ensembles_dir, known_hashes),
        "trackers": labels.links,
        "publication": _publication(run),
    }


def write_metadata(run: RunFolder, *, ensembles_dir: Path | None = None) -> dict[str, Any]:
    """Build metadata and write them atomically, unless nothing but their date would change.

    Returns
    -------
    dict
        What the file says now.
    """
    old, new = read_metadata(run), build_metadata(run, ensembles_dir=ensembles_dir)
    if old is not None and old | {"updated": ""} == new | {"updated": ""}:
        return old
    write_json(run.metadata, new)
    return new


def read_metadata(run: RunFolder) -> dict[str, Any] | None:
    """Metadata as they were written last; None where there are none that can be read."""
    found = read_json(run.metadata)
    known = found is not None and (found.get("format"), found.get("version")) == (FORMAT, VERSION)
    return found if known and isinstance(found.get("data"), dict) else None  # type: ignore[union-attr]


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, with numbers that JSON does not know as None; None where there is no such file."""
    try:
        found = load_json(path, parse_constant=lambda _: None)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def is_debug(record: Mapping[str, Any]) -> bool:
    """Whether a run's record marks it as one of `--debug`."""
    return True in (record.get("debug"), _dict(record.get("config")).get("debug"))


@dataclass(frozen=True)
class RunLabels:
    """What people said of a run, and where trackers keep it.

    Attributes
    ----------
    comment, environment : str
        Comment, and name of the host as it was given or else detected; may be empty.
    links : dict
        Links or folders, by tracker.
    """

    comment: str
    environment: str
    links: dict[str, Any]


def run_labels(run: RunFolder, metadata: Mapping[str, Any] | None) -> RunLabels:
    """Labels of a run from what its trackers keep; from its metadata where that is not there."""
    old, tracking = metadata or {}, read_json(run.tracking)
    if tracking is None:
        tracking = {"settings": old, "links": old.get("trackers")}
    settings = _dict(tracking.get("settings"))
    detected = (read_json(run.environment) or {}).get("environment")
    environment = settings.get("environment") or detected or old.get("environment")
    comment = settings.get("comment") or ""
    return RunLabels(str(comment), str(environment or ""), _dict(tracking.get("links")))


def run_created(run: RunFolder, metadata: Mapping[str, Any] | None) -> str:
    """When a run was started: as its metadata say, else when its record was written; ISO 8601, UTC."""
    known = (metadata or {}).get("created")
    if isinstance(known, str):
        return known
    for path in (run.record_path, run.path):
        if path.exists():
            return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    return _now()


def overall_cv(run: RunFolder) -> dict[str, float | None]:
    """The overall row of `cv.csv`, a value for each of its columns; empty where there is none."""
    return next((row for scope, _, row in _cv_rows(run) if scope == "overall"), {})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _fold_numbers(run: RunFolder) -> list[int]:
    try:
        return [fold for fold in run.read_record()["folds"] if isinstance(fold, int)]
    except RunError:
        return []


def _fold_state(run: RunFolder, fold: int) -> FoldState:
    """From the summary of a finished fold; else from the history, which is never older."""
    files_ = run.fold(fold)
    summary = read_json(files_.summary) or {}
    has_model = files_.best.is_file()
    finished = summary.get("finished")
    if finished and isinstance(finished, str):
        numbers = [_number(summary.get(key)) for key in ("best_score", "best_epoch", "epochs")]
        return FoldState(fold, finished, has_model, *numbers)
    score, epoch, epochs = _from_history(files_.history)
    return FoldState(fold, "", has_model, score, epoch, epochs)


def _from_history(path: Path) -> tuple[float | None, float | None, float | None]:
    """Best score, its epoch, and the epochs done; a tie goes to the earlier epoch, as in training."""
    table = _table(path)
    if table is None or "epoch" not in table or not len(table):
        return None, None, None
    epochs = pd.to_numeric(table["epoch"], errors="coerce")
    names = [name for name in ("val_score", "val_score_ema") if name in table]
    scores = table[names].apply(pd.to_numeric, errors="coerce").max(axis=1)
    if scores.isna().all():
        return None, None, _number(epochs.max())
    best = scores.idxmax()
    return _number(scores[best]), _number(epochs[best]), _number(epochs.max())


def _is_predicted(
    run: RunFolder, folds: Iterable[FoldState], hashes: Mapping[int, str | None] | None
) -> bool:
    """Whether the out-of-fold predictions were made by the models that are there."""
    made, scores = read_json(run.oof_record), _table(run.scores)
    if made is None or scores is None or not {"fold", "epoch"} <= set(scores):
        return False
    if hashes is not None:
        return bool(hashes) and made.get("models") == {str(k): item for k, item in hashes.items()}
    epochs = dict(zip(scores["fold"], scores["epoch"], strict=True))
    return all(state.has_model and epochs.get(state.fold) == state.epoch for state in folds)


def _is_calibrated(run: RunFolder, hashes: Mapping[int, str | None] | None) -> bool:
    found = read_json(run.thresholds)
    if found is None or not isinstance(found.get("shared"), dict):
        return False
    return hashes is None or set(hashes.values()) == set(map(str, _list(found.get("members"))))


def _model(run: RunFolder, state: RunState, hashes: Mapping[int, str | None]) -> dict[str, Any]:
    model = _dict(_dict((state.record or {}).get("config")).get("model"))
    folds = [
        {
            "fold": fold.fold,
            "file": run.fold(fold.fold).best.relative_to(run.path).as_posix(),
            "hash": hashes.get(fold.fold),
            "score": fold.score,
            "epoch": fold.epoch,
            "epochs": fold.epochs,
            "finished": fold.finished,
        }
        for fold in state.folds
    ]
    channels = {key: model.get(key) for key in ("chan", "chan2")}
    return {"network": "cellpose CPnet", **channels, "folds": folds}


def _cv(run: RunFolder) -> dict[str, Any] | None:
    """Scores overall, per fold, per cell type and per IoU threshold."""
    per: dict[str, dict[str, Any]] = {"fold": {}, "cell_type": {}}
    overall: dict[str, Any] = {}
    for scope, name, row in _cv_rows(run):
        if scope == "overall":
            overall = row
        elif scope in per:
            per[scope][name] = row
    if not overall:
        return None
    return {
        "raw": overall["best_epoch"],
        "post": overall["cross_fitted"],
        **overall,
        "per_fold": per["fold"],
        "per_type": per["cell_type"],
        "per_threshold": _per_threshold(run),
    }


def _cv_rows(run: RunFolder) -> list[tuple[str, str, dict[str, float | None]]]:
    table = _table(run.cv)
    if table is None or not {"scope", "name"} <= set(table):
        return []
    return [
        (str(row["scope"]), str(row["name"]), {key: _number(row.get(key)) for key in CV_COLUMNS})
        for row in table.to_dict("records")
    ]


def _per_threshold(run: RunFolder) -> dict[str, float]:
    """Mean precision at every IoU threshold that the table of scores has a column for (ap50, ap75...)."""
    scores = _table(run.scores)
    found = {}
    for name in () if scores is None else scores.columns:
        digits = _PRECISION.fullmatch(str(name))
        if scores is None or digits is None:
            continue
        mean = _number(pd.to_numeric(scores[name], errors="coerce").mean())
        if mean is not None:
            found[f"0.{digits[1]}"] = mean
    return dict(sorted(found.items()))


def _thresholds(run: RunFolder) -> dict[str, Any] | None:
    found = read_json(run.thresholds)
    if found is None or not isinstance(found.get("shared"), dict):
        return None
    per_type = {
        k: item for k, item in _dict(found.get("per_type")).items() if isinstance(item, dict)
    }
    source = str(found.get("source") or "")
    return {"source": source, "all types": found["shared"], "per_type": per_type}


def _policy(run: RunFolder) -> str | None:
    policy = (read_json(run.oof_record) or {}).get("policy")
    return policy if policy in ("dataset", "type", "image") else None


def _ensembles(folder: Path, hashes: set[str]) -> list[str]:
    """Names of calibrated ensembles that have a model of the run for a member."""
    names = []
    for path in sorted(folder.glob("*/ensemble.json")):
        members = _list((read_json(path) or {}).get("members"))
        if hashes & {str(item) for item in members}:
            names.append(path.parent.name)
    return names


def _publication(run: RunFolder) -> dict[str, Any] | None:
    found = read_json(run.publication)
    return None if found is None else {key: found.get(key) for key in _PUBLISHED}


def _hash(path: Path) -> str | None:
    try:
        return hash_file(path)
    except OSError:
        return None


def _count(path: Path) -> int | None:
    table = _table(path)
    return None if table is None or "id" not in table else len(table)


def _table(path: Path) -> pd.DataFrame | None:
    """A CSV, or None where there is none that can be read."""
    try:
        return read_frame(path, text=TEXT_COLUMNS)
    except DataError:
        return None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None

"""`metadata.json`: one file that says of a run what there is to know, made from what is on disk.

A run may be half-way and its files damaged: what cannot be read is None.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.engine.runs.run_records import find_oof_record
from cellflow.engine.runs.state import (
    RunState,
    cv_rows,
    is_debug,
    lenient_table,
    now_text,
    run_created,
    run_labels,
    run_state,
)
from cellflow.engine.runs.thresholds import ALL_TYPES, find_thresholds
from cellflow.errors import CheckpointError, RunError
from cellflow.storage.atomic import write_json
from cellflow.storage.hashing import hash_file, hash_json
from cellflow.storage.records import dict_or_empty, number_or_none, read_json
from cellflow.storage.run_folder import RunFolder, is_final_record

__all__ = ["FORMAT", "VERSION", "build_metadata", "read_metadata", "schema", "write_metadata"]

FORMAT, VERSION = "cellflow-metadata", 1
_PUBLISHED = ("to", "url", "title", "version", "date")
_PRECISION = re.compile(r"ap(\d\d)")


def schema() -> dict[str, Any]:
    """JSON schema (2020-12) of `metadata.json`, as it is published with the package."""
    path = files("cellflow") / "schemas" / "metadata.schema.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def build_metadata(run: RunFolder, *, ensembles_dir: Path | None = None) -> dict[str, Any]:
    """Metadata of a run, however far it has come, as `schema` describes them, from what is on disk.

    Calibrations of ensembles lie in `ensembles_dir`; without it in the folder ``ensembles`` beside that of the runs.
    """
    old = read_metadata(run) or {}
    listed = _fold_numbers(run)
    hashes = {fold: _hash(run.fold(fold).best) for fold in listed}
    state = run_state(run, hashes)
    record = state.record or {}
    config = record.get("config")
    labels, made = run_labels(run, old), find_oof_record(run)
    known_hashes = {item for item in hashes.values() if item}
    ensembles_dir = ensembles_dir or run.path.resolve().parent.parent / "ensembles"
    return {
        "format": FORMAT,
        "version": VERSION,
        "experiment": run.path.resolve().name,
        "status": state.status,
        "debug": is_debug(record),
        "created": run_created(run, old),
        "updated": now_text(),
        "comment": labels.comment,
        "environment": labels.environment,
        "host": read_json(run.environment),
        "versions": dict_or_empty(record.get("versions")),
        "data": {
            "path": record.get("data"),
            "hash": record.get("data_hash"),
            "images": _count(run.folds),
        },
        "split": {"id": record.get("folds_hash"), "folds": listed},
        "config": config,
        "config_hash": None if config is None else hash_json(config),
        "model": _model(run, state, hashes),
        "policy": made.policy if made is not None and state.predicted else None,
        "cv": _cv(run) if state.predicted else None,
        "thresholds": _thresholds(run) if state.calibrated else None,
        "ensembles": _ensembles(ensembles_dir, known_hashes),
        "trackers": labels.links,
        "publication": _publication(run),
    }


def write_metadata(run: RunFolder, *, ensembles_dir: Path | None = None) -> dict[str, Any]:
    """Build metadata and write them atomically, unless nothing but their date would change; what the file says now."""
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


def _fold_numbers(run: RunFolder) -> list[int]:
    try:
        return [fold for fold in run.read_record()["folds"] if isinstance(fold, int)]
    except RunError:
        return []


def _model(run: RunFolder, state: RunState, hashes: Mapping[int, str | None]) -> dict[str, Any]:
    model = dict_or_empty(dict_or_empty((state.record or {}).get("config")).get("model"))
    folds = [
        {
            "fold": fold.fold,
            "file": run.fold(fold.fold).best.relative_to(run.path).as_posix(),
            "hash": hashes.get(fold.fold),
            "score": None if is_final_record(state.record) else fold.score,
            "epoch": fold.epoch,
            "epochs": fold.epochs,
            "finished": fold.finished,
        }
        for fold in state.folds
    ]
    channels = {key: model.get(key) for key in ("chan", "chan2")}
    return {"network": _network(run, hashes), **channels, "folds": folds}


def _network(run: RunFolder, folds: Iterable[int]) -> str:
    """Title of the network in the first model file that can be read; else of the one to start with."""
    from cellflow.nn.checkpoint import network_of_file  # imports torch, which reading does without
    from cellflow.nn.networks import DEFAULT

    for fold in folds:
        with suppress(CheckpointError):
            return network_of_file(run.fold(fold).best).title
    return DEFAULT.title


def _cv(run: RunFolder) -> dict[str, Any] | None:
    """Scores overall, per fold, per cell type and per IoU threshold."""
    per: dict[str, dict[str, Any]] = {"fold": {}, "cell_type": {}}
    overall: dict[str, Any] = {}
    for scope, name, row in cv_rows(run):
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


def _per_threshold(run: RunFolder) -> dict[str, float]:
    """Mean precision at every IoU threshold that the table of scores has a column for (ap50, ap75...)."""
    scores = lenient_table(run.scores)
    found = {}
    for name in () if scores is None else scores.columns:
        digits = _PRECISION.fullmatch(str(name))
        if scores is None or digits is None:
            continue
        mean = number_or_none(pd.to_numeric(scores[name], errors="coerce").mean())
        if mean is not None:
            found[f"0.{digits[1]}"] = mean
    return dict(sorted(found.items()))


def _thresholds(run: RunFolder) -> dict[str, Any] | None:
    found = find_thresholds(run.thresholds)
    if found is None:
        return None
    per_type = {name: asdict(mask) for name, mask in found.per_type.items()}
    return {"source": found.source, ALL_TYPES: asdict(found.shared), "per_type": per_type}


def _ensembles(folder: Path, hashes: set[str]) -> list[str]:
    """Names of calibrated ensembles that have a model of the run for a member."""
    found = {path: find_thresholds(path) for path in sorted(folder.glob("*/ensemble.json"))}
    return [path.parent.name for path, item in found.items() if item and hashes & set(item.members)]


def _publication(run: RunFolder) -> dict[str, Any] | None:
    found = read_json(run.publication)
    return None if found is None else {key: found.get(key) for key in _PUBLISHED}


def _hash(path: Path) -> str | None:
    try:
        return hash_file(path)
    except OSError:
        return None


def _count(path: Path) -> int | None:
    table = lenient_table(path)
    return None if table is None or "id" not in table else len(table)

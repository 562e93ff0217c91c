"""Whether each out-of-fold row comes from the model that did not see its image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cellflow.config import MaskConfig
from cellflow.engine.runs.contents import read_table
from cellflow.engine.runs.next_command import run_word
from cellflow.engine.runs.run_records import OofRecord, read_oof_record
from cellflow.engine.runs.thresholds import mask_from_dict
from cellflow.engine.runtime.progress_lines import follow
from cellflow.engine.segmentation.mask_step import make_labels
from cellflow.engine.segmentation.scoring import score_row
from cellflow.engine.validation.run_files import RunFiles
from cellflow.errors import DataError, RunError
from cellflow.io.flow_store import FlowStore
from cellflow.io.images import read_labels
from cellflow.io.tables import read_rows
from cellflow.numeric.labels import labels_from_instances
from cellflow.numeric.rle import instances_from_rles, rles_from_labels
from cellflow.storage.records import read_json
from cellflow.storage.run_folder import is_final_record
from cellflow.storage.sizes import few_text

__all__ = ["check_oof"]

NEAR = 1e-6
"""Scores that are as near as this are the same: the sweep keeps them in single precision."""
_COLUMNS = ["id", "fold", "epoch", "score", "n_true", "n_predicted"]


class _Oof(NamedTuple):
    """What is on disk of the out-of-fold pass; no store where flows were pruned or not published."""

    record: OofRecord
    store: FlowStore | None
    has_masks: bool
    mask: MaskConfig
    scores: Mapping[str, Mapping[Any, Any]]
    rles: Mapping[str, list[str]]


def check_oof(files: RunFiles) -> str:
    """Check the rows of flows, masks, predictions and scores; what was looked at, in words."""
    run = files.run
    if is_final_record(files.record):
        return "none, as its network has seen all images"
    if not run.oof.exists():
        files.note("oof", f"no out-of-fold predictions yet: cellflow oof {run_word(run)}")
        return "none yet"
    oof = _open(files)
    if oof is None:
        return "cannot be read"
    _check_record(files, oof.record)
    _check_ids(files, oof)
    expected = [name for fold in oof.record.models for name in files.of(fold)]
    for name in follow(expected, "verify", brief=True):
        try:
            if name in oof.scores and (oof.store is None or name in oof.store):
                _check_origin(files, oof, name)
                _check_result(files, oof, name)
        except DataError as error:
            files.wrong("damaged", name, error)
    return f"{len(expected)} out of fold, {_in_words(files, oof)}"


def _in_words(files: RunFiles, oof: _Oof) -> str:
    """What was compared of each image."""
    masks = "masks" if oof.has_masks else "predictions.csv"
    scores = " and scores" if files.dataset is not None else ""
    if oof.store is not None:
        return f"each with the model, {masks}{scores} of its flows"
    rows = " and the rows of predictions.csv" if oof.has_masks else ""
    checked = f"the scores{rows} of its {masks}" if scores else f"the fold{rows} of its {masks}"
    return f"each with {checked}; there are no flows"


def _open(files: RunFiles) -> _Oof | None:
    run, again = files.run, f"Make it again with: cellflow oof {run_word(files.run)}"
    try:
        record = read_oof_record(run)
        mask = mask_from_dict(dict(record.mask))
        table = read_table(run.scores, _COLUMNS, remedy=again)
        rles: dict[str, list[str]] = {}
        for row in read_rows(run.oof / "predictions.csv", ("id", "predicted"), exact=True)[1]:
            rles.setdefault(row.values["id"], []).append(row.values["predicted"])
        store = FlowStore(run.flows) if run.flows.exists() else None
    except (OSError, ValueError, RunError, DataError) as error:
        files.wrong("damaged", "oof", error)
        return None
    for name in table["id"][table["id"].duplicated()]:
        files.wrong("not out of fold", name, "scores.csv has more than one row of it")
    scores: dict[str, Mapping[Any, Any]] = {str(row["id"]): row for row in table.to_dict("records")}
    has_masks = (run.oof / "masks").exists()
    for name, there in (("oof/flows.zarr", store is not None), ("oof/masks", has_masks)):
        if not there:
            files.note(name, "pruned, or not published with the run; nothing is checked against it")
    return _Oof(record, store, has_masks, mask, scores, rles)


def _check_record(files: RunFiles, record: OofRecord) -> None:
    """The pass was made with the models, the data and the split that the run has."""
    said = read_json(files.run.oof_record) or {}
    for key in ("data_hash", "folds_hash"):
        if said.get(key) != files.record[key]:
            reason = f"expected {key} {files.record[key]}, found {said.get(key)}"
            files.wrong("other split", "oof/oof.json", reason)
    for fold, model in record.models.items():
        if model != files.models.get(fold):
            reason = (
                f"fold_{fold}/best.pt is not the model that made the out-of-fold predictions of fold {fold}. Put "
                f"it back, or make them again: cellflow oof {run_word(files.run)}"
            )
            files.wrong("other model", f"fold_{fold}/best.pt", reason)


def _check_ids(files: RunFiles, oof: _Oof) -> None:
    """Every image of the folds that were predicted has its row, and no other has."""
    wanted = {name for fold in oof.record.models for name in files.of(fold)}
    found = {
        "scores.csv": set(oof.scores),
        "predictions.csv": set(oof.rles),
    }
    if oof.store is not None:
        found["flows.zarr"] = set(oof.store)
    for file, names in found.items():
        more = sorted(names - wanted)
        lacking = [] if file == "predictions.csv" else sorted(wanted - names)  # no cells, no rows
        if more:
            text = f"has images of no fold that was predicted: {few_text(more)}"
            files.wrong("not out of fold", f"oof/{file}", text)
        if lacking:
            files.wrong("not out of fold", f"oof/{file}", f"lacks {few_text(lacking)}")


def _check_origin(files: RunFiles, oof: _Oof, name: str) -> None:
    """The row is of the image's fold, and that fold's model made its flows."""
    fold, row = int(files.folds[name]), oof.scores[name]
    by = oof.record.models[fold] if oof.store is None else _check_maker(files, oof, name, oof.store)
    if oof.store is None and row["fold"] != fold:
        reason = f"it is in fold {fold}; scores.csv says {row['fold']}"
        files.wrong("not out of fold", name, reason)
    epoch = files.facts.get(fold, {}).get("epoch")
    if epoch is not None and by == files.models.get(fold) and row["epoch"] != epoch:
        reason = f"scores.csv has it from epoch {row['epoch']:g}; the model of fold {fold} is of epoch {epoch:g}"
        files.wrong("not out of fold", name, reason)


def _check_maker(files: RunFiles, oof: _Oof, name: str, store: FlowStore) -> object:
    """The model of the image's fold made its flows; the hash of the one that did."""
    fold, row, facts = int(files.folds[name]), oof.scores[name], store.facts(name)
    by = facts.get("model_hash")
    maker = next((number for number, model in oof.record.models.items() if model == by), None)
    if maker is None:
        reason = f"its flows were made by none of the models in oof.json (hash {by})"
        files.wrong("not out of fold", name, reason)
    elif maker != fold:
        reason = f"it is in fold {fold}, and its flows were made by the model of fold {maker}, which saw it"
        files.wrong("not out of fold", name, reason)
    if facts.get("fold") != fold or row["fold"] != fold:
        reason = (
            f"it is in fold {fold}; scores.csv says {row['fold']}, flows.zarr {facts.get('fold')}"
        )
        files.wrong("not out of fold", name, reason)
    return by


def _check_result(files: RunFiles, oof: _Oof, name: str) -> None:
    """Masks, runs of pixels and scores are those of the first of flows, masks and rows that is there."""
    labels, origin = None, "flows"
    if oof.store is not None:
        flow, cellprob = oof.store.read(name)
        labels = make_labels(flow, cellprob, oof.store.number(name, "diameter"), oof.mask)
    if oof.has_masks:
        stored = read_labels(files.run.oof / "masks" / f"{name}.tif")
        if labels is None:
            labels, origin = stored, "masks"
        elif not np.array_equal(labels, stored):
            files.wrong("other result", name, f"masks/{name}.tif is not what its flows give")
    if labels is not None and rles_from_labels(labels) != oof.rles.get(name, []):
        reason = f"its rows in predictions.csv are not what its {origin} give"
        files.wrong("other result", name, reason)
    if files.dataset is None:
        return
    truth, row = files.dataset.instances(name), oof.scores[name]
    if labels is None:
        cells = instances_from_rles(list(filter(None, oof.rles.get(name, []))), truth.shape)
        labels, origin = labels_from_instances(cells), "rows in predictions.csv"
    expected = score_row(truth, labels)
    for key in ("score", "n_true", "n_predicted"):
        if not math.isclose(expected[key], row[key], abs_tol=NEAR):
            reason = f"scores.csv has {key} {row[key]:.6g}; its {origin} give {expected[key]:.6g}"
            files.wrong("other result", name, reason)
            return

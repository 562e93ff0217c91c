"""Out-of-fold predictions of a run, and the cross-validation made from them."""

from __future__ import annotations

import dataclasses
import logging
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from cellflow.config import MaskConfig, OofConfig, check_config
from cellflow.engine.evaluate import SCORE_COLUMNS, score_row
from cellflow.engine.folds import folds_hash, read_folds
from cellflow.engine.machine import Machine, choose_machine
from cellflow.engine.runs import check_models, read_table, run_dataset, run_mask, versions
from cellflow.engine.segment import Member, Prediction, Segmenter, load_member
from cellflow.errors import RunError
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.io.images import write_labels
from cellflow.numeric.rle import rles_from_labels
from cellflow.storage.atomic import atomic_folder, write_csv, write_json
from cellflow.storage.hashing import hash_file, hash_json
from cellflow.storage.run_folder import RunFolder, find_run

__all__ = ["OofResult", "cross_validation", "oof"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class OofResult:
    """What an out-of-fold pass gave.

    Attributes
    ----------
    run : RunFolder
        The run.
    scores : pandas.DataFrame
        A row per image: id, fold, cell_type, epoch of the model, scores, and the score at the last epoch.
    cv : pandas.DataFrame
        Means per fold, per cell type and overall.
    """

    run: RunFolder
    scores: pd.DataFrame
    cv: pd.DataFrame


def oof(config: OofConfig) -> OofResult:
    """Predict each image with the model of the fold that validates on it, and score it.

    Writes ``oof/flows.zarr``, ``oof/masks/<id>.tif``, ``oof/predictions.csv``, ``oof/scores.csv``,
    ``oof/oof.json`` (what made them) and ``cv.csv`` in the run folder.

    Raises
    ------
    RunError, DataError
        If a fold has no model, or models, folds and data do not belong together.
    """
    check_config(config)
    run = find_run(config.run, config.runs_dir)
    dataset = run_dataset(run, config.data)
    folds = _run_folds(run, dataset)
    models = check_models(run, unfinished=config.unfinished)
    mask = config.mask.apply(run_mask(run))
    last = _last_epochs(run, list(models)) if mask == run_mask(run) else None
    machine = choose_machine(config.runtime)
    with atomic_folder(run.oof, replace=True) as folder:
        store = FlowStore(folder / "flows.zarr", mode="w")
        done: list[_Done] = []
        for fold, path in models.items():
            member = load_member(path, f"{run.name} fold {fold}", machine.device)
            segmenter = Segmenter([member], mask, amp=machine.amp, batch_size=config.batch_size)
            names = [str(name) for name in folds.index if folds[name] == fold]
            done += _predict_fold(segmenter, dataset, names, folder, store)
        write_csv(folder / "predictions.csv", _predictions(done))
        scores = _with_last_epoch(pd.DataFrame([item.scores for item in done]), last)
        write_csv(folder / "scores.csv", scores)
        write_json(folder / "oof.json", _record(run, mask, models, machine))
    cv = cross_validation(scores)
    write_csv(run.cv, cv)
    return OofResult(run, scores, cv)


def cross_validation(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over images, per fold, per cell type and overall.

    Parameters
    ----------
    scores : pandas.DataFrame
        A row per image, as in ``scores.csv``.

    Returns
    -------
    pandas.DataFrame
        `scope`, `name`, numbers of images and cells, `best_epoch` (mean competition score of the best
        epoch: optimistic, the epoch was chosen on these images), `last_epoch`, `ap50`, `ap75`.
    """
    rows = [_mean_row("fold", str(fold), part) for fold, part in scores.groupby("fold")]
    if scores["cell_type"].nunique() > 1:
        groups = scores.groupby("cell_type")
        rows += [_mean_row("cell_type", str(cell_type), part) for cell_type, part in groups]
    rows.append(_mean_row("overall", "all", scores))
    return pd.DataFrame(rows)


def _mean_row(scope: str, name: str, part: pd.DataFrame) -> dict[str, Any]:
    return {
        "scope": scope,
        "name": name,
        "images": len(part),
        "cells": int(part["n_true"].sum()),
        "best_epoch": float(part["score"].mean()),
        "last_epoch": float(part["last_epoch_score"].mean()),
        "ap50": float(part["ap50"].mean()),
        "ap75": float(part["ap75"].mean()),
    }


def _run_folds(run: RunFolder, dataset: Dataset) -> pd.Series[int]:
    """The run's own copy of the split, unchanged since the run was started."""
    folds = read_folds(run.folds, dataset)
    expected, found = run.read_record()["folds_hash"], folds_hash(folds)
    if found != expected:
        raise RunError(
            f"{run.folds} was changed after the run was started: expected the split {expected}, found "
            f"{found}. Its models were trained on the old split; put the old file back."
        )
    if dataset.folds_path.exists() and dataset.folds_hash() != expected:
        _log.info("%s has changed since; the run's own split is used", dataset.folds_path)
    return folds


class _Done(NamedTuple):
    """What the tables say of one image: its scores, and the runs of the cells found."""

    name: str
    rles: list[str]
    scores: dict[str, Any]


def _predict_fold(
    segmenter: Segmenter, dataset: Dataset, names: list[str], folder: Path, store: FlowStore
) -> list[_Done]:
    """Predict, write and score the images of a fold with the model that never saw them."""
    member = segmenter.members[0]
    fold, epoch = member.facts["fold"], member.facts["epoch"]
    _log.info("fold %d: %d images with the model of epoch %g", fold, len(names), epoch)

    def finish(name: str, result: Prediction) -> _Done:
        facts = {"fold": fold, "model_hash": member.hash, "diameter": result.diameter}
        store.write(name, result.flow, result.cellprob, **facts)
        write_labels(folder / "masks" / f"{name}.tif", result.labels)
        scores = _score_row(dataset, name, member, result)
        return _Done(name, rles_from_labels(result.labels), scores)

    images = ((name, dataset.image(name)) for name in names)
    with closing(segmenter.stream(images, finish)) as stream:
        bar = tqdm(stream, f"fold {fold}", len(names), unit="image", disable=None, leave=False)
        return list(bar)


def _score_row(dataset: Dataset, name: str, member: Member, result: Prediction) -> dict[str, Any]:
    cell_type = dataset.images.loc[name].get("cell_type", "")
    facts = {"id": name, "fold": member.facts["fold"], "cell_type": cell_type}
    scores = score_row(dataset.instances(name), result.labels)
    return facts | {"epoch": member.facts["epoch"]} | scores


def _predictions(done: list[_Done]) -> pd.DataFrame:
    """A row per cell, in the order of the images."""
    rows = [(item.name, rle) for item in done for rle in item.rles]
    return pd.DataFrame(rows, columns=["id", "predicted"])


def _last_epochs(run: RunFolder, folds: list[int]) -> pd.DataFrame:
    """Each image's score at the last evaluation of its fold: id, last_epoch_score.

    Where a run has a moving average of the weights, it is the average's score and no other: which of
    the two counts must not depend on the scores.
    """
    tables = {fold: _evaluations(run.fold(fold).evaluations) for fold in folds}
    averaged = any((table["weights"] == "ema").any() for table in tables.values())
    weights = "ema" if averaged else "net"
    parts = []
    for fold, table in tables.items():
        rows = table[table["weights"] == weights]
        if rows.empty:
            raise RunError(
                f"{run.fold(fold).evaluations}: expected evaluations of the weights {weights!r}, as in "
                "the run's other folds, found none. Repeat the command that trained this fold: it "
                "writes the table again from last.pt."
            )
        parts.append(rows[rows["epoch"] == rows["epoch"].max()])
    last: pd.DataFrame = pd.concat(parts)[["id", "score"]]
    return last.rename(columns={"score": "last_epoch_score"})


def _evaluations(path: Path) -> pd.DataFrame:
    """Scores of every evaluation of a fold: epoch, id, score, weights ("net" or "ema")."""
    table = read_table(path, ["epoch", "id", "score"])
    weights = table["weights"].fillna("net") if "weights" in table else "net"
    return table.assign(weights=weights)  # rows without them come from an older cellflow


def _with_last_epoch(scores: pd.DataFrame, last: pd.DataFrame | None) -> pd.DataFrame:
    """Add the scores at the last epoch; empty where they were made with other thresholds."""
    if last is None:
        last = pd.DataFrame({"id": scores["id"], "last_epoch_score": np.nan})
    merged = scores.merge(last, on="id", how="left")
    return merged[["id", "fold", "cell_type", "epoch", *SCORE_COLUMNS, "last_epoch_score"]]


def _record(
    run: RunFolder, mask: MaskConfig, models: dict[int, Path], machine: Machine
) -> dict[str, Any]:
    """What made the out-of-fold predictions."""
    record = run.read_record()
    return {
        "run": run.name,
        "models": {str(fold): hash_file(path) for fold, path in models.items()},
        "mask": dataclasses.asdict(mask),
        "machine": machine.describe(),
        "data_hash": record["data_hash"],
        "folds_hash": record["folds_hash"],
        "config_hash": hash_json(record["config"]),
        "versions": versions(),
    }

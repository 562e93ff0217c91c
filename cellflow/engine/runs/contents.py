"""What commands read of a run: its models, thresholds, data and folds."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.config import MaskConfig, config_differences
from cellflow.config.shared import Policy
from cellflow.engine.runs.next_command import named_folds, run_word, train_command
from cellflow.engine.runs.run_records import (
    OofRecord,
    find_oof_record,
    read_fold_summary,
    read_oof_record,
    select_metric_of,
    with_later_settings,
)
from cellflow.engine.runs.state import TEXT_COLUMNS
from cellflow.engine.runs.thresholds import mask_from_dict
from cellflow.errors import DataError, LeakError, RunError
from cellflow.io.dataset import Dataset
from cellflow.io.fold_table import fold_table_hash, read_fold_table
from cellflow.io.tables import read_frame
from cellflow.io.target_folder import ALL
from cellflow.nn.checkpoint import load_model_file
from cellflow.storage.hashing import hash_file, hash_json
from cellflow.storage.locks import is_locked
from cellflow.storage.records import dict_or_empty
from cellflow.storage.run_folder import (
    RunFolder,
    final_name,
    former_hashes,
    is_final_record,
    vouching_folder,
)

__all__ = [
    "check_has_honest_score",
    "check_models",
    "is_final_model",
    "misfits",
    "model_facts",
    "read_table",
    "run_dataset",
    "run_folds",
    "run_mask",
    "run_policy",
    "vouching_run",
    "warn_of_old_masks",
]

_log = logging.getLogger(__name__)


def check_models(
    run: RunFolder, *, unfinished: bool = False, partial: bool = False
) -> dict[int, Path]:
    """Model file of every fold of a run, each trained on the run's data, split and fold.

    `unfinished` accepts folds whose training has not reached its last epoch; `partial` takes the folds that are
    there, and warns of the others.

    Raises
    ------
    RunError
        Naming every fold that is missing, unfinished or does not fit; where `partial`, if none is left.
    """
    record = run.read_record()
    best = {fold: run.fold(fold).best for fold in record["folds"]}
    missing = [fold for fold, path in best.items() if not path.is_file()]
    stopped = [
        fold
        for fold in best
        if fold not in missing and not unfinished and not read_fold_summary(run.fold(fold)).finished
    ]
    models = {fold: path for fold, path in best.items() if fold not in missing + stopped}
    lacking = _missing(run, missing) + [_stopped(run, fold) for fold in stopped]
    strange = [
        f"{path}: {line}"
        for fold, path in models.items()
        for line in misfits(model_facts(path), fold, record)
    ]
    if strange or (lacking and not (partial and models)):
        lines = [f"Run {run.name!r} has no complete set of models:"]
        lines += [f"  - {line}" for line in lacking + strange]
        raise RunError("\n".join(lines))
    if lacking:
        _log.warning(
            "run %r: with %s of %d; %s",
            run.name, named_folds(list(models)), len(best), "\n".join(lacking),
        )  # fmt: skip
    return models


def _missing(run: RunFolder, folds: list[int]) -> list[str]:
    """Folds without a model and what trains them, in one line; none where there are none."""
    if not folds:
        return []
    have, them = ("have", "them") if len(folds) > 1 else ("has", "it")
    return [f"{named_folds(folds)} {have} no model; train {them} with: {train_command(run, folds)}"]


def _stopped(run: RunFolder, fold: int) -> str:
    """How far a fold has come, and what finishes it."""
    files = run.fold(fold)
    try:
        epochs = read_table(files.history, ["epoch"])["epoch"].max()
        last = run.read_record()["config"]["optim"]["n_epochs"]
        where = f"after epoch {epochs:g} of {last}"
    except (RunError, KeyError, TypeError):  # a damaged table or record does not hide the advice
        where = "before its last epoch"
    if is_locked(files.lock):
        return (
            f"fold {fold} is in training, {where}; add --unfinished to take its best model so far"
        )
    return (
        f"fold {fold} has stopped {where}; add --unfinished to take its best model so far, or finish it "
        f"with: {train_command(run, [fold])}"
    )


def model_facts(path: Path) -> dict[str, Any]:
    """What is stored with a model that cellflow trained."""
    return load_model_file(path).facts


def is_final_model(facts: Mapping[str, Any]) -> bool:
    """Whether a model, by what is stored with it, has seen all images, or learnt from models that have."""
    return facts.get("final") is True or dict_or_empty(facts.get("targets")).get("part") == ALL


def check_has_honest_score(path: Path) -> None:
    """Refuse a model for which no image of its dataset is one that it never saw."""
    if is_final_model(model_facts(path)):
        raise LeakError(
            f"{path} has seen all images of its dataset, itself (cellflow train --fold none) or through its teachers "
            "(cellflow distil --final), so no prediction of these images is out of fold. Use it for new images; the "
            "honest score is that of the folds, trained with --fold all or distilled without --final.",
            path=path,
        )


def vouching_run(run: RunFolder) -> RunFolder | None:
    """The run whose folds vouch for one network on all images: of the same settings, data and split, beside it.

    None where the run is no such network, or that one is not there; a warning says what differs.
    """
    record = run.read_record()
    if not is_final_record(record):
        return None
    found = vouching_folder(run)
    if found.path == run.path or not found.exists():
        return None
    other = found.read_record()
    differ = [key for key in ("data_hash", "folds_hash") if record[key] != other[key]]
    theirs = with_later_settings(other["config"])
    own = {**with_later_settings(record["config"]), "final": None}
    if _is_one_distillation(own.get("pseudo"), theirs.get("pseudo")):
        own |= {"pseudo": theirs["pseudo"], "model": _with_start_of(theirs["model"], own["model"])}
    differ += config_differences(theirs, own)
    if differ:
        _log.warning(
            "run %r does not vouch for %r, so its thresholds are not used: %s",
            found.name, run.name, "; ".join(differ),
        )  # fmt: skip
        return None
    return found


def _is_one_distillation(final: str | None, folds: str | None) -> bool:
    """Whether two runs, by the targets in their records, are the students NAME-final and NAME of the same runs."""
    (own, _, rest), (name, _, others) = ((text or "").partition(" (") for text in (final, folds))
    teachers = rest.partition(") by ")[2]
    return bool(teachers) and (own, teachers) == (final_name(name), others.partition(") by ")[2])


def _with_start_of(folds: Mapping[str, Any], final: Mapping[str, Any]) -> dict[str, Any]:
    """Model settings of a final student: from a teacher on it starts with one of the models, each fold with its own."""
    starts = [str(one["pretrained_model"]) for one in (final, folds)]
    taught = starts[0].startswith("best.pt (") and starts[1].startswith("run ")
    return {**final, **({"pretrained_model": starts[1]} if taught else {})}


def misfits(facts: Mapping[str, Any], fold: int, record: Mapping[str, Any]) -> list[str]:
    """What a model says of its origin that is not so of the run with this record, one text each."""
    expected = {
        "fold": [fold],
        "data_hash": [record["data_hash"]],
        "folds_hash": [record["folds_hash"]],
        "config_hash": [hash_json(record["config"]), *former_hashes(record)],
    }
    return [
        f"expected {key} {values[0]}, found {facts.get(key)}"
        for key, values in expected.items()
        if facts.get(key) not in values
    ]


def warn_of_old_masks(run: RunFolder) -> None:
    """Warn of out-of-fold predictions of a run that was lengthened since, or has other models now."""
    made = find_oof_record(run)
    if made is None:
        return
    models = {fold: run.fold(fold).best for fold in made.models}
    newer = [
        fold
        for fold, path in models.items()
        if path.is_file() and hash_file(path) != made.models[fold]
    ]
    if newer:
        why = f"are older than its models of {named_folds(newer)}"
    elif _is_lengthened(run, made):
        why = "were made before it was trained for more epochs"
    else:
        return
    _log.warning(
        "the out-of-fold masks of run %r %s, so their score is not that of the run as it is. Make them again: "
        "cellflow oof %s",
        run.name, why, run_word(run),
    )  # fmt: skip


def _is_lengthened(run: RunFolder, made: OofRecord) -> bool:
    """Whether a run was lengthened since; a damaged record does not tell."""
    try:
        return not made.is_of_this_length(run.read_record())
    except RunError:
        return False


def run_select_metric(run: RunFolder) -> str:
    """Metric that chooses the models of a run; runs from before there was a choice have the competition score."""
    return select_metric_of(run.read_record())


def run_mask(run: RunFolder) -> MaskConfig:
    """Thresholds that a run was trained with."""
    record = run.read_record()
    try:
        return mask_from_dict(record["config"]["mask"])
    except (KeyError, ValueError, OverflowError) as error:
        raise RunError(
            f"{run.record_path}: expected the thresholds of the training as mask, found {error}. Put the "
            "original back, or train under another --name."
        ) from None


def read_table(path: Path, columns: list[str], *, remedy: str = "") -> pd.DataFrame:
    """A table of a run, with ids, groups and cell types as the text they are.

    `remedy` says how the table is made again; by default by the training.
    """
    remedy = remedy or (
        "Repeat the command that trained this fold: it writes the table again from last.pt."
    )
    try:
        table = read_frame(path, columns, text=TEXT_COLUMNS)
    except DataError as error:
        raise RunError(f"{error} {remedy}", **error.facts) from None
    for name in {"id", "fold", "epoch"} & set(columns):  # everything else may be unknown
        if (table[name] == "").any() if name in TEXT_COLUMNS else table[name].isna().any():
            raise RunError(f"{path}: expected a value as {name} in every row. {remedy}")
    if table.empty:
        raise RunError(f"{path}: expected rows, found none. {remedy}")
    return table


def run_dataset(run: RunFolder, data: Path | None) -> Dataset:
    """The dataset that a run was trained on, refused if it is another one; `data` is where it lies now."""
    record = run.read_record()
    path = data if data is not None else Path(record["data"])
    if not path.exists():
        raise RunError(
            f"The data of run {run.name!r} is not at {path}. Say where it is with --data."
        )
    dataset = Dataset.open(path)
    if dataset.hash != record["data_hash"]:
        raise RunError(
            f"{path} is not the data that run {run.name!r} was trained on: expected data hash "
            f"{record['data_hash']}, found {dataset.hash}. Say where the right data is with --data."
        )
    return dataset


def run_folds(run: RunFolder, dataset: Dataset) -> pd.Series[int]:
    """The run's own copy of the split, unchanged since the run was started."""
    folds = read_fold_table(run.folds, dataset.ids)
    expected, found = run.read_record()["folds_hash"], fold_table_hash(folds)
    if found != expected:
        raise RunError(
            f"{run.folds} was changed after the run was started: expected the split {expected}, found "
            f"{found}. Its models were trained on the old split; put the old file back."
        )
    if dataset.folds_path.exists() and dataset.folds_hash() != expected:
        _log.info("%s has changed since; the run's own split is used", dataset.folds_path)
    return folds


def run_policy(run: RunFolder, hashes: Iterable[str] | None = None) -> tuple[Policy, float | None]:
    """Diameter policy of the run's out-of-fold pass, and the diameter given for it, if any.

    That of Cellpose where there is no such pass, or `hashes` are not those of models that made it.
    """
    try:
        made = read_oof_record(run)
    except FileNotFoundError:
        return "dataset", None
    except (OSError, ValueError) as error:
        raise RunError(
            f"{run.oof_record} is damaged ({error}). Make it again with: cellflow oof {run_word(run)}"
        ) from None
    if hashes is not None and not set(hashes) <= set(made.models.values()):
        return "dataset", None
    return made.policy, made.diameter

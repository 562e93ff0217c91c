"""Start a run, or check that it is being continued with the same settings, data and folds."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.config import MaskConfig, TrainConfig, config_differences, config_to_dict
from cellflow.engine.folds import copy_folds
from cellflow.engine.lengthen import check_length, lengthen
from cellflow.engine.metadata import TEXT_COLUMNS
from cellflow.engine.start_file import start_hashes, start_identity
from cellflow.engine.thresholds import mask_from_dict
from cellflow.errors import ConfigError, DataError, RunError
from cellflow.io.dataset import Dataset
from cellflow.io.tables import read_frame
from cellflow.nn.checkpoint import load_model_file
from cellflow.storage.config_file import read_config_file
from cellflow.storage.hashing import hash_json
from cellflow.storage.locks import is_locked
from cellflow.storage.records import load_json
from cellflow.storage.run_folder import FoldFolder, RunFolder, former_hashes

__all__ = [
    "check_models",
    "check_run",
    "identity",
    "open_run",
    "read_table",
    "run_dataset",
    "run_mask",
    "train_command",
    "versions",
]

_NOT_IDENTITY = (
    "fold", "data", "name", "runs_dir", "savedir", "time_budget", "dry_run", "runtime", "tracking",
)  # fmt: skip
"""What may differ between two commands of one run: where things lie, which fold, time, and the machine."""
_SINCE = {"debug": False, "eval_diameter": "dataset"}
"""Settings that came later, with what runs from before them have: those go on."""

_log = logging.getLogger(__name__)


def versions() -> dict[str, str]:
    """Versions of what decides about results."""
    names = ("cellflow", "cellpose", "torch", "numpy", "numba", "opencv-python-headless")
    return {name: version(name) for name in names}


def identity(config: TrainConfig) -> dict[str, Any]:
    """The part of a config that makes two runs the same; a start model counts by its content."""
    plain = {key: item for key, item in config_to_dict(config).items() if key not in _NOT_IDENTITY}
    for key, default in _SINCE.items():
        if plain[key] == default:
            del plain[key]
    name = config.model.pretrained_model
    if name.lower() != "none":
        plain["model"]["pretrained_model"] = start_identity(name)
    return plain


def check_run(config: TrainConfig, dataset: Dataset, folds: list[int]) -> None:
    """Make sure that the run that a config names is free or can be continued; nothing is written.

    Parameters
    ----------
    config : TrainConfig
        Settings.
    dataset : Dataset
        Data with its fold table.
    folds : list of int
        The folds that validate; a complete run has a model of each.

    Raises
    ------
    RunError
        If a run of this name has other settings, other data or other folds. More epochs are another
        setting only where `check_length` says why they cannot be trained.
    """
    run = RunFolder(config.runs_dir / config.name)
    if not _is_begun(run):
        return
    old, record = run.read_record(), _new_record(config, dataset, folds)
    changes = config_differences(_as_compared(old["config"]), record["config"])
    if old["data_hash"] != record["data_hash"]:
        changes.append(f"data: {dataset.path} is not the data the run was started with")
    if old["folds_hash"] != record["folds_hash"]:
        changes.append(f"folds.csv: not the split the run was started with, which is {run.folds}")
    changes += _other_starts(run, old, record)
    length = old["config"].get("optim", {}).get("n_epochs")
    if len(changes) == 1 and isinstance(length, int) and length != config.optim.n_epochs:
        _check_change_of_length(run, config, length)
    elif changes:
        raise RunError(
            f"The run {config.name!r} in {run.path} was started with something else (old -> new):\n"
            + "\n".join(f"  - {line}" for line in changes)
            + "\nGo back to the old to continue it, or choose another --name. All old settings at once: "
            f"--config {shlex.quote(str(run.settings('train')))}"
        )


def open_run(config: TrainConfig, dataset: Dataset, folds: list[int]) -> RunFolder:
    """Start the run that a config names, or continue it, for more epochs where the config wants more.

    Parameters
    ----------
    config, dataset, folds
        As `check_run` takes them.

    Raises
    ------
    RunError
        As `check_run`.
    """
    run = RunFolder(config.runs_dir / config.name)
    check_run(config, dataset, folds)
    if not _is_begun(run):
        record = _new_record(config, dataset, folds)
        run.path.mkdir(parents=True, exist_ok=True)
        copy_folds(dataset, run.path)
        run.write_record(record)
        return run
    before, after = run.read_record()["config"]["optim"]["n_epochs"], config.optim.n_epochs
    if before != after:
        lengthen(run, identity(config))
        _log.info("the run %s goes on to epoch %d, started for %d", run.path, after, before)
    _record_starts(run, config, folds)
    return run


def _is_begun(run: RunFolder) -> bool:
    """Whether there is a run to be continued."""
    return run.exists() and run.has_progress()


def _new_record(config: TrainConfig, dataset: Dataset, folds: list[int]) -> dict[str, Any]:
    """What a run that is started now records."""
    starts = start_hashes(config.model.pretrained_model, folds)
    record = {
        "versions": versions(),
        "data": str(dataset.path.resolve()),
        "data_hash": dataset.hash,
        "folds_hash": dataset.folds_hash(),
        "folds": folds,
        "config": identity(config),
    }
    return record | ({"starts": starts} if starts else {})


def _other_starts(run: RunFolder, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Folds that have begun from another model than the run they start from has now."""
    begun, now = _begun_starts(run, old), new.get("starts", {})
    other = [int(fold) for fold in begun if fold in now and begun[fold] != now[fold]]
    if not other:
        return []
    return [f"pretrained_model: not the model any more that {_named(other)} of this run began from"]


def _begun_starts(run: RunFolder, record: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the start models of the folds that have saved something since."""
    starts = record.get("starts")
    found = starts if isinstance(starts, dict) else {}
    files = {fold: run.fold(int(fold)) for fold in found if fold.isdecimal()}
    return {fold: found[fold] for fold, at in files.items() if at.last.exists() or at.best.exists()}


def _record_starts(run: RunFolder, config: TrainConfig, folds: list[int]) -> None:
    """Record what folds that have not begun would start from now."""
    record = run.read_record()
    starts = start_hashes(config.model.pretrained_model, folds) | _begun_starts(run, record)
    if starts != record.get("starts", {}):
        run.write_record(record | {"starts": starts})


def _as_compared(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run, with what was recorded otherwise or not at all when it was started.

    That is thresholds that did not exist, and a hash over all models of a run that it started from.
    """
    compared = {**config, "mask": dataclasses.asdict(MaskConfig()) | config.get("mask", {})}
    start = config.get("model", {}).get("pretrained_model")
    if isinstance(start, str) and start.startswith("run "):
        compared["model"] = config["model"] | {
            "pretrained_model": re.sub(r" \([0-9a-f]+\)$", "", start)
        }
    return compared


def _check_change_of_length(run: RunFolder, config: TrainConfig, before: int) -> None:
    """Where a run cannot go on to another last epoch, say what starts another one from its models."""
    after = config.optim.n_epochs
    reason = check_length(run, config.optim, before)
    if not reason:
        return
    changes: dict[str, object] = {"name": _unused_name(run), "n_epochs": after}
    if after > before:
        changes |= {"n_epochs": after - before, "pretrained_model": run.path}
        if config.model.diam_mean is not None:
            changes["diam_mean"] = None  # the model brings its own
    there = [fold for fold in run.read_record()["folds"] if run.fold(fold).best.is_file()]
    folds = there if after > before else None
    what = "starts from its models for the epochs that lack" if after > before else "starts anew"
    raise RunError(
        f"The run {config.name!r} in {run.path} was started with n_epochs: {before} -> {after} (old -> "
        f"new), and {reason}. Another run, which {what}: {train_command(run, folds, **changes)}\n"
        f"Or go back to --n_epochs {before}."
    )


def _unused_name(run: RunFolder) -> str:
    """A name for a run that follows on another one."""
    stem = run.name.rstrip("0123456789") or run.name
    return next(
        name
        for name in (f"{stem}{number}" for number in itertools.count(2))
        if not (run.path.parent / name).exists()
    )


def check_models(
    run: RunFolder, *, unfinished: bool = False, partial: bool = False
) -> dict[int, Path]:
    """Model file of every fold of a run, each trained on the run's data, split and fold.

    Parameters
    ----------
    run : RunFolder
        The run.
    unfinished : bool
        Accept folds whose training has not reached its last epoch.
    partial : bool
        Take the folds that are there, and warn of the others.

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
        if fold not in missing and not unfinished and not _is_finished(run.fold(fold))
    ]
    models = {fold: path for fold, path in best.items() if fold not in missing + stopped}
    lacking = _missing(run, missing) + [_stopped(run, fold) for fold in stopped]
    misfits = [line for fold, path in models.items() for line in _misfits(path, fold, record)]
    if misfits or (lacking and not (partial and models)):
        lines = [f"Run {run.name!r} has no complete set of models:"]
        lines += [f"  - {line}" for line in lacking + misfits]
        raise RunError("\n".join(lines))
    if lacking:
        _log.warning(
            "run %r: with %s of %d; %s",
            run.name, _named(list(models)), len(best), "\n".join(lacking),
        )  # fmt: skip
    return models


def _named(folds: Sequence[int]) -> str:
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"


def _missing(run: RunFolder, folds: list[int]) -> list[str]:
    """Folds without a model and what trains them, in one line; none where there are none."""
    if not folds:
        return []
    have, them = ("have", "them") if len(folds) > 1 else ("has", "it")
    return [f"{_named(folds)} {have} no model; train {them} with: {train_command(run, folds)}"]


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


def _misfits(path: Path, fold: int, record: Mapping[str, Any]) -> list[str]:
    """What a model file says of its origin that is not so of the run."""
    facts = load_model_file(path).facts
    expected = {
        "fold": [fold],
        "data_hash": [record["data_hash"]],
        "folds_hash": [record["folds_hash"]],
        "config_hash": [hash_json(record["config"]), *former_hashes(record)],
    }
    return [
        f"{path}: expected {key} {values[0]}, found {facts.get(key)}"
        for key, values in expected.items()
        if facts.get(key) not in values
    ]


def train_command(run: RunFolder, folds: Iterable[int] | None, **changes: object) -> str:
    """The command line that trains folds of a run with its settings, whatever folder one is in.

    Parameters
    ----------
    run : RunFolder
        The run.
    folds : iterable of int or None
        Folds to train; None for all.
    **changes
        Other values of settings, by the names of their flags.
    """
    settings, record = run.settings("train"), run.read_record()
    try:
        known = read_config_file(settings, "train")
    except ConfigError:
        known = {}
    flags: dict[str, object] = {"fold": "all" if folds is None else " ".join(map(str, folds))}
    if {run.name, known.get("name", "exp")} != {"exp"}:
        flags["name"] = run.name
    flags |= {key: value for key, value in changes.items() if key == "name"}
    if known:
        flags["config"] = settings
    # The settings hold paths as they were typed, and the run may have been moved since.
    for key, now in (("runs_dir", run.path.parent), ("data", record["data"])):
        if _absolute(known.get(key)) != _absolute(now):
            flags[key] = _absolute(now)
    words = ["cellflow train"]
    for name, value in (flags | changes).items():
        words.append(f"--{name} {value if name == 'fold' else shlex.quote(str(value))}")
    command = " ".join(words)
    return command if known else f"{command}, and the settings in {run.record_path}"


def _absolute(path: object) -> str:
    return str(Path(str(path)).resolve())


def _is_finished(files: FoldFolder) -> bool:
    """Whether a fold's training came to its end, by its last epoch or by its patience."""
    try:
        return bool(load_json(files.summary)["finished"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def run_mask(run: RunFolder) -> MaskConfig:
    """Thresholds that a run was trained with.

    Raises
    ------
    RunError
        If the run's record is damaged.
    """
    try:
        return mask_from_dict(run.read_record()["config"]["mask"])
    except (KeyError, ValueError, OverflowError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(
            f"{run.record_path}: expected the thresholds of the training as mask, found {error}. Put the "
            "original back, or train under another --name."
        ) from None


def read_table(path: Path, columns: list[str], *, remedy: str = "") -> pd.DataFrame:
    """A table of a run, with ids, groups and cell types as the text they are.

    `remedy` says how the table is made again; by default by the training.

    Raises
    ------
    RunError
        If it is missing, damaged, or lacks a column.
    """
    remedy = remedy or (
        "Repeat the command that trained this fold: it writes the table again from last.pt."
    )
    try:
        table = read_frame(path, columns, text=TEXT_COLUMNS)
    except DataError as error:
        raise RunError(f"{error} {remedy}") from None
    for name in {"id", "fold", "epoch"} & set(columns):  # everything else may be unknown
        if (table[name] == "").any() if name in TEXT_COLUMNS else table[name].isna().any():
            raise RunError(f"{path}: expected a value as {name} in every row. {remedy}")
    if table.empty:
        raise RunError(f"{path}: expected rows, found none. {remedy}")
    return table


def run_dataset(run: RunFolder, data: Path | None) -> Dataset:
    """The dataset that a run was trained on.

    Parameters
    ----------
    run : RunFolder
        The run.
    data : Path or None
        Where to look instead of where the run found it.

    Raises
    ------
    RunError
        If the data there is not the data of the run.
    """
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

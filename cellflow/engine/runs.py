"""Start a run, or check that it is being continued with the same settings, data and folds."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.config import MaskConfig, TrainConfig, config_differences, config_to_dict
from cellflow.engine.folds import copy_folds
from cellflow.engine.metadata import TEXT_COLUMNS
from cellflow.engine.thresholds import mask_from_dict
from cellflow.errors import DataError, RunError
from cellflow.io.dataset import Dataset
from cellflow.io.tables import read_frame
from cellflow.nn.checkpoint import find_model_file, load_model_file
from cellflow.storage.hashing import hash_file, hash_json
from cellflow.storage.records import load_json
from cellflow.storage.run_folder import FoldFolder, RunFolder

__all__ = [
    "check_models",
    "identity",
    "open_run",
    "read_table",
    "run_dataset",
    "run_mask",
    "versions",
]

_NOT_IDENTITY = (
    "fold", "data", "name", "runs_dir", "savedir", "time_budget", "dry_run", "runtime", "tracking",
)  # fmt: skip
"""What may differ between two commands of one run: where things lie, which fold, time, and the machine."""
_SINCE = {"debug": False, "eval_diameter": "dataset"}
"""Settings that came later, with what runs from before them have: those go on."""


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
        path = find_model_file(name)
        plain["model"]["pretrained_model"] = f"{path.name} ({hash_file(path)})"
    return plain


def open_run(config: TrainConfig, dataset: Dataset, folds: list[int]) -> RunFolder:
    """Start the run that a config names, or continue it.

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
        If a run of this name has other settings, other data or other folds.
    """
    run = RunFolder(config.runs_dir / config.name)
    record: dict[str, Any] = {
        "versions": versions(),
        "data": str(dataset.path.resolve()),
        "data_hash": dataset.hash,
        "folds_hash": dataset.folds_hash(),
        "folds": folds,
        "config": identity(config),
    }
    if not run.exists() or not run.has_progress():
        run.path.mkdir(parents=True, exist_ok=True)
        copy_folds(dataset, run.path)
        run.write_record(record)
        return run
    old = run.read_record()
    before = dict(old["config"])
    before["mask"] = dataclasses.asdict(MaskConfig()) | before.get(
        "mask", {}
    )  # settings since added
    changes = config_differences(before, record["config"])
    if old["data_hash"] != record["data_hash"]:
        changes.append(f"data: {dataset.path} is not the data the run was started with")
    if old["folds_hash"] != record["folds_hash"]:
        changes.append(f"folds.csv: not the split the run was started with, which is {run.folds}")
    if changes:
        raise RunError(
            f"The run {config.name!r} in {run.path} was started with something else (old -> new):\n"
            + "\n".join(f"  - {line}" for line in changes)
            + "\nGo back to the old to continue it, or choose another --name. All old settings at once: "
            f"--config {run.settings('train')}"
        )
    return run


def check_models(run: RunFolder, *, unfinished: bool = False) -> dict[int, Path]:
    """Model file of every fold of a run, each trained on the run's data, split and fold.

    Parameters
    ----------
    run : RunFolder
        The run.
    unfinished : bool
        Accept folds whose training has not reached its last epoch.

    Raises
    ------
    RunError
        Naming every fold that is missing, unfinished or does not fit.
    """
    record = run.read_record()
    wanted = {
        "data_hash": record["data_hash"],
        "folds_hash": record["folds_hash"],
        "config_hash": hash_json(record["config"]),
    }
    last_epoch = record["config"].get("optim", {}).get("n_epochs", "?")
    models = {fold: run.fold(fold).best for fold in record["folds"]}
    problems = []
    for fold, path in models.items():
        name = "" if run.name == "exp" else f" --name {run.name}"
        command = f"cellflow train --fold {fold}{name} and the settings in {run.record_path}"
        if not path.is_file():
            problems.append(f"fold {fold} has no model; train it with: {command}")
            continue
        if not unfinished and not _is_finished(run.fold(fold)):
            epochs = read_table(run.fold(fold).history, ["epoch"])["epoch"].max()
            problems.append(
                f"fold {fold} has stopped after epoch {epochs:g} of {last_epoch}; finish it with: "
                f"{command}; or add --unfinished to take its best model so far"
            )
        facts = load_model_file(path).facts
        expected = {"fold": fold} | wanted
        problems += [
            f"{path}: expected {key} {value}, found {facts.get(key)}"
            for key, value in expected.items()
            if facts.get(key) != value
        ]
    if problems:
        lines = [
            f"Run {run.name!r} has no complete set of models:",
            *(f"  - {p}" for p in problems),
        ]
        raise RunError("\n".join(lines))
    return models


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

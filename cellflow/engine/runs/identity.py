"""Start a run, or check that it is being continued with the same settings, data and folds."""

from __future__ import annotations

import itertools
import logging
import shlex
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cellflow.config import TrainConfig, config_differences, config_to_dict
from cellflow.engine.data.folds import copy_folds
from cellflow.engine.runs.lengthen import check_length, is_of_length, lengthen
from cellflow.engine.runs.next_command import named_folds, train_command
from cellflow.engine.runs.run_records import with_later_settings
from cellflow.engine.runs.start_file import start_hashes, start_identity
from cellflow.errors import RunError
from cellflow.io.dataset import Dataset
from cellflow.io.target_folder import TargetFolder
from cellflow.storage.records import dict_or_empty
from cellflow.storage.run_folder import RunFolder

__all__ = ["check_run", "free_name", "identity", "is_begun", "open_run", "versions"]

_NOT_IDENTITY = (
    "fold", "data", "recipe", "name", "runs_dir", "savedir", "time_budget", "scheduler", "download",
    "dry_run", "runtime", "tracking",
)  # fmt: skip
"""What may differ between two commands of one run: where things lie, which fold, time, the machine, and the recipe,
of whose settings each counts by itself."""

_log = logging.getLogger(__name__)


def versions() -> dict[str, str]:
    """Versions of what decides about results."""
    names = ("cellflow", "torch", "numpy", "numba", "opencv-python-headless")
    return {name: version(name) for name in names}


def identity(config: TrainConfig) -> dict[str, Any]:
    """The part of a config that makes two runs the same; start models and targets count by their content."""
    plain = {key: item for key, item in config_to_dict(config).items() if key not in _NOT_IDENTITY}
    if config.pseudo is None:  # as in runs from before there was that
        del plain["pseudo"], plain["pseudo_weight"]
    else:
        plain["pseudo"] = TargetFolder.open(config.pseudo).identity
    if config.is_final:
        plain["final"] = True
    name = config.model.pretrained_model
    if name.lower() != "none":
        plain["model"]["pretrained_model"] = start_identity(name, download=config.download)
    return plain


def check_run(config: TrainConfig, dataset: Dataset, folds: list[int]) -> None:
    """Make sure that the run that a config names is free or can be continued; nothing is written.

    `folds` are those that validate; a complete run has a model of each.

    Raises
    ------
    RunError
        If a run of this name has other settings, other data or other folds. More epochs are another
        setting only where `check_length` says why they cannot be trained.
    """
    run = RunFolder(config.runs_dir / config.name)
    if not is_begun(run):
        return
    old, record = run.read_record(), _new_record(config, dataset, folds)
    changes = config_differences(with_later_settings(old["config"]), record["config"])
    if old["data_hash"] != record["data_hash"]:
        changes.append(f"data: {dataset.path} is not the data the run was started with")
    if old["folds_hash"] != record["folds_hash"]:
        changes.append(f"folds.csv: not the split the run was started with, which is {run.folds}")
    changes += _other_starts(run, old, record)
    if is_of_length(changes) and isinstance(old["config"]["optim"].get("n_epochs"), int):
        _check_change_of_length(run, config, old["config"]["optim"])
    elif changes:
        raise RunError(
            f"The run {config.name!r} in {run.path} was started with something else (old -> new):\n"
            + "\n".join(f"  - {line}" for line in changes)
            + "\nGo back to the old to continue it, or choose another --name. All old settings at once: "
            f"--config {shlex.quote(str(run.settings('train')))}"
        )


def open_run(config: TrainConfig, dataset: Dataset, folds: list[int]) -> RunFolder:
    """Start the run that a config names, or continue it, for more epochs where the config wants it; see `check_run`."""
    run = RunFolder(config.runs_dir / config.name)
    check_run(config, dataset, folds)
    if not is_begun(run):
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


def is_begun(run: RunFolder) -> bool:
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
    text = (
        f"pretrained_model: not the model any more that {named_folds(other)} of this run began from"
    )
    return [text] if other else []


def _begun_starts(run: RunFolder, record: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the start models of the folds that have saved something since."""
    found = dict_or_empty(record.get("starts"))
    files = {fold: run.fold(int(fold)) for fold in found if fold.isdecimal()}
    return {fold: found[fold] for fold, at in files.items() if at.last.exists() or at.best.exists()}


def _record_starts(run: RunFolder, config: TrainConfig, folds: list[int]) -> None:
    """Record what folds that have not begun would start from now."""
    record = run.read_record()
    starts = start_hashes(config.model.pretrained_model, folds) | _begun_starts(run, record)
    if starts != record.get("starts", {}):
        run.write_record(record | {"starts": starts})


def _check_change_of_length(run: RunFolder, config: TrainConfig, optim: Mapping[str, Any]) -> None:
    """Where a run cannot go on to another last epoch, say what starts another one from its models."""
    before, after = optim["n_epochs"], config.optim.n_epochs
    reason = check_length(run, config.optim, optim)
    if not reason:
        return
    stem = run.name.rstrip("0123456789") or run.name
    changes: dict[str, object] = {"name": free_name(run.path.parent, stem, 2), "n_epochs": after}
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


def free_name(folder: Path, stem: str, first: int) -> str:
    """The first of some numbered names that nothing in a folder has."""
    names = (f"{stem}{number}" for number in itertools.count(first))
    return next(name for name in names if not (folder / name).exists())

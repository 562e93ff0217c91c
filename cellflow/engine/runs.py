"""Start a run, or check that it is being continued with the same settings, data and folds."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cellflow.config import TrainConfig, config_differences, config_to_dict
from cellflow.errors import RunError
from cellflow.io.dataset import Dataset
from cellflow.storage.atomic import atomic_path
from cellflow.storage.hashing import hash_json
from cellflow.storage.run_folder import RunFolder

__all__ = ["config_hash", "identity", "open_run", "run_dataset", "versions"]

_NOT_IDENTITY = ("fold", "data", "name", "runs_dir", "savedir", "runtime")
"""What may differ between two commands of one run: where things lie, which fold, and the machine."""


def versions() -> dict[str, str]:
    """Versions of what decides about results."""
    names = ("cellflow", "cellpose", "torch", "numpy", "numba", "opencv-python-headless")
    return {name: version(name) for name in names}


def identity(config: TrainConfig) -> dict[str, Any]:
    """The part of a config that makes two runs the same."""
    plain = config_to_dict(config)
    return {key: value for key, value in plain.items() if key not in _NOT_IDENTITY}


def config_hash(config: TrainConfig) -> str:
    """Hash of the part of a config that makes two runs the same."""
    return hash_json(identity(config))


def open_run(config: TrainConfig, dataset: Dataset) -> RunFolder:
    """Start the run that a config names, or continue it.

    Raises
    ------
    RunError
        If a run of this name has other settings, other data or other folds.
    """
    run = RunFolder(config.runs_dir / config.name)
    record = {
        "versions": versions(),
        "data": str(dataset.path.resolve()),
        "data_hash": dataset.hash,
        "folds_hash": dataset.folds_hash(),
        "config": identity(config),
    }
    if not run.exists():
        run.path.mkdir(parents=True, exist_ok=True)
        with atomic_path(run.folds) as temporary:
            shutil.copyfile(dataset.path / "folds.csv", temporary)
        run.write_record(record)
        return run
    old = run.read_record()
    changes = config_differences(old.get("config", {}), record["config"])
    for key, what in (("data_hash", "data"), ("folds_hash", "folds.csv")):
        if old.get(key) != record[key]:
            changes.append(f"{what}: not the same as when the run was started")
    if changes:
        raise RunError(
            f"The run {config.name!r} in {run.path} was started with other settings (old -> new):\n"
            + "\n".join(f"  - {line}" for line in changes)
            + "\nRepeat the old settings to continue it, or choose another --name."
        )
    return run


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
        raise RunError(f"The data of run {run.name!r} is not at {path}. Say where it is with --data.")
    dataset = Dataset.open(path)
    if dataset.hash != record["data_hash"]:
        raise RunError(
            f"{path} is not the data that run {run.name!r} was trained on: expected data hash "
            f"{record['data_hash']}, found {dataset.hash}. Say where the right data is with --data."
        )
    return dataset

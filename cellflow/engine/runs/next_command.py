"""What to type next, as a command that runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from cellflow.config import CalibrateConfig, OofConfig, TrainConfig
from cellflow.engine.runs.run_records import select_metric_of
from cellflow.engine.runs.state import run_state
from cellflow.errors import ConfigError
from cellflow.storage.config_file import read_config_file
from cellflow.storage.run_folder import RunFolder, debug_name, final_name, is_final_record

__all__ = [
    "after_calibration",
    "after_oof",
    "after_training",
    "calibrate_command",
    "run_word",
    "train_command",
    "trained_run",
]


def run_word(run: RunFolder) -> str:
    """A run as commands take it: its name where it lies in runs/, else its folder."""
    usual = RunFolder(Path("runs") / run.name)
    return shlex.quote(run.name if usual.path.resolve() == run.path.resolve() else str(run.path))


def trained_run(config: TrainConfig) -> RunFolder:
    """Where a training writes."""
    name = final_name(config.name) if config.is_final else config.name
    return RunFolder(config.runs_dir / (debug_name(name) if config.debug else name))


def after_training(config: TrainConfig) -> str:
    """What comes after a training: the folds of the run that are left, or its out-of-fold predictions."""
    run = trained_run(config)
    folds = run_state(run).folds
    left = [fold.fold for fold in folds if not fold.complete]
    if config.is_final:
        unfinished = " --unfinished" if left else ""
        return f"Next: cellflow predict FOLDER --model {run_word(run)}{unfinished}; FOLDER holds new images"
    if not left:
        return f"Next: cellflow oof {run_word(run)}"
    settings = shlex.quote(str(run.settings("train")))
    text = f"Next: cellflow train --config {settings} --fold {' '.join(map(str, left))}"
    if all(fold.has_model for fold in folds):
        text += f"; cellflow oof {run_word(run)} --unfinished takes the best models so far"
    elif any(fold.has_model for fold in folds):  # oof needs a model of every fold
        text += f"; cellflow predict FOLDER --model {run_word(run)} --unfinished takes the best models so far"
    return text


def after_oof(run: RunFolder, config: OofConfig) -> str:
    """What comes after out-of-fold predictions: thresholds, by the metric that chose the models."""
    unfinished = " --unfinished" if config.unfinished else ""
    return f"Next: {calibrate_command(run, config.data)}{unfinished}"


def calibrate_command(run: RunFolder, data: Path | None = None) -> str:
    """The command line that fits thresholds of a run, by the metric that chose its models."""
    metric = select_metric_of(run.read_record())
    where = "" if data is None else f" --data {shlex.quote(str(data))}"
    by = "" if metric == CalibrateConfig().select_metric else f" --select_metric {metric}"
    return f"cellflow calibrate {run_word(run)}{where}{by}"


def after_calibration(runs: Sequence[RunFolder], config: CalibrateConfig | None = None) -> str:
    """What comes after thresholds: predictions of other images."""
    words = " ".join(run_word(run) for run in runs)
    unfinished = " --unfinished" if config is not None and config.unfinished else ""
    if len(runs) == 1:
        return f"Next: cellflow predict FOLDER --model {words}{unfinished}; FOLDER holds new images"
    return f"Next: cellflow ensemble {words} --images FOLDER{unfinished}; FOLDER holds new images"


def named_folds(folds: Sequence[int]) -> str:
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"


def train_command(run: RunFolder, folds: Iterable[int] | None, **changes: object) -> str:
    """The command line that trains folds of a run, or all, with its settings, whatever folder one is in.

    `changes` are other values of settings, by the names of their flags.
    """
    settings, record = run.settings("train"), run.read_record()
    try:
        known = read_config_file(settings, "train")
    except ConfigError:
        known = {}
    flags: dict[str, object] = {"fold": "all" if folds is None else " ".join(map(str, folds))}
    if is_final_record(record):
        flags["fold"] = "none"
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

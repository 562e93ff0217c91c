"""What to type next, as a command that runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from cellflow.config import CalibrateConfig, OofConfig, TrainConfig
from cellflow.engine.debug import debug_name
from cellflow.engine.metadata import run_state
from cellflow.storage.run_folder import RunFolder

__all__ = ["after_calibration", "after_oof", "after_training", "run_word"]


def run_word(run: RunFolder) -> str:
    """A run as commands take it: its name where it lies in runs/, else its folder."""
    usual = RunFolder(Path("runs") / run.name)
    return shlex.quote(run.name if usual.path.resolve() == run.path.resolve() else str(run.path))


def after_training(config: TrainConfig) -> str:
    """What comes after a training: the folds of the run that are left, or its out-of-fold predictions."""
    name = debug_name(config.name) if config.debug else config.name
    run = RunFolder(config.runs_dir / name)
    folds = run_state(run).folds
    left = [fold.fold for fold in folds if not fold.complete]
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
    """What comes after out-of-fold predictions: thresholds."""
    unfinished = " --unfinished" if config.unfinished else ""
    return f"Next: cellflow calibrate {run_word(run)}{_data(config.data)}{unfinished}"


def after_calibration(runs: Sequence[RunFolder], config: CalibrateConfig | None = None) -> str:
    """What comes after thresholds: predictions of other images."""
    words = " ".join(run_word(run) for run in runs)
    unfinished = " --unfinished" if config is not None and config.unfinished else ""
    if len(runs) == 1:
        return f"Next: cellflow predict FOLDER --model {words}{unfinished}; FOLDER holds new images"
    return f"Next: cellflow ensemble {words} --images FOLDER{unfinished}; FOLDER holds new images"


def _data(path: Path | None) -> str:
    return "" if path is None else f" --data {shlex.quote(str(path))}"

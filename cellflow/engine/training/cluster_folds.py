"""A fold per worker of a cluster: each goes on from its last state wherever it is tried again."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from pathlib import Path

from cellflow.config import TrainConfig
from cellflow.engine.runtime.scheduler import Outcome, Scheduler, open_scheduler
from cellflow.engine.runtime.shared_folder import SharedFolder, shared_folder
from cellflow.engine.runtime.time_budget import Budget
from cellflow.engine.training.fold_process import Train, train_below
from cellflow.engine.training.fold_result import FoldResult
from cellflow.errors import CellflowError
from cellflow.storage.locks import is_locked
from cellflow.storage.run_folder import RunFolder

__all__ = ["train_on_workers"]

SAVE_SECONDS = 60.0
"""That folds may take to save their states after an interruption."""

_log = logging.getLogger(__name__)


def train_on_workers(
    config: TrainConfig, folds: list[int], run: RunFolder, train: Train
) -> list[FoldResult]:
    """Train folds on the workers of the config's scheduler, as many at a time as there are workers.

    A worker that has GPUs as a resource gets one fold per GPU, unless the config names the CPU. A fold whose
    worker is lost goes on elsewhere from its last state; so does one that fails, twice. Where it fails for
    good, the others are finished all the same.

    Parameters
    ----------
    config : TrainConfig
        Settings.
    folds : list of int
        Folds to train.
    run : RunFolder
        Their run, on storage that workers see under the same path.
    train : callable
        Of a module; trains the folds of a config.

    Returns
    -------
    list of FoldResult
        In the order of the folds.

    Raises
    ------
    CellflowError
        If a fold has failed three times, with its last error; or the cluster is lost.
    RunError
        If workers do not see the run's folder.
    """
    budget = Budget.of(config.time_budget)
    with (
        open_scheduler(config.scheduler) as scheduler,
        shared_folder(scheduler, run.path) as shared,
    ):
        rounds = math.ceil(len(folds) / max(1, scheduler.workers))
        settings = _for_workers(config, budget.part(rounds).left)
        tasks = {f"fold {fold}": (train, settings.of_fold(fold), shared) for fold in folds}
        try:
            outcome = _run(scheduler, tasks, needs_gpu=config.runtime.device != "cpu")
        except BaseException:
            _wait_for_saves(run, folds)
            raise
    if outcome.failed:
        raise CellflowError("\n".join(str(error) for error in outcome.failed.values()))
    return [outcome.done[name] for name in tasks]


def train_here(train: Train, config: TrainConfig, shared: SharedFolder) -> FoldResult:
    """The task of a worker: one fold."""
    shared.check()
    return train_below(train, config)


def _run(
    scheduler: Scheduler,
    tasks: dict[str, tuple[Train, TrainConfig, SharedFolder]],
    *,
    needs_gpu: bool,
) -> Outcome:
    resources = {"GPU": 1.0} if needs_gpu else None
    return scheduler.run(train_here, tasks, title="training", unit="fold", resources=resources)


def _for_workers(config: TrainConfig, seconds: float) -> TrainConfig:
    """The config with paths that mean the same in every working folder, and a fold's share of the time."""
    model, start = config.model, Path(config.model.pretrained_model)
    if config.model.is_pretrained and start.exists():
        model = replace(model, pretrained_model=str(start.resolve()))
    return replace(
        config,
        data=config.data.resolve(),
        runs_dir=config.runs_dir.resolve(),
        pseudo=config.pseudo.resolve() if config.pseudo else None,
        savedir=config.savedir.resolve() if config.savedir else None,
        time_budget=f"{max(1.0, seconds):.0f}s" if math.isfinite(seconds) else None,
        model=model,
    )


def _wait_for_saves(run: RunFolder, folds: list[int]) -> None:
    """Wait until no fold is at work any more, so that the same command may follow at once."""
    until = time.monotonic() + SAVE_SECONDS
    while time.monotonic() < until and any(is_locked(run.fold(fold).lock) for fold in folds):
        time.sleep(0.2)

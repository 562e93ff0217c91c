"""Train folds of a run."""

from __future__ import annotations

import logging

import pandas as pd
import torch

from cellflow.config import TrainConfig, check_config
from cellflow.engine.fold_trainer import FoldResult, FoldTrainer
from cellflow.engine.folds import load_folds, validation_folds
from cellflow.engine.logs import log_to
from cellflow.engine.machine import Machine, choose_machine
from cellflow.engine.runs import open_run
from cellflow.engine.samples import CachedSamples, cache_samples
from cellflow.errors import DataError, FoldError
from cellflow.io.dataset import Dataset
from cellflow.nn.checkpoint import find_model_file
from cellflow.storage.locks import hold_lock
from cellflow.storage.run_folder import RunFolder

__all__ = ["train"]

_log = logging.getLogger(__name__)


def train(config: TrainConfig) -> list[FoldResult]:
    """Train the folds that a config names, one after the other; finished ones are skipped.

    Parameters
    ----------
    config : TrainConfig
        Settings. The same config again resumes each fold after its last saved epoch.

    Returns
    -------
    list of FoldResult
        Best score and epoch of each fold.

    Raises
    ------
    ConfigError, DataError, FoldError, LeakError, RunError, CheckpointError
        What does not fit, before any training starts.
    """
    check_config(config)
    machine = choose_machine(config.runtime)
    dataset = Dataset.open(config.data)
    folds = load_folds(dataset)
    there = validation_folds(dataset, folds)
    wanted = _wanted_folds(config.fold, there, dataset)
    run = open_run(config, dataset, there)
    _log.info(
        "run %s: %d images in %s, fold %s to train; %s, %s, %d threads",
        run.path, len(folds), dataset.path, ", ".join(map(str, wanted)), machine.device,
        str(machine.amp).removeprefix("torch.") if machine.amp else "float32",
        torch.get_num_threads(),
    )  # fmt: skip
    if config.model.pretrained_model.lower() != "none":
        _log.info("starting from %s", find_model_file(config.model.pretrained_model))
    elif not run.has_progress():
        _log.info("training from scratch; --pretrained_model FILE starts from a Cellpose 3 model")
    return [
        _train_fold(config, fold, run, dataset, folds=folds, machine=machine) for fold in wanted
    ]


def _train_fold(
    config: TrainConfig,
    fold: int,
    run: RunFolder,
    dataset: Dataset,
    *,
    folds: pd.Series[int],
    machine: Machine,
) -> FoldResult:
    files = run.fold(fold)
    with hold_lock(files.lock, f"Fold {fold} of run {run.name!r}"), log_to(files.log):
        training, validation = _samples(config, fold, dataset, folds)
        _log.info(
            "fold %d: %d images train, %d validate, mean diameter %.1f pixels",
            fold, len(training), len(validation), sum(training.diameters) / len(training),
        )  # fmt: skip
        trainer = FoldTrainer(
            config, fold, run, dataset, training=training, validation=validation, machine=machine
        )
        result = trainer.fit()
        _log.info(
            "fold %d is complete: best score %.4f at epoch %d of %d, %s",
            fold, result.best_score, result.best_epoch, result.epochs, files.best,
        )  # fmt: skip
    return result


def _samples(
    config: TrainConfig, fold: int, dataset: Dataset, folds: pd.Series
) -> tuple[CachedSamples, CachedSamples]:
    cells = dataset.images["n_instances"]
    validate = [name for name in folds.index if folds[name] == fold]
    others = [name for name in folds.index if folds[name] >= 0 and folds[name] != fold]
    enough = [name for name in others if cells[name] >= config.sampling.min_train_masks]
    if len(enough) < len(others):
        _log.warning(
            "fold %d: %d of %d training images have fewer than %d cells and are left out (--min_train_masks)",
            fold, len(others) - len(enough), len(others), config.sampling.min_train_masks,
        )  # fmt: skip
    if not enough:
        raise DataError(
            f"Fold {fold} has no training image with at least {config.sampling.min_train_masks} cells. "
            "Lower --min_train_masks, or annotate more images."
        )
    chan, chan2 = config.model.chan, config.model.chan2
    training = cache_samples(dataset, enough, chan=chan, chan2=chan2)
    return training, cache_samples(dataset, validate, chan=chan, chan2=chan2)


def _wanted_folds(asked: tuple[str, ...], there: list[int], dataset: Dataset) -> list[int]:
    if "all" in asked:
        return there
    wanted = sorted({int(part) for part in asked})
    missing = [fold for fold in wanted if fold not in there]
    if missing:
        raise FoldError(
            f"--fold {' '.join(map(str, missing))}: {dataset.folds_path} has the folds "
            f"{' '.join(map(str, there))}."
        )
    return wanted

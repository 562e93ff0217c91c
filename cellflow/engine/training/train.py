"""Train folds of a run."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import pandas as pd
import torch

from cellflow.config import TrainConfig, check_config
from cellflow.engine.data.folds import load_folds, validation_folds, wanted_folds
from cellflow.engine.runs.identity import open_run
from cellflow.engine.runs.sample_list import write_sample_list
from cellflow.engine.runs.start_file import start_file
from cellflow.engine.runs.tracked_command import tracked, write_start
from cellflow.engine.runtime.logs import log_to
from cellflow.engine.runtime.machine import Machine, choose_machine
from cellflow.engine.runtime.time_budget import Budget
from cellflow.engine.segmentation.channels import warn_of_grey, warn_of_mean
from cellflow.engine.training.cluster_folds import train_on_workers
from cellflow.engine.training.crops import FoldSamples, fold_samples
from cellflow.engine.training.debug_run import debug_config
from cellflow.engine.training.extra_images import check_targets
from cellflow.engine.training.final_network import final_config, fit_final_styles
from cellflow.engine.training.fold_result import FoldResult, copy_best, finished_without_state
from cellflow.engine.training.fold_trainer import FoldTrainer
from cellflow.engine.training.parallel_folds import devices_for, train_side_by_side
from cellflow.engine.training.recipe import settled_config
from cellflow.engine.training.start_network import check_crop_side
from cellflow.engine.training.trainable import check_trainable
from cellflow.errors import ConfigError
from cellflow.io.dataset import Dataset
from cellflow.nn.ranks import join_ranks, ranks_asked
from cellflow.storage.leases import Lease, hold_lease
from cellflow.storage.run_folder import FoldFolder, RunFolder
from cellflow.tracking import NO_TRACKERS, Trackers, open_trackers

__all__ = ["train"]

_log = logging.getLogger(__name__)


def train(config: TrainConfig) -> list[FoldResult]:
    """Train the folds that a config names; finished ones are skipped.

    One after the other; or one per GPU, where there are several GPUs and folds; or each by all processes
    together, where torchrun started several; or each by a worker of the config's scheduler.

    Parameters
    ----------
    config : TrainConfig
        Settings. The same config again resumes each fold after its last saved step.

    Returns
    -------
    list of FoldResult
        Best score and epoch of each fold.

    Raises
    ------
    ConfigError, DataError, FoldError, LeakError, RunError, CheckpointError
        What does not fit, before any training starts.

    Examples
    --------
    A network for one fold, from scratch, in seconds; 500 epochs, the default, take hours:

    >>> from cellflow import ModelConfig, OptimConfig, SamplingConfig, train, TrainConfig
    >>> config = TrainConfig(
    ...     fold=("0",),
    ...     name="quick",
    ...     model=ModelConfig(diam_mean=17.0),
    ...     optim=OptimConfig(optimizer="adamw", n_epochs=2, batch_size=2),
    ...     sampling=SamplingConfig(bsize=64, min_train_masks=1),
    ... )
    >>> (result,) = train(config)
    >>> result.fold, result.epochs, result.finished
    (0, 2, 'epochs')

    What is finished is not trained again:

    >>> train(config) == [result]
    True
    """
    check_config(config)
    if config.dry_run:
        raise ConfigError("A dry run trains nothing; its plan comes from plan_training(config).")
    machine = _own_machine(config)  # a slip in its flags is told before one in the data
    config = settled_config(config)
    if config.is_final:
        config = final_config(config)
    if config.debug:
        config = debug_config(config)
    with join_ranks(machine.device) as ranks:
        machine = replace(machine, ranks=ranks)
        if not ranks.first:
            logging.disable(logging.WARNING)  # one process speaks for all
        job = _open(config, machine, config.scheduler)
        if not ranks.first:
            return _train_folds(job)
        write_start(job.run, config)
        with tracked(job.run, "training"):
            if config.scheduler:
                return train_on_workers(config, job.folds, job.run, _train_apart)
            devices = devices_for(job.folds, config.runtime, machine)
            if len(devices) > 1:
                return train_side_by_side(config, job.folds, devices, _train_apart)
            return _train_folds(job)


def _own_machine(config: TrainConfig) -> Machine:
    """What this process computes on; nothing where workers do, whose devices it may not have."""
    if not config.scheduler:
        return choose_machine(config.runtime)
    if ranks_asked()[0] > 1:
        raise ConfigError("--scheduler and torchrun exclude each other; start one process.")
    return choose_machine(replace(config.runtime, device="cpu", amp="off"))


def _train_apart(config: TrainConfig) -> list[FoldResult]:
    """Train a fold in a process of its own, beside others of the run that is tracked elsewhere."""
    return _train_folds(_open(config, choose_machine(config.runtime)))


def _train_folds(job: Job) -> list[FoldResult]:
    """Train folds one after the other."""
    budget = Budget.of(job.config.time_budget)
    with _trackers(job) as trackers:
        return [
            _train_fold(job, fold, budget.part(len(job.folds) - place), trackers)
            for place, fold in enumerate(job.folds)
        ]


def _trackers(job: Job) -> Trackers:
    """Where the first process tracks for all."""
    if not job.machine.ranks.first:
        return NO_TRACKERS
    return open_trackers(job.config.tracking, job.run.path, experiment=job.run.name)


@dataclass(frozen=True)
class Job:
    """What is trained on what.

    Attributes
    ----------
    config : TrainConfig
        Settings.
    machine : Machine
        Where and how to compute.
    dataset : Dataset
        Images and cells.
    split : pandas.Series
        Fold of every image.
    folds : list of int
        Folds to train.
    run : RunFolder
        Run to write to.
    """

    config: TrainConfig
    machine: Machine
    dataset: Dataset
    split: pd.Series[int]
    folds: list[int]
    run: RunFolder


def _described(machine: Machine) -> str:
    """Device, precision, threads and processes, in words."""
    amp = str(machine.amp).removeprefix("torch.") if machine.amp else "float32"
    words = f"{machine.device}, {amp}, {torch.get_num_threads()} threads"
    return words + (f", {machine.ranks.world} processes" if machine.ranks.world > 1 else "")


def _open(config: TrainConfig, machine: Machine, where: str | None = None) -> Job:
    """Check everything, then start or continue the run; `where` it is trained, unless on this machine."""
    dataset = Dataset.open(config.data)
    split = load_folds(dataset)
    there = validation_folds(dataset, split)
    wanted = wanted_folds(config.fold, there, dataset)
    check_trainable(config, dataset, split, wanted)
    check_targets(config, dataset, wanted)
    check_crop_side(config, wanted[0])
    if machine.ranks.first:
        run = open_run(config, dataset, wanted if config.is_final else there)
    machine.ranks.wait()
    run = RunFolder(config.runs_dir / config.name)
    _log.info(
        "run %s: %d images in %s, fold %s to train; %s",
        run.path, len(split), dataset.path, ", ".join(map(str, wanted)), where or _described(machine),
    )  # fmt: skip
    used = dataset.images.loc[split.index[split >= 0], "channels"]
    warn_of_grey(used.to_dict(), *config.model.channels)
    warn_of_mean(used.to_dict(), config.model.channels[0])
    if config.model.is_pretrained:
        name = config.model.pretrained_model
        files = [start_file(name, fold, download=config.download) for fold in wanted]
        _log.info("starting from %s", ", ".join(map(str, dict.fromkeys(files))))
    elif not run.has_progress():
        _log.info(
            "training from scratch; --pretrained_model cyto3 starts from a model of Cellpose 3"
        )
    return Job(config, machine, dataset, split, wanted, run)


def _log_file(job: Job, fold: int) -> AbstractContextManager[None]:
    """Log file of the fold, written by the first process."""
    return log_to(job.run.fold(fold).log) if job.machine.ranks.first else nullcontext()


def _train_fold(job: Job, fold: int, budget: Budget, trackers: Trackers) -> FoldResult:
    files = job.run.fold(fold)
    with _sole_trainer(job, fold) as lease, _log_file(job, fold):
        done = finished_without_state(
            fold, files, job.config.select_metric
        )  # as cellflow prune leaves it
        if done is not None:
            if job.machine.ranks.first:
                copy_best(job.config, fold, files.best)
            _say_complete(job, done, files)
            _fit_styles(job, files)
            return done
        samples = _samples(job, fold)
        training, validation = samples.training, samples.validation
        if job.machine.ranks.first:
            write_sample_list(files.samples, job.split, training.ids, validation.ids)
        _log.info(
            "fold %d: %d images train, %d validate, mean diameter %.1f pixels",
            fold, len(training), len(validation), sum(training.diameters) / len(training),
        )  # fmt: skip
        trainer = FoldTrainer(
            job.config, fold, job.run, job.dataset,
            samples=samples, machine=job.machine, budget=budget, trackers=trackers, lease=lease,
        )  # fmt: skip
        result = trainer.fit()
        if result.finished:
            _say_complete(job, result, files)
            _fit_styles(job, files)
    return result


def _say_complete(job: Job, done: FoldResult, files: FoldFolder) -> None:
    if job.config.is_final:  # its scores are those of images that it was trained on
        _log.info("complete after epoch %g, %s", done.best_epoch, files.best)
        return
    _log.info(
        "fold %d is complete: best score %.4f at epoch %g of %g, %s",
        done.fold, done.best_score, done.best_epoch, done.epochs, files.best,
    )  # fmt: skip


def _fit_styles(job: Job, files: FoldFolder) -> None:
    """Of a final network, for which no out-of-fold pass does it."""
    if job.config.is_final and job.machine.ranks.first:
        fit_final_styles(files, job.dataset, job.machine)


def _sole_trainer(job: Job, fold: int) -> AbstractContextManager[Lease | None]:
    """Lock on the fold, held by the first process for all; a lost worker's is waited for."""
    if not job.machine.ranks.first:
        return nullcontext()
    what = f"Fold {fold} of run {job.run.name!r}"
    return hold_lease(job.run.fold(fold).lock, what, wait=bool(job.config.scheduler))


def _samples(job: Job, fold: int) -> FoldSamples:
    """Samples that train and that validate; the first process computes them, the others read."""
    if not job.machine.ranks.first:
        job.machine.ranks.wait()
    samples = fold_samples(job.config, fold, job.dataset, job.split)
    if job.machine.ranks.first:
        job.machine.ranks.wait()
    return samples

"""What a training would do, and what it would take: measured on a few steps, nothing is kept."""

from __future__ import annotations

import io
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cellflow.config import TrainConfig, check_config
from cellflow.engine.data.folds import load_folds, validation_folds, wanted_folds
from cellflow.engine.runtime.machine import Machine, choose_machine
from cellflow.engine.segmentation.member import Member
from cellflow.engine.training.crops import fold_samples, make_crops, make_sampler
from cellflow.engine.training.extra_images import check_targets
from cellflow.engine.training.final_network import final_config
from cellflow.engine.training.recipe import settled_config
from cellflow.engine.training.start_network import (
    check_crop_side,
    start_stepper,
)
from cellflow.engine.training.trainable import check_trainable
from cellflow.engine.training.validator import Validator
from cellflow.io.dataset import Dataset
from cellflow.nn.dataset import Batch, CropDataset, Slot
from cellflow.nn.step import Stepper
from cellflow.report.batch import MAX_CROPS, plot_batch

__all__ = ["Plan", "plan_training"]

TIMED_STEPS = 3


@dataclass(frozen=True)
class Plan:
    """What a training would take.

    Attributes
    ----------
    folds : tuple of int
        Folds that would be trained.
    training, validation : int
        Images that train and validate in the first of them.
    steps_per_epoch, epochs, evaluations : int
        Length of the training of one fold.
    crop_seconds, step_seconds : float
        Time for the crops of one step, and for the whole step with them.
    evaluation_seconds : float
        Time for one evaluation, of averaged weights too where there are any.
    memory_bytes : int
        Peak memory: of the GPU where one is used, else of this process; 0 where it cannot be told.
    state_bytes : int
        Size of a saved state.
    picture : Path
        One augmented batch.
    machine : str
        Device, precision and threads.
    """

    folds: tuple[int, ...]
    training: int
    validation: int
    steps_per_epoch: int
    epochs: int
    evaluations: int
    crop_seconds: float
    step_seconds: float
    evaluation_seconds: float
    memory_bytes: int
    state_bytes: int
    picture: Path
    machine: str

    @property
    def fold_seconds(self) -> float:
        """Time for one fold; crops are prepared meanwhile where there are workers."""
        steps = self.steps_per_epoch * self.epochs * self.step_seconds
        return steps + self.evaluations * self.evaluation_seconds


def plan_training(config: TrainConfig) -> Plan:
    """Measure what a training would take, and draw one batch of the first fold.

    Trains three steps on a network that is thrown away. Flow targets are computed and stay in the cache,
    where the training finds them; the picture is ``RUNS_DIR/NAME_batch.png``. No run is started.

    Parameters
    ----------
    config : TrainConfig
        Settings.

    Raises
    ------
    ConfigError, DataError, FoldError, RunError, CheckpointError
        What `train` would raise before it starts.
    """
    check_config(config)
    machine = choose_machine(config.runtime)
    config = settled_config(config)
    if config.is_final:
        config = final_config(config)
    dataset = Dataset.open(config.data)
    split = load_folds(dataset)
    folds = wanted_folds(config.fold, validation_folds(dataset, split), dataset)
    check_trainable(config, dataset, split, folds)
    check_targets(config, dataset, folds)
    check_crop_side(config, folds[0])
    samples = fold_samples(config, folds[0], dataset, split)
    training, validation = samples.training, samples.validation
    origin = {"fold": folds[0], "data_hash": dataset.hash, "folds_hash": dataset.folds_hash()}
    stepper = start_stepper(config, training, origin, machine)
    diameters = stepper.net.diameters
    everything = training + samples.extra
    crops = make_crops(config, folds[0], everything, stepper.net)
    sampler = make_sampler(config, folds[0], dataset, samples, machine.ranks)
    slots = next(iter(sampler))
    batch, crop_seconds = _first_batch(crops, slots)
    picture = config.runs_dir / f"{config.name}_batch.png"
    shown = [tensor[:MAX_CROPS].numpy() for tensor in batch[:3]]
    names = [_crop_name(crops, everything.ids, slot) for slot in slots[:MAX_CROPS]]
    plot_batch(picture, *shown, title=f"First batch of fold {folds[0]}, augmented", names=names)
    compute_seconds = _step_seconds(stepper, batch, machine)
    validator = Validator(
        config, dataset, training=training, samples=validation, crops=crops, machine=machine
    )
    model = config.model
    runner = machine.runner(stepper.net.eval(), images=len(validation))
    member = Member("plan", runner, *model.channels, *diameters)
    epochs, every = config.optim.n_epochs, config.eval_every
    return Plan(
        folds=tuple(folds),
        training=len(everything),
        validation=len(validation),
        steps_per_epoch=len(sampler),
        epochs=epochs,
        # that of the start model first
        evaluations=-(-epochs // every) + config.model.is_pretrained,
        crop_seconds=crop_seconds,
        step_seconds=max(compute_seconds, crop_seconds / machine.workers)
        if machine.workers
        else compute_seconds + crop_seconds,
        evaluation_seconds=validator.estimate(member) * len(stepper.networks),
        memory_bytes=_peak_memory(machine),
        state_bytes=_state_bytes(stepper),
        picture=picture,
        machine=", ".join(f"{key} {value}" for key, value in machine.describe().items()),
    )


def _crop_name(crops: CropDataset, ids: tuple[str, ...], slot: Slot) -> tuple[str, str]:
    """Image of a crop, and what is seen of it."""
    facts = crops.facts(slot)
    cells = "1 cell" if facts.cells == 1 else f"{facts.cells} cells"
    return ids[slot.image], f"scale {facts.scale:.2f}, {cells}"


def _first_batch(crops: CropDataset, slots: list[Slot]) -> tuple[Batch, float]:
    crops[slots[0]]  # kernels are compiled at their first call
    started = time.perf_counter()
    items = [crops[slot] for slot in slots]
    seconds = time.perf_counter() - started
    return Batch(*map(torch.stack, zip(*items, strict=True))), seconds


def _step_seconds(stepper: Stepper, batch: Batch, machine: Machine) -> float:
    """Median time of a step on a batch, the first one apart."""
    times = []
    for _ in range(TIMED_STEPS + 1):
        started = time.perf_counter()
        stepper.step(batch, 0.0)
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))


def _state_bytes(stepper: Stepper) -> int:
    buffer = io.BytesIO()
    torch.save(stepper.state_dict(), buffer)
    return buffer.tell()


def _peak_memory(machine: Machine) -> int:
    if machine.device.type == "cuda":
        return torch.cuda.max_memory_allocated(machine.device)
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

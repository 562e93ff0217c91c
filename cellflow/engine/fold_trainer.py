"""Training of one fold: epochs, evaluations, best model, last state."""

from __future__ import annotations

import logging
import math
import shutil
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from cellflow.config import TrainConfig
from cellflow.engine.evaluate import mean_score, score_row
from cellflow.engine.machine import Machine
from cellflow.engine.runs import versions
from cellflow.engine.samples import CachedSamples
from cellflow.engine.segment import Member, Segmenter
from cellflow.engine.start import start_network
from cellflow.errors import CellflowError, CheckpointError
from cellflow.io.dataset import Dataset
from cellflow.nn.checkpoint import (
    load_model_file,
    load_state,
    save_model_file,
    save_state,
)
from cellflow.nn.dataset import Batch, CropDataset, EpochSampler, Slot, make_loader
from cellflow.nn.loss import segmentation_loss
from cellflow.nn.optim import learning_rate_at, make_optimizer
from cellflow.nn.precision import autocast, choose_layout
from cellflow.nn.unet import diameters_of, set_layout
from cellflow.storage.atomic import atomic_path, write_csv
from cellflow.storage.hashing import hash_file, hash_json
from cellflow.storage.run_folder import RunFolder

__all__ = ["FoldResult", "FoldTrainer"]

SAVE_SHARE = 0.05
"""Largest part of the time that is spent on saving the last state between evaluations."""
VALIDATION_EPOCH = -1
"""Epoch in the key of the validation crops' randomness: the same crops at every evaluation."""

STATE_KEYS = (
    "net", "optimizer", "scaler", "epoch", "best_score", "best_epoch", "history", "evaluations",
    "machine",
)  # fmt: skip

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldResult:
    """What came out of a fold's training."""

    fold: int
    best_score: float
    best_epoch: int
    epochs: int


class FoldTrainer:
    """Train one fold from start or from where it stopped.

    Parameters
    ----------
    config : TrainConfig
        Settings of the run.
    fold : int
        Fold that validates.
    run : RunFolder
        Run to write to.
    dataset : Dataset
        Images and their cells.
    training, validation : CachedSamples
        Samples of the images that train, and of those that validate.
    machine : Machine
        Where and how to compute.
    """

    def __init__(
        self,
        config: TrainConfig,
        fold: int,
        run: RunFolder,
        dataset: Dataset,
        *,
        training: CachedSamples,
        validation: CachedSamples,
        machine: Machine,
    ):
        self.config, self.fold, self.run, self.dataset = config, fold, run, dataset
        self.training, self.validation, self.machine = training, validation, machine
        self.files = run.fold(fold)
        self.record = run.read_record()
        own = {"fold": fold, **{key: self.record[key] for key in ("data_hash", "folds_hash")}}
        self.net = start_network(config, float(np.mean(training.diameters)), own)
        self.diam_mean, self.diam_labels = diameters_of(self.net)
        self.net.to(machine.device)
        set_layout(self.net, choose_layout(machine.device))
        optim = config.optim
        self.optimizer = make_optimizer(
            self.net, optim.optimizer, weight_decay=optim.weight_decay, momentum=optim.momentum
        )
        scaled = machine.device.type == "cuda" and machine.amp == torch.float16
        self.scaler = torch.amp.GradScaler(machine.device.type, enabled=scaled)
        self.epoch = 0
        self.best_score, self.best_epoch = -1.0, 0
        self.history: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.saved_at, self.save_cost = time.monotonic(), 0.0

    def fit(self) -> FoldResult:
        """Train until the last epoch. Resumes from the last state where there is one.

        A kill at any moment loses at most what has come since the last state. The state is written
        before the best model: what it says is the best is then either in the model file or the state's
        own weights.
        """
        self._resume()
        loader, sampler = self._loader()
        last_epoch = self.config.optim.n_epochs
        started, first = time.monotonic(), self.epoch
        while self.epoch < last_epoch:
            sampler.epoch = self.epoch
            row = self._train_epoch(loader, sampler)
            self.epoch += 1
            evaluated = self.epoch % self.config.eval_every == 0 or self.epoch == last_epoch
            if evaluated:
                row |= self._evaluate()
            best_score = self.best_score if self.best_epoch else math.nan
            self.history.append(row | {"best_score": best_score})
            if evaluated or self._is_saving_cheap():
                self._save_state()
            if self.best_epoch == self.epoch:
                self._save_best()
            self._say(row, (time.monotonic() - started) / (self.epoch - first))
        self._copy_best()
        return FoldResult(self.fold, self.best_score, self.best_epoch, self.epoch)

    def _loader(self) -> tuple[Any, EpochSampler]:
        config = self.config
        images = len(self.training)
        sampler = EpochSampler(
            images,
            config.sampling.nimg_per_epoch or images,
            config.optim.batch_size,
            seed=config.seed,
            fold=self.fold,
        )
        crops = self._crops(self.training)
        return make_loader(crops, sampler, workers=self.machine.workers), sampler

    def _crops(self, samples: CachedSamples) -> CropDataset:
        return CropDataset(
            samples,
            seed=self.config.seed,
            fold=self.fold,
            diam_mean=self.diam_mean,
            size=self.config.sampling.bsize,
            scale_range=self.config.sampling.scale_range,
        )

    def _train_epoch(self, loader: Any, sampler: EpochSampler) -> dict[str, Any]:
        """One pass over the sampler's slots; returns the epoch's row of the history."""
        self.net.train()
        totals, started, rate = np.zeros(3), time.perf_counter(), 0.0
        bar = tqdm(loader, desc=f"epoch {self.epoch + 1}", unit="step", disable=None, leave=False)
        for place, batch in enumerate(bar):
            rate = self._learning_rate(self.epoch * len(sampler) + place, len(sampler))
            losses = self._step(Batch(*batch), rate)
            totals += np.array(losses) * len(batch[0])
            bar.set_postfix(loss=f"{losses[0]:.3f}")
        seconds = time.perf_counter() - started
        total, flow, cellprob = (float(value) for value in totals / sampler.per_epoch)
        return {
            "epoch": self.epoch + 1,
            "train_loss": total,
            "train_flow_loss": flow,
            "train_cellprob_loss": cellprob,
            "learning_rate": rate,
            "val_loss": math.nan,
            "val_score": math.nan,
            "images_per_second": sampler.per_epoch / seconds,
            "seconds": seconds,
        }

    def _learning_rate(self, step: int, steps_per_epoch: int) -> float:
        optim = self.config.optim
        return learning_rate_at(
            step,
            schedule=optim.schedule,
            peak=optim.peak_learning_rate,
            n_epochs=optim.n_epochs,
            steps_per_epoch=steps_per_epoch,
        )

    def _step(self, batch: Batch, rate: float) -> tuple[float, float, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        image, unit_flow, foreground = self._to_device(batch)
        with autocast(self.machine.device, self.machine.amp):
            output = self.net(image)[0]
        loss = segmentation_loss(output, unit_flow, foreground)
        values = loss.total.item(), loss.flow.item(), loss.cellprob.item()
        if not math.isfinite(values[0]):
            raise CellflowError(
                f"The loss of fold {self.fold} became {values[0]} in epoch {self.epoch + 1} at learning "
                f"rate {rate:g}. Try a lower --learning_rate or --amp off, under another --name."
            )
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss.total))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return values

    def _to_device(self, batch: Batch) -> Batch:
        device = self.machine.device
        image = batch.image.to(device, non_blocking=True, memory_format=choose_layout(device))
        unit_flow = batch.unit_flow.to(device, non_blocking=True)
        return Batch(image, unit_flow, batch.foreground.to(device, non_blocking=True))

    def _evaluate(self) -> dict[str, Any]:
        """Score the validation images as prediction would segment them."""
        self.net.eval()
        segmenter = Segmenter(
            [self._member()],
            self.config.mask,
            amp=self.machine.amp,
            batch_size=self.config.optim.batch_size,
        )
        rows = []
        bar = tqdm(self.validation.ids, desc="evaluation", unit="image", disable=None, leave=False)
        for name in bar:
            labels = segmenter.predict(self.dataset.image(name)).labels
            rows.append(
                {"epoch": self.epoch, "id": name} | score_row(self.dataset.instances(name), labels)
            )
        self.evaluations += rows
        score = mean_score(pd.DataFrame(rows))
        if score > self.best_score:
            self.best_score, self.best_epoch = score, self.epoch
        return {"val_loss": self._validation_loss(), "val_score": score}

    def _member(self) -> Member:
        model = self.config.model
        name = f"{self.run.name} fold {self.fold}"
        return Member(name, self.net, model.chan, model.chan2, self.diam_mean, self.diam_labels)

    def _validation_loss(self) -> float:
        """Loss on one fixed crop of every validation image."""
        crops, size = self._crops(self.validation), self.config.optim.batch_size
        total = 0.0
        for start in range(0, len(self.validation), size):
            places = range(start, min(start + size, len(self.validation)))
            items = [crops[Slot(VALIDATION_EPOCH, place, place)] for place in places]
            image, unit_flow, foreground = self._to_device(
                Batch(*map(torch.stack, zip(*items, strict=True)))
            )
            with torch.inference_mode(), autocast(self.machine.device, self.machine.amp):
                output = self.net(image)[0]
            total += segmentation_loss(output, unit_flow, foreground).total.item() * len(items)
        return total / len(self.validation)

    def _facts(self) -> dict[str, Any]:
        """What is stored with the model: how to use it, and where it comes from."""
        return {
            "run": self.run.name,
            "fold": self.fold,
            "epoch": self.best_epoch,
            "score": self.best_score,
            "chan": self.config.model.chan,
            "chan2": self.config.model.chan2,
            "diam_mean": self.diam_mean,
            "diam_labels": self.diam_labels,
            "data_hash": self.record["data_hash"],
            "folds_hash": self.record["folds_hash"],
            "config_hash": hash_json(self.record["config"]),
            "amp": str(self.machine.amp).removeprefix("torch."),
            "versions": versions(),
        }

    def _save_best(self) -> None:
        save_model_file(self.files.best, self.net, self._facts())
        self._copy_best()

    def _copy_best(self) -> None:
        """Copy the best model to --savedir, unless it is there."""
        if self.config.savedir is None:
            return
        goal = self.config.savedir / f"{self.run.name}_fold_{self.fold}.pt"
        if not goal.exists() or hash_file(goal) != hash_file(self.files.best):
            with atomic_path(goal) as temporary:
                shutil.copyfile(self.files.best, temporary)

    def _save_state(self) -> None:
        """Save the last state, then the tables, so that a table never knows more than the state."""
        state = {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "evaluations": self.evaluations,
            "machine": self.machine.describe(),
        }
        started = time.monotonic()
        save_state(self.files.last, state)
        self._write_tables()
        self.saved_at = time.monotonic()
        self.save_cost = self.saved_at - started

    def _is_saving_cheap(self) -> bool:
        return (time.monotonic() - self.saved_at) * SAVE_SHARE >= self.save_cost

    def _write_tables(self) -> None:
        write_csv(self.files.history, pd.DataFrame(self.history))
        if self.evaluations:
            write_csv(self.files.evaluations, pd.DataFrame(self.evaluations))

    def _resume(self) -> None:
        if not self.files.last.exists():
            return
        state = load_state(self.files.last)
        missing = [key for key in STATE_KEYS if key not in state]
        if missing:
            raise CheckpointError(
                f"{self.files.last} is no training state of cellflow: {missing[0]!r} is missing. Remove "
                f"{self.files.path} to train this fold anew."
            )
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty unless it was trained in float16
            self.scaler.load_state_dict(state["scaler"])
        self.epoch = state["epoch"]
        self.best_score, self.best_epoch = state["best_score"], state["best_epoch"]
        self.history, self.evaluations = state["history"], state["evaluations"]
        self._write_tables()
        self._recover_best()
        self._compare_machine(state["machine"])
        if self.epoch < self.config.optim.n_epochs:
            _log.info("fold %d goes on after epoch %d", self.fold, self.epoch)

    def _recover_best(self) -> None:
        """Write the best model again when a kill came between the state and the model file."""
        if not self.best_epoch:
            return
        there = self.files.best.exists() and load_model_file(self.files.best).facts
        if there and there.get("epoch") == self.best_epoch:
            return
        if self.best_epoch == self.epoch:
            self._save_best()
            return
        found = f"holds epoch {there.get('epoch')}" if there else "is gone"
        raise CheckpointError(
            f"{self.files.best} {found}, but {self.files.last} says that epoch {self.best_epoch} was "
            f"the best. Put it back, or remove {self.files.path} to train this fold anew."
        )

    def _compare_machine(self, before: dict[str, str | int]) -> None:
        now = self.machine.describe()
        changes = [
            f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]
        ]
        if changes:
            _log.warning(
                "fold %d goes on with other settings than it was started with (%s): the result will not "
                "be bit for bit what it would have been",
                self.fold, ", ".join(changes),
            )  # fmt: skip

    def _say(self, row: dict[str, Any], seconds_per_epoch: float) -> None:
        left = round(seconds_per_epoch * (self.config.optim.n_epochs - self.epoch))
        score = ""
        if not math.isnan(row["val_score"]):
            score = (
                f"  score {row['val_score']:.4f} (best {self.best_score:.4f} at {self.best_epoch})"
            )
        _log.info(
            "fold %d  epoch %d/%d  loss %.4f  lr %.2g  %.1f images/s%s  left %d:%02d:%02d",
            self.fold, self.epoch, self.config.optim.n_epochs, row["train_loss"], row["learning_rate"],
            row["images_per_second"], score, left // 3600, left // 60 % 60, left % 60,
        )  # fmt: skip

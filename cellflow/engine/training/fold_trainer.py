"""Training of one fold: steps and evaluations, from the start or from where it stopped."""

from __future__ import annotations

import logging
import signal
import time

import pandas as pd

from cellflow.config import TrainConfig, chosen
from cellflow.engine.runtime.interruption import Interrupted, Interruption
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.runtime.time_budget import Budget
from cellflow.engine.segmentation.member import Member
from cellflow.engine.segmentation.scoring import mean_score
from cellflow.engine.training.crops import FoldSamples, make_crops, make_sampler
from cellflow.engine.training.fold_checkpoint import FoldCheckpoint
from cellflow.engine.training.fold_log import log_epoch, log_position, step_bar
from cellflow.engine.training.fold_pictures import FoldPictures
from cellflow.engine.training.fold_result import FoldResult
from cellflow.engine.training.fold_tracking import FoldTracking
from cellflow.engine.training.progress import (
    SCORE_COLUMNS,
    EpochSums,
    Progress,
    seconds_left,
    value_column,
)
from cellflow.engine.training.start_network import start_stepper
from cellflow.engine.training.validator import Validator
from cellflow.errors import CellflowError, NotFiniteError
from cellflow.io.dataset import Dataset
from cellflow.nn.dataset import Batch, make_loader
from cellflow.nn.networks import Network
from cellflow.nn.optim import learning_rate_at
from cellflow.nn.step import Stepper
from cellflow.storage.leases import Lease
from cellflow.storage.run_folder import RunFolder
from cellflow.tracking import NO_TRACKERS, Trackers

__all__ = ["FoldTrainer"]

MAX_SKIPPED = 5
"""Steps in a row that may fail to be finite before the training goes back."""
MAX_SKIPPED_SCALED = 20
"""The same in float16, whose gradient scale has to find its size."""
LOWER = 0.2
"""Factor on the learning rate after going back."""
RESERVE = 1.2
"""Part of a budget's end that is kept for the last evaluation and save, in what they took the last time."""

_log = logging.getLogger(__name__)


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
    samples : FoldSamples
        Samples of the images that train, and of those that validate.
    machine : Machine
        Where and how to compute.
    budget : Budget
        Time for this fold.
    trackers : Trackers
        Where it is tracked besides the run's folder.
    lease : Lease, optional
        On the fold; looked at before each save.
    """

    def __init__(
        self,
        config: TrainConfig,
        fold: int,
        run: RunFolder,
        dataset: Dataset,
        *,
        samples: FoldSamples,
        machine: Machine,
        budget: Budget,
        trackers: Trackers = NO_TRACKERS,
        lease: Lease | None = None,
    ):
        self.config, self.fold, self.run = config, fold, run
        training, validation = samples.training, samples.validation
        self.training, self.machine, self.budget = training, machine, budget
        self.tracking = FoldTracking(trackers, fold, dataset, validation.ids)
        self.checkpoint = FoldCheckpoint(
            config, fold, run, machine, trained_on=training.ids, lease=lease
        )
        self.stepper = self._start()
        crops = make_crops(config, fold, training + samples.extra, self.stepper.net)
        self.sampler = make_sampler(config, fold, dataset, samples, machine.ranks)
        self.loader = make_loader(crops, self.sampler, workers=machine.workers)
        self.progress = Progress(len(self.sampler))
        fixed = make_crops(config, fold, validation, self.stepper.net, augmented=False)
        self.validator = Validator(
            config, dataset, training=training, samples=validation, crops=fixed, machine=machine
        )
        self.pictures = FoldPictures(run, fold, dataset, self.validator)
        self.evaluation_seconds = 0.0
        self.signals = Interruption()
        self.paused = False

    def fit(self) -> FoldResult:
        """Train until the last epoch, until patience ends, or until time runs out.

        Resumes from the last state where there is one. A kill at any moment loses at most what has come
        since that state; Ctrl-C and SIGTERM save one first.
        """
        with self.signals:
            try:
                self.progress = self.checkpoint.resume(self.stepper) or self.progress
                self.tracking.start(
                    self.config, self.run, len(self.training), self.stepper.net.title
                )
                if self.progress.history:  # a kill may have come between the state and the trackers
                    self._track_evaluation()
                self._train()
            except Interrupted:
                self._save()
                self._log_position("interrupted")
                raise
        progress = self.progress
        summary = self.checkpoint.finish(progress)
        self.pictures.curves(progress)
        if progress.finished:
            self.tracking.end(summary, self.checkpoint.files.best)
        elif self.paused:
            self._log_position("is out of time")
        return FoldResult.of(self.fold, progress, self.config.select_metric)

    def _train(self) -> None:
        progress = self.progress
        if self.config.model.is_pretrained and not (progress.history or progress.step):
            # Epoch 0: a training that ends below its start model is then seen for what it is.
            self._keep_evaluation(0, EpochSums().row() | self._evaluate(0))
        if not progress.finished:  # for the time that is left, and for what is kept of a budget
            seconds = self.validator.estimate(self._member(self.stepper.net.eval()))
            self.evaluation_seconds = seconds * len(self.stepper.networks)
        while not (self.progress.finished or self.paused):
            try:
                if self._take_steps():
                    self._end_epoch()
            except NotFiniteError:
                self._go_back("the network's output was not a number in the evaluation")

    def _take_steps(self) -> bool:
        """Take the steps that are left of the epoch; whether its end was reached."""
        self.sampler.epoch, self.sampler.start = self.progress.epoch, self.progress.step
        places = range(self.progress.step, len(self.sampler))
        batches = iter(self.loader)
        with step_bar(self.progress, hidden=not self.machine.ranks.first) as bar:
            for place in places:
                started = time.perf_counter()
                batch = Batch(*next(batches))
                waited = time.perf_counter() - started
                self._take_step(place, batch)
                self.progress.sums.seconds += time.perf_counter() - started
                self.progress.sums.waited += waited
                bar.update()
                if self._has_gone_back() or self._must_stop():
                    return False
                self.checkpoint.save_if_due(self.stepper, self.progress)
        return True

    def _take_step(self, place: int, batch: Batch) -> None:
        progress = self.progress
        result = self.stepper.step(batch, self._rate(place), share=self.sampler.share(place))
        progress.sums.add(result, self.sampler.size(place))
        progress.step = place + 1
        progress.skipped_in_a_row = 0 if result.taken else progress.skipped_in_a_row + 1

    def _rate(self, place: int) -> float:
        optim, steps = self.config.optim, len(self.sampler)
        rate = learning_rate_at(
            self.progress.epoch * steps + place,
            schedule=chosen(optim.schedule),
            peak=optim.peak_learning_rate,
            n_epochs=optim.n_epochs,
            steps_per_epoch=steps,
            warmup=optim.warmup,
        )
        return rate * self.progress.rate_factor

    def _must_stop(self) -> bool:
        """Whether time is up, after an evaluation and a save; raises when a signal has come."""
        reserve = RESERVE * (self.evaluation_seconds + self.checkpoint.seconds)
        wishes = float(self.signals.received > 0), float(self.budget.left < reserve)
        signalled, late = self.machine.ranks.sums(wishes)
        if signalled:
            self.signals.received = self.signals.received or signal.SIGTERM
            raise Interrupted
        if not late:
            return False
        self.paused = True
        if self.progress.step == len(self.sampler):
            return False  # the epoch is over: end it as always
        # Inside an epoch, whose sums go on when the training does.
        position = self.progress.position
        self._keep_evaluation(position, self.progress.sums.row() | self._evaluate(position))
        return True

    def _end_epoch(self) -> None:
        progress, config = self.progress, self.config
        epoch = progress.epoch + 1
        is_last = epoch == config.optim.n_epochs
        row = progress.sums.row() | {"learning_rate": self._rate(len(self.sampler) - 1)}
        evaluated = epoch % config.eval_every == 0 or is_last or self.paused
        if evaluated:
            row |= self._evaluate(epoch)
        progress.epoch, progress.step, progress.sums = epoch, 0, EpochSums()
        if is_last:
            progress.finished = "epochs"
        elif config.optim.patience and progress.stale >= config.optim.patience:
            progress.finished = "patience"
        if evaluated:
            self._keep_evaluation(epoch, row)
        else:
            progress.keep(epoch, row, with_average=chosen(config.optim.ema) > 0)
            self.tracking.epoch(progress.history[-1])
            self.pictures.epoch(progress)
        left = seconds_left(
            epoch, config.optim.n_epochs, eval_every=config.eval_every,
            epoch_seconds=row["seconds"] * (1 + self.checkpoint.share),
            evaluation_seconds=self.evaluation_seconds + self.checkpoint.seconds,
        )  # fmt: skip
        log_epoch(self.fold, progress, n_epochs=config.optim.n_epochs, seconds_left=left)

    def _evaluate(self, epoch: float) -> dict[str, float]:
        """Score the weights, and their moving average where there is one. All or nothing is kept."""
        started = time.monotonic()
        scores, values, rows, metric = {}, {}, [], self.config.select_metric
        for weights, net in self.stepper.networks.items():
            net.eval()
            watching = [self.pictures.watch(weights), *[self.tracking.see] * (weights == "net")]
            scored = self.validator.score(self._member(net), self.signals.check, watching)
            rows += [{"epoch": epoch, "weights": weights} | row for row in scored]
            scores[weights] = mean_score(pd.DataFrame(scored))
            values[weights] = mean_score(pd.DataFrame(scored), metric)
        loss = self.validator.loss(self.stepper.net)
        progress = self.progress
        progress.evaluations += rows
        if self.config.is_final:
            # it has seen these images: what comes last is best, averaged if it can be
            last = list(scores)[-1]
            progress.take(scores[last], epoch, last, values[last])
        else:
            better = [progress.consider(scores[w], epoch, w, values[w]) for w in scores]
            progress.stale = 0 if any(better) else progress.stale + 1
        shown = max(values, key=lambda name: values[name])
        self.pictures.evaluation(epoch, shown, scores[shown])
        self.evaluation_seconds = time.monotonic() - started
        row = {"val_loss": loss} | {SCORE_COLUMNS[name]: score for name, score in scores.items()}
        if metric != "competition":
            row |= {value_column(metric, name): value for name, value in values.items()}
        return row

    def _keep_evaluation(self, epoch: float, row: dict[str, float]) -> None:
        """Keep the row of an evaluation, with the state and, if it is the best, the model."""
        self.progress.keep(epoch, row, with_average=chosen(self.config.optim.ema) > 0)
        self._save()
        if self.progress.best_epoch == epoch:
            self.checkpoint.save_best(self.stepper, self.progress)
        self._track_evaluation()
        self.pictures.curves(self.progress)

    def _track_evaluation(self) -> None:
        self.tracking.evaluation(self.progress.history[-1], self.progress.evaluations)

    def _member(self, net: Network) -> Member:
        model, name = self.config.model, f"{self.run.name} fold {self.fold}"
        runner = self.machine.runner(net, images=len(self.validator.ids))
        return Member(name, runner, *model.channels, *self.stepper.net.diameters)

    def _has_gone_back(self) -> bool:
        """Go back to the last good state when step after step fails; whether that was done."""
        scaled = self.stepper.scaler.is_enabled()
        skipped = self.progress.skipped_in_a_row
        if skipped < (MAX_SKIPPED_SCALED if scaled else MAX_SKIPPED):
            return False
        self._go_back(f"the loss or the gradient was not finite in {skipped} steps in a row")
        return True

    def _go_back(self, why: str) -> None:
        """Restore the last good state, or the start, at a lower learning rate. Once."""
        failed, rate = self.progress, self._rate(max(0, self.progress.step - 1))
        what = f"fold {self.fold}, epoch {failed.epoch + 1}, learning rate {rate:.3g}: {why}"
        if failed.rate_factor < 1:
            raise CellflowError(
                f"{what}, after the learning rate had been lowered once. Try a lower --learning_rate, "
                "--clip_grad 1 or --amp off, under another --name."
            )
        self.stepper = self._start()
        self.progress = self.checkpoint.go_back(self.stepper) or Progress(len(self.sampler))
        self.progress.rate_factor = LOWER
        where = self.progress.position
        event = f"{what}; went back to epoch {where:g} and on at {LOWER:g} times the learning rate"
        self.progress.events.append(event)
        _log.warning("%s", event)
        self.machine.ranks.wait()  # until all have read the old state
        self._save()

    def _start(self) -> Stepper:
        return start_stepper(self.config, self.training, self.checkpoint.origin, self.machine)

    def _save(self) -> None:
        self.checkpoint.save(self.stepper, self.progress)

    def _log_position(self, what: str) -> None:
        log_position(self.fold, what, self.progress, n_epochs=self.config.optim.n_epochs)

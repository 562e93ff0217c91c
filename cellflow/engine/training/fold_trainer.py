"""Training of one fold: steps, evaluations, best model, last state."""

from __future__ import annotations

import logging
import math
import shutil
import signal
import time
from contextlib import suppress
from typing import Any

import pandas as pd
from tqdm import tqdm

from cellflow.config import TrainConfig
from cellflow.engine.runs.identity import versions
from cellflow.engine.runtime.interruption import Interrupted, Interruption
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.runtime.time_budget import Budget
from cellflow.engine.segmentation.member import Member
from cellflow.engine.segmentation.scoring import mean_score
from cellflow.engine.training.crops import make_crops, make_sampler
from cellflow.engine.training.fold_result import FoldResult, copy_best
from cellflow.engine.training.fold_tracking import FoldRecorder
from cellflow.engine.training.progress import EpochSums, Progress, seconds_left
from cellflow.engine.training.sample_cache import CachedSamples
from cellflow.engine.training.start_network import is_pretrained, start_stepper
from cellflow.engine.training.validator import Validator
from cellflow.errors import CellflowError, CheckpointError, NotFiniteError
from cellflow.io.dataset import Dataset
from cellflow.nn.checkpoint import load_model_file, load_state, save_model_file, save_state
from cellflow.nn.dataset import Batch, make_loader
from cellflow.nn.networks import Network
from cellflow.nn.optim import learning_rate_at
from cellflow.nn.step import Stepper
from cellflow.report.history import plot_history
from cellflow.storage.atomic import atomic_path, remove_leftovers, write_csv, write_json
from cellflow.storage.hashing import hash_json
from cellflow.storage.run_folder import RunFolder
from cellflow.tracking import NO_TRACKERS, Trackers

__all__ = ["FoldTrainer"]

SAVE_SECONDS = 30.0
"""Seconds of training between two states, at least; an evaluation always ends with one."""
SAVE_SHARE = 0.02
"""Largest part of the time that is spent on saving between evaluations."""
MAX_SKIPPED = 5
"""Steps in a row that may fail to be finite before the training goes back."""
MAX_SKIPPED_SCALED = 20
"""The same in float16, whose gradient scale has to find its size."""
LOWER = 0.2
"""Factor on the learning rate after going back."""

STATE_KEYS = ("net", "optimizer", "scaler", "average", "pieces", "progress", "machine")

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
    training, validation : CachedSamples
        Samples of the images that train, and of those that validate.
    machine : Machine
        Where and how to compute.
    budget : Budget
        Time for this fold.
    trackers : Trackers
        Where it is recorded besides the run's folder.
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
        budget: Budget,
        trackers: Trackers = NO_TRACKERS,
    ):
        self.config, self.fold, self.run = config, fold, run
        self.training, self.machine, self.budget = training, machine, budget
        self.told = FoldRecorder(trackers, fold, dataset, validation.ids)
        self.files, self.record = run.fold(fold), run.read_record()
        self.first = machine.ranks.first
        self.stepper = self._start()
        self.diam_mean, self.diam_labels = self.stepper.net.diameters
        crops = make_crops(config, fold, training, self.stepper.net)
        self.sampler = make_sampler(config, fold, dataset, training.ids, machine.ranks)
        self.loader = make_loader(crops, self.sampler, workers=machine.workers)
        fixed = make_crops(config, fold, validation, self.stepper.net, augmented=False)
        self.validator = Validator(
            config, dataset, training=training, samples=validation, crops=fixed, machine=machine
        )
        self.progress = Progress()
        self.signals = Interruption()
        self.paused = False
        self.saved_at, self.save_cost = time.monotonic(), 0.0
        self.evaluation_cost = 0.0

    def fit(self) -> FoldResult:
        """Train until the last epoch, until patience ends, or until time runs out.

        Resumes from the last state where there is one. A kill at any moment loses at most what has come
        since that state; Ctrl-C and SIGTERM save one first. The state is written before the best model:
        what it says is the best is then either in the model file or the state's own weights.
        """
        with self.signals:
            try:
                self._resume()
                self.told.start(self.config, self.run, len(self.training), self.stepper.net.title)
                self._train()
            except Interrupted:
                self._save_state()
                self._say_where("interrupted")
                raise
        self._close()
        progress = self.progress
        return FoldResult(
            self.fold,
            progress.best_score,
            progress.best_epoch,
            progress.position(len(self.sampler)),
            progress.finished,
        )

    def _train(self) -> None:
        progress = self.progress
        if is_pretrained(self.config) and not (progress.history or progress.step):
            self._evaluate_start()
        if not progress.finished:  # for the time that is left, and for what is kept of a budget
            one = self.validator.estimate(self._member(self.stepper.net.eval()))
            self.evaluation_cost = one * len(self._candidates())
        while not (progress.finished or self.paused):
            try:
                if self._take_steps():
                    self._end_epoch()
            except NotFiniteError:
                self._go_back("the network's output was not a number in the evaluation")
            progress = self.progress  # another one after going back

    def _start(self) -> Stepper:
        own = {"fold": self.fold}
        own |= {key: self.record[key] for key in ("data_hash", "folds_hash")}
        return start_stepper(self.config, self.training, own, self.machine)

    def _take_steps(self) -> bool:
        """Take the steps that are left of the epoch; whether its end was reached."""
        self.sampler.epoch, self.sampler.start = self.progress.epoch, self.progress.step
        places = range(self.progress.step, len(self.sampler))
        batches = iter(self.loader)
        with self._bar() as bar:
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
                self._save_sometimes()
        return True

    def _bar(self) -> tqdm[Any]:
        epoch, total = self.progress.epoch + 1, len(self.sampler)
        hidden = None if self.first else True
        return tqdm(
            desc=f"epoch {epoch}", total=total, initial=self.progress.step,
            unit="step", disable=hidden, leave=False,
        )  # fmt: skip

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
            schedule=optim.schedule,
            peak=optim.peak_learning_rate,
            n_epochs=optim.n_epochs,
            steps_per_epoch=steps,
            warmup=optim.warmup,
        )
        return rate * self.progress.rate_factor

    def _must_stop(self) -> bool:
        """Whether time is up, after an evaluation and a save; raises when a signal has come."""
        wishes = float(self.signals.received > 0), float(self.budget.left < self._reserve())
        signalled, late = self.machine.ranks.sums(wishes)
        if signalled:
            self.signals.received = self.signals.received or signal.SIGTERM
            raise Interrupted
        if not late:
            return False
        self.paused = True
        if self.progress.step < len(self.sampler):
            self._end_early()
            return True
        return False  # the epoch is over: end it as always

    def _reserve(self) -> float:
        """Seconds to keep for the last evaluation and the last save."""
        return 1.2 * (self.evaluation_cost + self.save_cost)

    def _evaluate_start(self) -> None:
        """Score the start model as epoch 0: a training that ends below it is then seen for what it is."""
        self._record(0, {"epoch": 0} | EpochSums().row() | self._evaluate(0))

    def _end_early(self) -> None:
        """Evaluate inside an epoch, because time is up; its sums go on when the training does."""
        progress = self.progress
        position = progress.position(len(self.sampler))
        row = {"epoch": position} | progress.sums.row() | self._evaluate(position)
        self._record(position, row)

    def _end_epoch(self) -> None:
        progress, config = self.progress, self.config
        epoch = progress.epoch + 1
        over = epoch == config.optim.n_epochs
        row: dict[str, Any] = {"epoch": epoch} | progress.sums.row()
        row["learning_rate"] = self._rate(len(self.sampler) - 1)
        evaluated = epoch % config.eval_every == 0 or over or self.paused
        if evaluated:
            row |= self._evaluate(epoch)
        progress.epoch, progress.step, progress.sums = epoch, 0, EpochSums()
        if over:
            progress.finished = "epochs"
        elif config.optim.patience and progress.stale >= config.optim.patience:
            progress.finished = "patience"
        if evaluated:
            self._record(epoch, row)
        else:
            progress.history.append(self._with_columns(row))
            self.told.epoch(progress.history[-1])
        self._say(progress.history[-1])

    def _record(self, epoch: float, row: dict[str, Any]) -> None:
        """Keep the row of an evaluation, with the state and, if it is the best, the model."""
        self.progress.history.append(self._with_columns(row))
        self._save_state()
        if self.first and self.progress.best_epoch == epoch:
            self._save_best()
        self.told.evaluation(self.progress.history[-1], self.progress.evaluations)

    def _with_columns(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of the history in the order of its columns; what was not measured is nan."""
        best = self.progress.best_score if self.progress.evaluated else math.nan
        average = ["val_score_ema"] if self.config.optim.ema else []
        names = [
            "epoch", "train_loss", "train_flow_loss", "train_cellprob_loss", "grad_norm",
            "learning_rate", "skipped_steps", "val_loss", "val_score", *average,
            "best_score", "images_per_second", "seconds", "waited",
        ]  # fmt: skip
        return {name: ({"best_score": best} | row).get(name, math.nan) for name in names}

    def _evaluate(self, epoch: float) -> dict[str, float]:
        """Score the weights, and their moving average where there is one. All or nothing is kept."""
        started = time.monotonic()
        scores, rows = {}, []
        for weights, net in self._candidates().items():
            net.eval()
            kept = self.told.wanted() if weights == "net" else None
            found = self.validator.score(self._member(net), self.signals.check, kept)
            rows += [{"epoch": epoch, "weights": weights} | row for row in found]
            scores[weights] = mean_score(pd.DataFrame(found))
        loss = self.validator.loss(self.stepper.net)
        progress = self.progress
        progress.evaluations += rows
        better = [progress.consider(score, epoch, name) for name, score in scores.items()]
        progress.stale = 0 if any(better) else progress.stale + 1
        self.evaluation_cost = time.monotonic() - started
        names = {"net": "val_score", "ema": "val_score_ema"}
        return {"val_loss": loss} | {names[key]: score for key, score in scores.items()}

    def _candidates(self) -> dict[str, Network]:
        average = self.stepper.average
        return {"net": self.stepper.net} | ({"ema": average} if average is not None else {})

    def _member(self, net: Network) -> Member:
        model = self.config.model
        name = f"{self.run.name} fold {self.fold}"
        return Member(name, net, model.chan, model.chan2, self.diam_mean, self.diam_labels)

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
        self.stepper, self.progress = self._start(), Progress()
        for path in (self.files.good, self.files.last):
            state = load_state(path) if path.exists() else None
            if state is not None and not state["progress"]["skipped_in_a_row"]:
                self._load(state)
                break
        self.progress.rate_factor = LOWER
        where = self.progress.position(len(self.sampler))
        event = f"{what}; went back to epoch {where:g} and on at {LOWER:g} times the learning rate"
        self.progress.events.append(event)
        _log.warning("%s", event)
        self.machine.ranks.wait()  # until all have read the old state
        self._save_state()

    def _facts(self) -> dict[str, Any]:
        """What is stored with the model: how to use it, and where it comes from."""
        progress = self.progress
        return {
            "run": self.run.name,
            "fold": self.fold,
            "epoch": progress.best_epoch,
            "weights": progress.best_weights,
            "score": progress.best_score,
            "chan": self.config.model.chan,
            "chan2": self.config.model.chan2,
            "diam_mean": self.diam_mean,
            "diam_labels": self.diam_labels,
            "data_hash": self.record["data_hash"],
            "folds_hash": self.record["folds_hash"],
            "config_hash": hash_json(self.record["config"]),
            "amp": str(self.machine.amp).removeprefix("torch."),
            "events": progress.events,
            "versions": versions(),
        }

    def _save_best(self) -> None:
        net = self._candidates()[self.progress.best_weights]
        save_model_file(self.files.best, net, self._facts())
        self._copy_best()

    def _copy_best(self) -> None:
        copy_best(self.config, self.fold, self.files.best)

    def _save_sometimes(self) -> None:
        """Save the state now and then, never one that may be the cause of failing steps."""
        elapsed = time.monotonic() - self.saved_at
        due = elapsed >= self._save_interval()
        if due and not self.progress.skipped_in_a_row:
            self._save_state()

    def _save_interval(self) -> float:
        return max(SAVE_SECONDS, self.save_cost / SAVE_SHARE)

    def _save_state(self) -> None:
        """Save the last state, then the tables, so that a table never knows more than the state."""
        if not self.first:
            return
        started = time.monotonic()
        if self.progress.skipped_in_a_row:
            self._keep_good_state()
        state = self.stepper.state_dict()
        state |= {"progress": self.progress.to_dict(), "machine": self.machine.describe()}
        save_state(self.files.last, state)
        if not self.progress.skipped_in_a_row:
            self.files.good.unlink(missing_ok=True)
        self._write_tables()
        self.saved_at = time.monotonic()
        self.save_cost = self.saved_at - started

    def _keep_good_state(self) -> None:
        """Keep the last state from before steps began to fail, for the case that they go on failing."""
        if self.files.last.exists() and not self.files.good.exists():
            with atomic_path(self.files.good) as temporary:
                shutil.copyfile(self.files.last, temporary)

    def _write_tables(self) -> None:
        if self.progress.history:
            write_csv(self.files.history, pd.DataFrame(self.progress.history))
        if self.progress.evaluations:
            write_csv(self.files.evaluations, pd.DataFrame(self.progress.evaluations))

    def _resume(self) -> None:
        if self.first:
            remove_leftovers(self.files.path)
        if not self.files.last.exists():
            return
        try:
            state = load_state(self.files.last)
        except CheckpointError as error:
            raise CheckpointError(f"{error} {self._way_out()}") from None
        missing = [key for key in STATE_KEYS if key not in state]
        if missing:
            raise CheckpointError(
                f"{self.files.last} is no training state of cellflow: {missing[0]!r} is missing. Remove "
                f"{self.files.path} to train this fold anew."
            )
        self._load(state)
        if self.first:
            self._write_tables()
            self._recover_best()
            self._compare_machine(state["machine"])
        if not self.progress.finished:
            self._say_where("goes on")

    def _way_out(self) -> str:
        """What to do without a training state; the best model is worth more than a new start."""
        anew = f"To train this fold anew, remove {self.files.path}"
        with suppress(CheckpointError):
            load_model_file(self.files.best)
            return (
                f"The best model so far is whole in {self.files.best}: use it with --model, or go on from "
                f"it in another run: the same command with --name NEW --pretrained_model "
                f"{self.files.best}, and without --diam_mean. {anew} with that model, and repeat the command."
            )
        return f"{anew}, and repeat the command."

    def _load(self, state: dict[str, Any]) -> None:
        self.stepper.load_state_dict(state)
        progress = self.progress = Progress.from_dict(state["progress"])
        if progress.finished == "epochs" and progress.epoch < self.config.optim.n_epochs:
            progress.finished = ""  # the run was lengthened since

    def _recover_best(self) -> None:
        """Write the best model again when a kill came between the state and the model file."""
        progress = self.progress
        if not progress.evaluated:
            return
        there = self.files.best.exists() and load_model_file(self.files.best).facts
        if there and there.get("epoch") == progress.best_epoch:
            return
        if progress.best_epoch == progress.position(len(self.sampler)):
            self._save_best()
            return
        found = f"holds epoch {there.get('epoch')}" if there else "is gone"
        raise CheckpointError(
            f"{self.files.best} {found}, but {self.files.last} says that epoch {progress.best_epoch:g} "
            f"was the best. Put it back, or remove {self.files.path} to train this fold anew."
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

    def _close(self) -> None:
        """Leave the fold's folder as a reader wants to find it."""
        if not self.first:
            return
        self._copy_best()
        progress = self.progress
        summary = {
            "fold": self.fold,
            "finished": progress.finished,
            "epochs": progress.position(len(self.sampler)),
            "best_score": progress.best_score,
            "best_epoch": progress.best_epoch,
            "best_weights": progress.best_weights,
            "skipped_steps": self._skipped_steps(),
            "events": progress.events,
        }
        write_json(self.files.summary, summary)
        self._plot()
        if progress.finished:
            self.told.end(summary, self.files.best)
        if self.paused and not progress.finished:
            self._say_where("is out of time")

    def _skipped_steps(self) -> int:
        """Steps skipped in all epochs and the one under way; a row inside an epoch is part of the next."""
        rows = [row for row in self.progress.history if float(row["epoch"]).is_integer()]
        return int(sum(row["skipped_steps"] for row in rows)) + self.progress.sums.skipped

    def _plot(self) -> None:
        title = f"{self.run.name}, fold {self.fold}"
        try:
            plot_history(self.files.plot, pd.DataFrame(self.progress.history), title=title)
        except Exception as error:
            _log.warning("%s could not be drawn: %s", self.files.plot, error)

    def _say(self, row: dict[str, Any]) -> None:
        epochs = self.config.optim.n_epochs
        left = round(self._seconds_left(row))
        score = ""
        if not math.isnan(row["val_score"]):
            both = f" (average {row['val_score_ema']:.4f})" if "val_score_ema" in row else ""
            best = f"best {self.progress.best_score:.4f} at {self.progress.best_epoch:g}"
            score = f"  score {row['val_score']:.4f}{both}, {best}"
        _log.info(
            "fold %d  epoch %g/%d  loss %.4f  lr %.2g  %.1f images/s%s  left %d:%02d:%02d",
            self.fold, row["epoch"], epochs, row["train_loss"], row["learning_rate"],
            row["images_per_second"], score, left // 3600, left // 60 % 60, left % 60,
        )  # fmt: skip

    def _seconds_left(self, row: dict[str, Any]) -> float:
        interval = self._save_interval()
        share = self.save_cost / interval if interval else 0.0
        return seconds_left(
            row["epoch"],
            self.config.optim.n_epochs,
            eval_every=self.config.eval_every,
            epoch_seconds=row["seconds"] * (1 + share),
            evaluation_seconds=self.evaluation_cost + self.save_cost,
        )

    def _say_where(self, what: str) -> None:
        progress = self.progress
        _log.info(
            "fold %d %s after epoch %g of %d; everything is saved",
            self.fold, what, progress.position(len(self.sampler)), self.config.optim.n_epochs,
        )  # fmt: skip

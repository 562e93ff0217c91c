"""What is on disk of a fold's training: its last state, its best model, its tables."""

from __future__ import annotations

import logging
import shlex
import shutil
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pandas as pd

from cellflow.config import TrainConfig
from cellflow.engine.runs.identity import versions
from cellflow.engine.runs.sample_list import ids_hash
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.training.extra_images import target_facts
from cellflow.engine.training.fold_log import log_position
from cellflow.engine.training.fold_result import copy_best
from cellflow.engine.training.progress import Progress
from cellflow.errors import CheckpointError
from cellflow.nn.checkpoint import load_model_file, load_state, save_model_file, save_state
from cellflow.nn.step import Stepper
from cellflow.storage.atomic import atomic_path, remove_leftovers, write_csv, write_json
from cellflow.storage.hashing import hash_json
from cellflow.storage.leases import Lease
from cellflow.storage.run_folder import RunFolder

__all__ = ["FoldCheckpoint"]

SAVE_SECONDS = 30.0
"""Seconds of training between two states, at least; an evaluation always ends with one."""
SAVE_SHARE = 0.02
"""Largest part of the time that is spent on saving between evaluations."""

_log = logging.getLogger(__name__)


class FoldCheckpoint:
    """Writes and reads the training of a fold. All processes read, the first one writes.

    The state is written before the best model and before the tables: what it says is the best is then
    either in the model file or the state's own weights, and a table never knows more than the state.

    Parameters
    ----------
    config : TrainConfig
        Settings of the run.
    fold : int
        Fold that validates.
    run : RunFolder
        Run to write to.
    machine : Machine
        Where it is trained.
    trained_on : sequence of str
        Images that train.
    lease : Lease, optional
        On the fold. Nothing is written any more once another process has it.

    Attributes
    ----------
    origin : dict
        Fold, and hashes of data, folds, list of images and targets that models made: what the fold's models are
        trained on.
    seconds : float
        What the last save took.
    """

    def __init__(
        self,
        config: TrainConfig,
        fold: int,
        run: RunFolder,
        machine: Machine,
        *,
        trained_on: Sequence[str],
        lease: Lease | None = None,
    ):
        self._config, self._run, self._machine = config, run, machine
        self.files = run.fold(fold)
        identity = run.read_record()
        self.origin = {"fold": fold} | {key: identity[key] for key in ("data_hash", "folds_hash")}
        self.origin |= {"samples_hash": ids_hash(trained_on)}
        taught = target_facts(config, fold)
        self.origin |= {"targets": taught} if taught else {}
        self.origin |= {"final": True} if config.is_final else {}
        self._config_hash = hash_json(identity["config"])
        self._writes, self._lease = machine.ranks.first, lease
        self._saved_at, self.seconds = time.monotonic(), 0.0

    @property
    def interval(self) -> float:
        """Seconds of training between two states."""
        return max(SAVE_SECONDS, self.seconds / SAVE_SHARE)

    @property
    def share(self) -> float:
        """Part of the time of training steps that goes into saving between them."""
        return self.seconds / self.interval if self.interval else 0.0

    def save(self, stepper: Stepper, progress: Progress) -> None:
        """Save the last state, then the tables."""
        if not self._writes:
            return
        started = time.monotonic()
        self._check_lease()
        if progress.skipped_in_a_row:
            self._keep_good_state()
        state = stepper.state_dict()
        state |= {"progress": progress.to_dict(), "machine": self._machine.describe()}
        save_state(self.files.last, state)
        if not progress.skipped_in_a_row:
            self.files.good.unlink(missing_ok=True)
        self._write_tables(progress)
        self._saved_at = time.monotonic()
        self.seconds = self._saved_at - started

    def save_if_due(self, stepper: Stepper, progress: Progress) -> None:
        """Save the state now and then, never one that may be the cause of failing steps."""
        is_due = time.monotonic() - self._saved_at >= self.interval
        if is_due and not progress.skipped_in_a_row:
            self.save(stepper, progress)

    def save_best(self, stepper: Stepper, progress: Progress) -> None:
        """Save the weights that the last evaluation found the best."""
        if not self._writes:
            return
        self._check_lease()
        net = stepper.networks[progress.best_weights]
        save_model_file(self.files.best, net, self._facts(progress, net.diameters))
        copy_best(self._config, self.origin["fold"], self.files.best)

    def resume(self, stepper: Stepper) -> Progress | None:
        """Bring the last state into a stepper; None where there is none.

        Raises
        ------
        CheckpointError
            If the state or the best model cannot be used, with what to do.
        """
        if self._writes:
            remove_leftovers(self.files.path)
        if not self.files.last.exists():
            return None
        try:
            state = load_state(self.files.last)
        except CheckpointError as error:
            raise CheckpointError(f"{error} {self._way_out()}") from None
        try:
            progress = self._load(state, stepper)
            before = state["machine"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.files.last} is no training state of this cellflow ({error!r:.200}). "
                f"Remove {self.files.path} to train this fold anew.",
                path=self.files.last,
            ) from error
        if self._writes:
            self._write_tables(progress)
            self._restore_best(stepper, progress)
            self._compare_machine(before)
        if not progress.finished:
            log_position(
                self.origin["fold"], "goes on", progress, n_epochs=self._config.optim.n_epochs
            )
        return progress

    def go_back(self, stepper: Stepper) -> Progress | None:
        """Bring the last state from before steps began to fail into a stepper; None where there is none."""
        for path in (self.files.good, self.files.last):
            state = load_state(path) if path.exists() else None
            if state is not None and not state["progress"]["skipped_in_a_row"]:
                return self._load(state, stepper)
        return None

    def finish(self, progress: Progress) -> dict[str, Any]:
        """Leave the fold's folder as a reader wants to find it; gives the summary."""
        summary = {
            "fold": self.origin["fold"],
            "finished": progress.finished,
            "epochs": progress.position,
            "best_score": progress.best_score,
            "select_metric": self._config.select_metric,
            "best_value": progress.best_value,
            "best_epoch": progress.best_epoch,
            "best_weights": progress.best_weights,
            "skipped_steps": progress.all_skipped,
            "events": progress.events,
            "machine": self._machine.describe() | {"hostname": socket.gethostname()},
        }
        if self._writes:
            self._check_lease()
            copy_best(self._config, self.origin["fold"], self.files.best)
            write_json(self.files.summary, summary)
        return summary

    def _check_lease(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _load(self, state: dict[str, Any], stepper: Stepper) -> Progress:
        stepper.load_state_dict(state)
        progress = Progress.from_dict(state["progress"])
        if progress.finished == "epochs" and progress.epoch < self._config.optim.n_epochs:
            progress.finished = ""  # the run was lengthened since
        return progress

    def _facts(self, progress: Progress, diameters: tuple[float, float]) -> dict[str, Any]:
        """What is stored with the model: how to use it, and where it comes from."""
        return {
            "run": self._run.name,
            "epoch": progress.best_epoch,
            "weights": progress.best_weights,
            "score": progress.best_score,
            "select_metric": self._config.select_metric,
            "chan": self._config.model.channels[0],
            "chan2": self._config.model.channels[1],
            "diam_mean": diameters[0],
            "diam_labels": diameters[1],
            **self.origin,
            "config_hash": self._config_hash,
            "amp": str(self._machine.amp).removeprefix("torch."),
            "events": progress.events,
            "versions": versions(),
        }

    def _keep_good_state(self) -> None:
        """Keep the last state from before steps began to fail: they may go on failing."""
        if self.files.last.exists() and not self.files.good.exists():
            with atomic_path(self.files.good) as temporary:
                shutil.copyfile(self.files.last, temporary)

    def _write_tables(self, progress: Progress) -> None:
        if progress.history:
            write_csv(self.files.history, progress.history_table())
        if progress.evaluations:
            write_csv(self.files.evaluations, pd.DataFrame(progress.evaluations))

    def _restore_best(self, stepper: Stepper, progress: Progress) -> None:
        """Write the best model again when a kill came between the state and the model file."""
        if not progress.evaluated:
            return
        facts = self.files.best.exists() and load_model_file(self.files.best).facts
        if facts and facts.get("epoch") == progress.best_epoch:
            return
        if progress.best_epoch == progress.position:
            self.save_best(stepper, progress)
            return
        state_of_file = f"holds epoch {facts.get('epoch')}" if facts else "is gone"
        raise CheckpointError(
            f"{self.files.best} {state_of_file}, but {self.files.last} says that epoch "
            f"{progress.best_epoch:g} was the best. Put it back, or remove {self.files.path} to train this "
            "fold anew.",
            path=self.files.best,
        )

    def _way_out(self) -> str:
        """What to do without a training state; the best model is worth more than a new start."""
        anew = f"To train this fold anew, remove {self.files.path}"
        with suppress(CheckpointError):
            load_model_file(self.files.best)
            return (
                f"The best model so far is whole in {self.files.best}: use it with --model, or go on from "
                f"it in another run: the same command with --name NEW --pretrained_model "
                f"{shlex.quote(str(self.files.best))}, and without --diam_mean. {anew} with that model, and "
                "repeat the command."
            )
        return f"{anew}, and repeat the command."

    def _compare_machine(self, before: dict[str, str | int]) -> None:
        now = self._machine.describe()
        changes = [
            f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]
        ]
        if changes:
            _log.warning(
                "fold %d goes on with other settings than it was started with (%s): the result will not "
                "be bit for bit what it would have been",
                self.origin["fold"], ", ".join(changes),
            )  # fmt: skip

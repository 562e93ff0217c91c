"""A run that is to train longer than it was started for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from cellflow.config import OptimConfig, chosen
from cellflow.engine.runs.run_records import read_fold_summary
from cellflow.nn.checkpoint import load_state
from cellflow.nn.optim import same_rates
from cellflow.storage.atomic import write_json
from cellflow.storage.hashing import hash_json
from cellflow.storage.locks import hold_lock
from cellflow.storage.records import number_or_none, read_json
from cellflow.storage.run_folder import FoldFolder, RunFolder

__all__ = ["check_length", "is_of_length", "lengthen", "warmup_at"]

_LENGTH = {"optim.n_epochs", "optim.warmup"}
"""Settings that change where a run is lengthened."""


def warmup_at(share: float | None, before: int, after: int) -> float | None:
    """The warm-up of a run that is lengthened: a share of more epochs, it takes as many of them as before."""
    return round(share * before / after, 12) if share and before < after else share


def is_of_length(changes: Sequence[str]) -> bool:
    """Whether lines of `config_differences` are of nothing but the number of epochs, and the share of the warm-up."""
    names = {line.partition(":")[0] for line in changes}
    return "optim.n_epochs" in names and names <= _LENGTH


def check_length(run: RunFolder, optim: OptimConfig, before: Mapping[str, Any]) -> str:
    """Why a run cannot go on to another last epoch; empty where it can.

    It can where the new length gives every epoch that any of its folds has trained the learning rates it
    had: what comes out is then what a run of the new length and the same settings would have given. The schedules
    cellpose and step are alike for all lengths up to 100 epochs and, up to the halvings, for longer ones; constant
    whose warm-up takes as many epochs is alike for all; cosine for none. `optim` has the new length; `before` is the
    same part of the run's record.
    """
    trained, n_epochs = _trained(run), before["n_epochs"]
    if optim.n_epochs < n_epochs:
        done = max((epochs for _, epochs, _ in trained), default=0)
        return (
            f"a run is not shortened: it was started for {n_epochs} epochs, and {done} are trained"
        )
    for fold, epochs, has_state in trained:
        if not has_state:
            return (
                f"fold {fold} cannot go on: its training state is gone, as cellflow prune leaves it"
            )
        alike = same_rates(
            epochs, n_epochs, optim.n_epochs,
            schedule=chosen(optim.schedule), peak=optim.peak_learning_rate,
            warmup=(number_or_none(before.get("warmup")), optim.warmup),
        )  # fmt: skip
        if not alike:
            return (
                f"fold {fold} has trained {epochs} epochs with learning rates that the schedule {optim.schedule}"
                f"{f' with --warmup {optim.warmup}' if optim.warmup else ''} gives a run of {n_epochs} epochs; one of "
                f"{optim.n_epochs} has others"
            )
    return ""


def lengthen(run: RunFolder, config: Mapping[str, Any]) -> None:
    """Write into a run that it goes on with a config of more epochs.

    Folds that had come to their last epoch are unfinished then. The record keeps the hash of the former
    config, which their best models bear until a later epoch is better.
    """
    with ExitStack() as locks:
        for files in run.fold_folders():  # a fold that is being trained would not notice
            locks.enter_context(hold_lock(files.lock, f"{files.path.name} of run {run.name!r}"))
        record = run.read_record()
        # Before the record: where a kill comes between, the next training writes the summaries again.
        for files in run.fold_folders():
            _reopen(files)
        former = {
            "n_epochs": record["config"]["optim"]["n_epochs"],
            "config_hash": hash_json(record["config"]),
        }
        lengthened = [*(record.get("lengthened") or ()), former]
        run.write_record(record | {"config": dict(config), "lengthened": lengthened})


def _trained(run: RunFolder) -> list[tuple[int, int, bool]]:
    """Folds that have something left: their numbers, epochs that were begun, and whether they can go on."""
    found = []
    for files in run.fold_folders():
        fold = int(files.path.name.removeprefix("fold_"))
        if files.last.exists():
            progress = load_state(files.last)["progress"]
            found.append((fold, progress["epoch"] + (progress["step"] > 0), True))
        elif files.best.exists():
            found.append((fold, math.ceil(read_fold_summary(files).epochs or 0), False))
    return found


def _reopen(files: FoldFolder) -> None:
    """A fold that had come to its last epoch is unfinished; one that patience ended stays so."""
    summary = read_json(files.summary) or {}
    if summary.get("finished") == "epochs":
        write_json(files.summary, summary | {"finished": ""})

"""Trainings and what they would take, as `cellflow train` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from cellflow.config.metrics import SELECT_NAMES
from cellflow.report.text.table import named_lines
from cellflow.storage.sizes import duration_text

__all__ = ["TIME_IS_UP", "final_training_text", "training_plan_text", "training_text"]

TIME_IS_UP = "Time is up. The same command goes on."


class Fold(Protocol):
    """What came of the training of a fold."""

    @property
    def fold(self) -> int: ...
    @property
    def best_score(self) -> float: ...
    @property
    def best_epoch(self) -> float: ...
    @property
    def finished(self) -> str: ...
    @property
    def select_metric(self) -> str: ...
    @property
    def best_value(self) -> float: ...


def training_text(folds: Sequence[Fold]) -> str:
    """The best score of every fold, and whether anything is left."""
    lines = []
    for fold in folds:
        hint = (
            "" if fold.best_score else " (nothing was found: too short a training, or other cells?)"
        )
        best = f"best score {fold.best_score:.4f} at epoch {fold.best_epoch:g}"
        if fold.select_metric != "competition":
            name = SELECT_NAMES[fold.select_metric]
            best = f"best {name} {fold.best_value:.4f} at epoch {fold.best_epoch:g}"
            best += f", where the score is {fold.best_score:.4f}"
        lines.append(f"fold {fold.fold}: {best}{hint}")
    lost = [str(fold.fold) for fold in folds if fold.finished and fold.best_epoch == 0]
    if lost:
        lines.append(
            f"No epoch of fold {', '.join(lost)} beat the model that it started from, which is kept. Try a lower "
            "--learning_rate (a tenth), or more --n_epochs, under another --name."
        )
    if not all(fold.finished for fold in folds):
        lines.append(TIME_IS_UP)
    return "\n".join(lines)


def final_training_text(
    folds: Sequence[Fold], vouching: str | None, *, complete: bool = True, instead: str
) -> str:
    """How the training of one network on all images ended, and which run, if any, has the score that stands for it.

    `complete` says whether all folds of that run are trained, `instead` how to get a score where there is none.
    """
    (fold,) = folds
    if not fold.finished:
        return TIME_IS_UP
    whose = f"the folds of run {vouching} vouch for it"
    if vouching is not None and not complete:
        whose = f"the folds of run {vouching} are to vouch for it, and not all are trained yet"
    if vouching is None:
        whose = f"for a score {instead}"
    return (
        f"One network on all images, as it is after epoch {fold.best_epoch:g}. No image is left to score it on: "
        f"{whose}."
    )


def training_plan_text(plan: Any) -> str:
    """What a training would take, by its `TrainingPlan`: steps, time, memory, disk."""
    steps, total = plan.steps_per_epoch * plan.epochs, plan.fold_seconds * len(plan.folds)
    folds = ", ".join(map(str, plan.folds))
    return named_lines(
        {
            "folds": f"{folds}; in fold {plan.folds[0]}, {plan.training} images train, "
            f"{plan.validation} validate",
            "length": f"{plan.epochs} epochs of {plan.steps_per_epoch} steps: {steps} steps and "
            f"{plan.evaluations} evaluations a fold",
            "machine": plan.machine.replace("amp None", "float32"),
            "step": f"{plan.step_seconds:.2f} s with {plan.crop_seconds:.3f} s of processor time for crops",
            "evaluation": duration_text(plan.evaluation_seconds),
            "memory": f"{plan.memory_bytes / 2**30:.1f} GiB at most",
            "disk": f"{(plan.state_bytes * len(plan.folds)) / 2**20:.0f} MiB of states",
            "time": f"{duration_text(plan.fold_seconds)} a fold, {duration_text(total)} one after the other",
            "picture": str(plan.picture),
        }
    )

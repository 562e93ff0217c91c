"""How far the training of a fold has come: what a resumed training needs besides the weights."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pandas as pd

from cellflow.nn.step import StepResult
from cellflow.report.history import HISTORY_COLUMNS

__all__ = ["SCORE_COLUMNS", "EpochSums", "Progress", "seconds_left", "value_column"]


SCORE_COLUMNS = {"net": "val_score", "ema": "val_score_ema"}
"""Column of the history for the score of the weights, and of their moving average."""


def value_column(metric: str, weights: str) -> str:
    """Column of the history for what selects, where that is not the score."""
    return SCORE_COLUMNS[weights].replace("score", metric)


def seconds_left(
    epoch: int, epochs: int, *, eval_every: int, epoch_seconds: float, evaluation_seconds: float
) -> float:
    """Seconds until a fold is complete: its steps, and its evaluations, of which the last epoch has one too.

    Parameters
    ----------
    epoch, epochs : int
        Epochs that are done, and that there will be.
    eval_every : int
        Epochs between evaluations.
    epoch_seconds, evaluation_seconds : float
        What an epoch and an evaluation take, each with the saving that goes with it.
    """
    evaluations = epochs // eval_every - epoch // eval_every + (epochs % eval_every > 0)
    if epoch >= epochs:
        return 0.0
    return (epochs - epoch) * epoch_seconds + evaluations * evaluation_seconds


@dataclass
class EpochSums:
    """Sums over the steps of the epoch under way.

    Attributes
    ----------
    crops, steps, skipped : int
        Crops and steps that counted, and steps skipped because they were not finite.
    loss : float
        Loss times crops.
    terms : dict of float
        Its terms by name, times crops.
    grad_norm : float
        Gradient norms.
    seconds, waited : float
        Time for the steps, and the part of it spent on waiting for crops.
    """

    crops: int = 0
    steps: int = 0
    skipped: int = 0
    loss: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)
    grad_norm: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, result: StepResult, crops: int) -> None:
        """Count a step."""
        if not result.taken:
            self.skipped += 1
            return
        self.crops += crops
        self.steps += 1
        self.loss += result.loss * crops
        for name, value in result.terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value * crops
        self.grad_norm += result.grad_norm

    def row(self) -> dict[str, float]:
        """Means over the epoch, as columns of the history; nan where no step counted."""
        crops, steps = self.crops or math.nan, self.steps or math.nan
        return {
            "train_loss": self.loss / crops,
            **{f"train_{name}_loss": value / crops for name, value in self.terms.items()},
            "grad_norm": self.grad_norm / steps,
            "skipped_steps": self.skipped,
            "images_per_second": self.crops / self.seconds if self.seconds else math.nan,
            "seconds": self.seconds,
            "waited": self.waited,
        }


@dataclass
class Progress:
    """Where a training stands.

    Attributes
    ----------
    steps_per_epoch : int
        Steps of a whole epoch.
    epoch, step : int
        Epochs that are complete, and steps done in the one under way.
    sums : EpochSums
        Of the epoch under way.
    best_score, best_epoch, best_weights
        Best evaluation so far: competition score, epoch, and whether the weights themselves ("net") or
        their moving average ("ema") reached it. `best_score` is -1 before the first.
    best_value : float
        What makes it the best: the metric that selects, which is the score unless another was asked for.
    stale : int
        Evaluations since then.
    skipped_in_a_row : int
        Steps that were not finite, one after the other.
    rate_factor : float
        Factor on the learning rate; below 1 once the training had to go back.
    finished : str
        Why the training is complete; empty while it is not.
    events : list of str
        What happened that a reader of the result should know.
    history, evaluations : list of dict
        Rows of ``history.csv`` and ``evaluations.csv``.
    """

    steps_per_epoch: int
    epoch: int = 0
    step: int = 0
    sums: EpochSums = field(default_factory=EpochSums)
    best_score: float = -1.0
    best_value: float = -1.0
    best_epoch: float = 0
    best_weights: str = "net"
    stale: int = 0
    skipped_in_a_row: int = 0
    rate_factor: float = 1.0
    finished: str = ""
    events: list[str] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)

    @property
    def evaluated(self) -> bool:
        """Whether there is a best score yet."""
        return self.best_score >= 0

    @property
    def position(self) -> float:
        """Epochs done, with the part of the one under way; a whole number is an int."""
        if not self.step:
            return self.epoch
        return round(self.epoch + self.step / self.steps_per_epoch, 4)

    @property
    def all_skipped(self) -> int:
        """Steps skipped in all epochs and the one under way; a row inside an epoch is part of the next."""
        rows = [row for row in self.history if float(row["epoch"]).is_integer()]
        return int(sum(row["skipped_steps"] for row in rows)) + self.sums.skipped

    def keep(self, epoch: float, row: dict[str, float], *, with_average: bool) -> None:
        """Add a row to the history; what was not measured is nan."""
        unknown = dict.fromkeys(HISTORY_COLUMNS, math.nan)
        if not with_average:
            del unknown[SCORE_COLUMNS["ema"]]
        best = self.best_score if self.evaluated else math.nan
        self.history.append(unknown | {"epoch": epoch, "best_score": best} | row)

    def history_table(self) -> pd.DataFrame:
        """The history, with the terms of the loss beside the loss."""
        table = pd.DataFrame(self.history)
        others = [name for name in table if name not in HISTORY_COLUMNS]
        selected = [name for name in others if str(name).startswith("val_")]
        terms = [name for name in others if name not in selected]
        order = [*HISTORY_COLUMNS[:2], *terms, *HISTORY_COLUMNS[2:], *selected]
        return table[[name for name in order if name in table]]

    def consider(
        self, score: float, epoch: float, weights: str, value: float | None = None
    ) -> bool:
        """Take an evaluation for the best one if its value, or else its score, is; a tie keeps the earlier."""
        value = score if value is None else value
        better = value > self.best_value
        if better:
            self.best_score, self.best_epoch, self.best_weights = score, epoch, weights
            self.best_value = value
        return better

    def take(self, score: float, epoch: float, weights: str, value: float) -> None:
        """Take an evaluation whatever came before."""
        self.best_value = -1.0
        self.consider(score, epoch, weights, value)

    def to_dict(self) -> dict[str, Any]:
        """Python primitives only."""
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        return plain | {"sums": asdict(self.sums)}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Progress:
        """The progress that `to_dict` gave."""
        before = {
            "best_value": plain["best_score"]
        }  # of a state from when the score alone selected
        return cls(**(before | plain | {"sums": EpochSums(**plain["sums"])}))

"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

__all__ = ["cellpose_schedule", "learning_rate_at", "make_optimizer", "same_rates"]

WARMUP = {"cosine": 0.05, "constant": 0.0}
"""Share of the steps over which a schedule rises, unless another is given."""
MOMENTUM = 0.9
FINAL = 0.01
"""Share of the peak at which the cosine schedule ends."""


def make_optimizer(
    net: nn.Module,
    name: Literal["sgd", "adamw"],
    *,
    weight_decay: float,
    momentum: float | None = None,
) -> torch.optim.Optimizer:
    """SGD with momentum (0.9 unless another is given), or AdamW, over the parameters that are trained."""
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if name == "sgd":
        momentum = MOMENTUM if momentum is None else momentum
        return torch.optim.SGD(parameters, lr=0.0, momentum=momentum, weight_decay=weight_decay)
    return torch.optim.AdamW(parameters, lr=0.0, weight_decay=weight_decay)


def learning_rate_at(
    step: int,
    *,
    schedule: str,
    peak: float,
    n_epochs: int,
    steps_per_epoch: int,
    warmup: float | None = None,
) -> float:
    """Learning rate of a step, counted from 0 over the whole training.

    Parameters
    ----------
    step : int
        Step, counted over all epochs.
    schedule : {"cellpose", "step", "cosine", "constant"}
        Shape. The first two change once an epoch, the others every step.
    peak : float
        Highest learning rate.
    n_epochs, steps_per_epoch : int
        Length of the training.
    warmup : float or None
        Share of the steps over which cosine and constant rise; None takes `WARMUP`.
    """
    if schedule in ("cellpose", "step"):
        rates = cellpose_schedule(n_epochs, peak, from_zero=schedule == "cellpose")
        return float(rates[step // steps_per_epoch])
    total = n_epochs * steps_per_epoch
    rise = _rise(schedule, warmup, total)
    if step < rise:
        return peak * (step + 1) / rise
    if schedule == "constant":
        return peak
    progress = (step - rise) / max(1, total - rise)
    return peak * (FINAL + (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * progress)))


def same_rates(
    epochs: int,
    before: int,
    after: int,
    *,
    schedule: str,
    peak: float,
    warmup: tuple[float | None, float | None] = (None, None),
) -> bool:
    """Whether the first epochs of trainings of two lengths have the same learning rates in every step.

    Parameters
    ----------
    epochs : int
        How many of the first, at most as many as each training has.
    before, after : int
        Epochs of the two trainings.
    schedule, peak
        As in `learning_rate_at`.
    warmup : tuple of float or None
        That of each.
    """
    if not epochs or before == after:
        return True
    if schedule in ("cellpose", "step"):
        first, second = (cellpose_schedule(length, peak)[:epochs] for length in (before, after))
        return bool(np.array_equal(first, second))
    # The others rise over a share of all steps, and cosine falls over the rest.
    rises = [
        _share(schedule, share) * length
        for share, length in zip(warmup, (before, after), strict=True)
    ]
    return schedule == "constant" and math.isclose(*rises, abs_tol=1e-9)


def _share(schedule: str, warmup: float | None) -> float:
    return WARMUP[schedule] if warmup is None else warmup


def _rise(schedule: str, warmup: float | None, total: int) -> int:
    """Steps over which a training rises; the same for shares of two lengths that differ by rounding only."""
    return math.floor(_share(schedule, warmup) * total + 0.5 + 1e-6)


def cellpose_schedule(n_epochs: int, peak: float, *, from_zero: bool = True) -> NDArray[np.float64]:
    """Learning rate of every epoch, as ``cellpose.train.train_seg`` sets it.

    Rises in a line from 0 at epoch 0 to the peak at epoch 9; or, not `from_zero`, from a tenth of the
    peak, so that the first epoch is not lost. In trainings of more than 300 (100)
    epochs it halves every 10 (5) epochs over the last 100 (50).
    """
    rise = np.linspace(0, peak, 10) if from_zero else np.linspace(0, peak, 11)[1:]
    rates = np.concatenate([rise, np.full(max(0, n_epochs - 10), peak)])
    if n_epochs > 100:
        length = 10 if n_epochs > 300 else 5
        halving = rates[-10 * length - 1] * 0.5 ** np.repeat(np.arange(1, 11), length)
        rates = np.concatenate([rates[: -10 * length], halving])
    return np.asarray(rates[:n_epochs], dtype=np.float64)

"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

__all__ = ["cellpose_schedule", "learning_rate_at", "make_optimizer"]

WARM_UP = 0.05
"""Share of the steps over which the cosine schedule rises."""
FINAL = 0.01
"""Share of the peak at which the cosine schedule ends."""


def make_optimizer(
    net: nn.Module, name: str, *, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW, over the parameters that are trained."""
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=0.0, momentum=momentum, weight_decay=weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=0.0, weight_decay=weight_decay)
    raise ValueError(f"unknown optimizer {name!r}; expected sgd or adamw")


def learning_rate_at(
    step: int, *, schedule: str, peak: float, n_epochs: int, steps_per_epoch: int
) -> float:
    """Learning rate of a step, counted from 0 over the whole training.

    Parameters
    ----------
    step : int
        Step, counted over all epochs.
    schedule : {"cellpose", "cosine", "constant"}
        Shape. Cellpose's changes once an epoch, cosine every step.
    peak : float
        Highest learning rate.
    n_epochs, steps_per_epoch : int
        Length of the training.
    """
    if schedule == "constant":
        return peak
    if schedule == "cellpose":
        return float(cellpose_schedule(n_epochs, peak)[step // steps_per_epoch])
    if schedule != "cosine":
        raise ValueError(f"unknown schedule {schedule!r}; expected cellpose, cosine or constant")
    total = n_epochs * steps_per_epoch
    rise = max(1, round(WARM_UP * total))
    if step < rise:
        return peak * (step + 1) / rise
    progress = (step - rise) / max(1, total - rise)
    return peak * (FINAL + (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * progress)))


def cellpose_schedule(n_epochs: int, peak: float) -> NDArray[np.float64]:
    """Learning rate of every epoch, as ``cellpose.train.train_seg`` sets it.

    Rises in a line from 0 at epoch 0 to the peak at epoch 9. In trainings of more than 300 (100)
    epochs it halves every 10 (5) epochs over the last 100 (50).
    """
    rates = np.concatenate([np.linspace(0, peak, 10), np.full(max(0, n_epochs - 10), peak)])
    if n_epochs > 100:
        length = 10 if n_epochs > 300 else 5
        halving = rates[-10 * length - 1] * 0.5 ** np.repeat(np.arange(1, 11), length)
        rates = np.concatenate([rates[: -10 * length], halving])
    return np.asarray(rates[:n_epochs], dtype=np.float64)

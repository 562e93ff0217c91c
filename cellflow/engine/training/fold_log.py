"""What a person sees of the training of a fold: its progress bar and the lines of its log."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from cellflow.engine.training.progress import Progress
from cellflow.report.history import HISTORY_COLUMNS

__all__ = ["log_epoch", "log_position", "step_bar"]

_log = logging.getLogger(__name__)


def step_bar(progress: Progress, *, hidden: bool) -> tqdm[Any]:
    """Bar over the steps of the epoch under way; only on a terminal."""
    return tqdm(
        desc=f"epoch {progress.epoch + 1}", total=progress.steps_per_epoch, initial=progress.step,
        unit="step", disable=hidden or None, leave=False,
    )  # fmt: skip


def log_epoch(fold: int, progress: Progress, *, n_epochs: int, seconds_left: float) -> None:
    """A line about the last row of the history."""
    row, left, score = progress.history[-1], round(seconds_left), ""
    if not math.isnan(row["val_score"]):
        both = f" (average {row['val_score_ema']:.4f})" if "val_score_ema" in row else ""
        best = f"best {progress.best_score:.4f} at {progress.best_epoch:g}"
        score = f"  score {row['val_score']:.4f}{both}, {best}{_selected(row, progress)}"
    _log.info(
        "fold %d  epoch %g/%d  loss %.4f  lr %.2g  %.1f images/s%s  left %d:%02d:%02d",
        fold, row["epoch"], n_epochs, row["train_loss"], row["learning_rate"],
        row["images_per_second"], score, left // 3600, left // 60 % 60, left % 60,
    )  # fmt: skip


def _selected(row: Mapping[str, float], progress: Progress) -> str:
    """What chooses the best model, where that is not the score."""
    names = [name for name in row if name.startswith("val_") and name not in HISTORY_COLUMNS]
    if not names:
        return ""
    values = ", ".join(f"{name.removeprefix('val_')} {row[name]:.4f}" for name in names)
    return f", chosen by {values}, best {progress.best_value:.4f}"


def log_position(fold: int, what: str, progress: Progress, *, n_epochs: int) -> None:
    """A line about where a training stops or goes on."""
    _log.info(
        "fold %d %s after epoch %g of %d; everything is saved",
        fold, what, progress.position, n_epochs,
    )  # fmt: skip

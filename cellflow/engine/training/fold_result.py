"""What came out of the training of a fold, and what is on disk of it."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from cellflow.config import TrainConfig
from cellflow.engine.runs.run_records import read_fold_summary
from cellflow.engine.training.progress import Progress
from cellflow.storage.atomic import atomic_path
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import FoldFolder
from cellflow.types import one_line

__all__ = ["FoldResult", "copy_best", "finished_without_state"]


@one_line
@dataclass(frozen=True)
class FoldResult:
    """What came out of a fold's training.

    `finished` says why it is complete ("epochs", "patience"); it is empty where time ran out before.
    `best_value` is what `select_metric` gave the best model, which is its score where that selects.
    """

    fold: int
    best_score: float
    best_epoch: float
    epochs: float
    finished: str
    select_metric: str = "competition"
    best_value: float = math.nan

    @classmethod
    def of(cls, fold: int, progress: Progress, select_metric: str) -> FoldResult:
        """Result of a training that has come so far."""
        return cls(
            fold,
            progress.best_score,
            progress.best_epoch,
            progress.position,
            progress.finished,
            select_metric,
            progress.best_value,
        )


def finished_without_state(
    fold: int, files: FoldFolder, select_metric: str = "competition"
) -> FoldResult | None:
    """Result of a fold that was trained to its end and has its model, but no state any more."""
    if files.last.exists() or not files.best.exists():
        return None
    summary = read_fold_summary(files)
    score, best_epoch, epochs = summary.best_score, summary.best_epoch, summary.epochs
    if not summary.finished or score is None or best_epoch is None or epochs is None:
        return None
    value = score if summary.best_value is None else summary.best_value
    return FoldResult(fold, score, best_epoch, epochs, summary.finished, select_metric, value)


def copy_best(config: TrainConfig, fold: int, best: Path) -> None:
    """Copy a fold's best model to --savedir, unless it is there."""
    if config.savedir is None or not best.exists():
        return
    goal = config.savedir / f"{config.name}_fold_{fold}.pt"
    if not goal.exists() or hash_file(goal) != hash_file(best):
        with atomic_path(goal) as temporary:
            shutil.copyfile(best, temporary)

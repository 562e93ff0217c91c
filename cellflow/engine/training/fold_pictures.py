"""Pictures of a fold that is being trained: its curves, and validation images with their cells."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.engine.segmentation.scoring import Seen
from cellflow.engine.training.examples import choose_examples, types_of
from cellflow.engine.training.progress import Progress
from cellflow.engine.training.validator import Validator
from cellflow.io.dataset import Dataset
from cellflow.report.history import plot_history
from cellflow.report.mosaic import MAX_TILES, Tile, TilePair, write_mosaic
from cellflow.storage.run_folder import RunFolder

__all__ = ["FoldPictures"]

SHARE = 0.02
"""Largest part of the time that pictures between evaluations may bring drawing to."""

_log = logging.getLogger(__name__)


class FoldPictures:
    """Draws how the training of a fold goes; what cannot be drawn is told once and stops nothing.

    The curves are drawn at the first epoch, at every evaluation and at the end, and at each epoch between
    as long as all drawing takes no more than `SHARE` of the time. The images at every evaluation are always
    the same ones.

    Parameters
    ----------
    run : RunFolder
        Run to write to.
    fold : int
        The fold.
    dataset : Dataset
        Its images.
    validator : Validator
        What segments the validation images. The first process draws, and shows those of its share.
    """

    def __init__(self, run: RunFolder, fold: int, dataset: Dataset, validator: Validator) -> None:
        self._files, self._title = run.fold(fold), f"{run.name}, fold {fold}"
        self._dataset, self._types = dataset, types_of(dataset)
        self._draws = validator.machine.ranks.first
        share = validator.share if self._draws else ()
        self._shown = choose_examples(dataset, share, MAX_TILES)
        self._tiles: dict[str, Tile] = {}
        self._pairs: dict[str, dict[str, TilePair]] = {}
        self._told: set[Path] = set()
        self._started, self._spent, self._last = time.monotonic(), 0.0, 0.0

    def epoch(self, progress: Progress) -> None:
        """Draw the curves after an epoch, unless that costs too much."""
        passed = time.monotonic() - self._started
        if not self._last or self._spent + self._last <= SHARE * passed:
            self.curves(progress)

    def curves(self, progress: Progress) -> None:
        """Draw the curves."""
        if not (self._draws and progress.history):
            return
        before = self._spent
        with self._drawing(self._files.plot):
            plot_history(self._files.plot, progress.history_table(), title=self._title)
        self._last = self._spent - before

    def watch(self, weights: str) -> Seen:
        """What an evaluation of these weights tells of its images."""

        def see(name: str, labels: NDArray[np.int32], row: Mapping[str, Any]) -> None:
            if name in self._shown:
                with self._drawing(self._files.predicted_batch):
                    pairs = self._pairs.setdefault(weights, {})
                    pairs[name] = self._tile(name).compare(labels, row["score"])

        return see

    def evaluation(self, epoch: float, weights: str, score: float) -> None:
        """Draw the validation images as these weights predict them, which reach this mean score."""
        pairs, self._pairs = self._pairs.get(weights, {}), {}
        shown = [pairs[name] for name in self._shown if name in pairs]
        if not shown:
            return
        average = ", moving average of the weights" if weights == "ema" else ""
        title = f"{self._title}, epoch {epoch:g}{average}"
        files = self._files
        with self._drawing(files.true_batch):
            write_mosaic(files.true_batch, shown, title=f"{title}: truth", predicted=False)
        title = f"{title}: prediction (score of all validation images {score:.4f})"
        with self._drawing(files.predicted_batch):
            write_mosaic(files.predicted_batch, shown, title=title, predicted=True)

    def _tile(self, name: str) -> Tile:
        if name not in self._tiles:
            image, truth = self._dataset.image(name), self._dataset.instances(name)
            self._tiles[name] = Tile.of(name, image, truth, self._types.get(name, ""))
        return self._tiles[name]

    @contextmanager
    def _drawing(self, path: Path) -> Iterator[None]:
        """Count the time; tell of a failure once for each file."""
        started = time.monotonic()
        try:
            yield
        except Exception as error:
            if path not in self._told:
                _log.warning("%s could not be drawn: %s", path, error)
            self._told.add(path)
        finally:
            self._spent += time.monotonic() - started

"""What the trackers get of the training of a fold."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.config import TrainConfig, config_to_dict
from cellflow.engine.training.examples import choose_examples, types_of
from cellflow.io.dataset import Dataset
from cellflow.report.overlays import draw_outlines
from cellflow.storage.records import read_json
from cellflow.storage.run_folder import RunFolder
from cellflow.tracking import Trackers

__all__ = ["FoldTracking"]

_log = logging.getLogger(__name__)

EXAMPLES = 3
"""Validation images whose outlines are shown, of as many cell types as there are."""


class FoldTracking:
    """Hands trackers how the training of a fold goes; does nothing where there are none.

    Parameters
    ----------
    trackers : Trackers
        Where the fold is tracked.
    fold : int
        The fold.
    dataset : Dataset
        Its images.
    validation : sequence of str
        Ids of the images that validate.
    """

    def __init__(
        self, trackers: Trackers, fold: int, dataset: Dataset, validation: Sequence[str]
    ) -> None:
        self._trackers, self._fold, self._dataset = trackers, fold, dataset
        self._validation = tuple(validation)
        wants = trackers.takes_pictures
        self._wanted = choose_examples(dataset, validation, EXAMPLES) if wants else []
        self._examples: dict[str, NDArray[np.int32]] = {}

    def start(self, config: TrainConfig, run: RunFolder, training: int, network: str) -> None:
        """The fold starts or goes on, with so many training images and a network of that title."""
        if not self._trackers:
            return
        host, record = read_json(run.environment) or {}, run.read_record()
        self._trackers.start_fold(
            self._fold,
            {
                "experiment": run.name,
                "config": config_to_dict(config),
                "data_hash": record["data_hash"],
                "folds_hash": record["folds_hash"],
                "network": network,
                "training": training,
                "validation": len(self._validation),
                "host": host,
                "environment": host.get("environment", ""),
                "comment": config.tracking.comment,
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )

    def epoch(self, row: Mapping[str, float]) -> None:
        """An epoch without evaluation."""
        self._trackers.log_epoch(self._fold, row)

    def see(self, name: str, labels: NDArray[np.int32], row: Mapping[str, Any]) -> None:
        """A validation image as the weights segment it; its label map is kept where somebody wants it."""
        if name in self._wanted:
            self._examples[name] = labels

    def evaluation(self, row: Mapping[str, float], scores: Sequence[Mapping[str, Any]]) -> None:
        """A row of the history with an evaluation, and the scores per image of all evaluations so far."""
        if not self._trackers:
            return
        epoch = row["epoch"]
        latest = [item for item in scores if item["epoch"] == epoch and item["weights"] == "net"]
        self._trackers.log_epoch(self._fold, {**row, **self._type_scores(latest)})
        drawn = self._drawn()
        if drawn:
            self._trackers.log_examples(self._fold, epoch, drawn)

    def _drawn(self) -> dict[str, NDArray[np.uint8]]:
        """Pictures of the examples of this evaluation, once; none where one cannot be drawn."""
        examples, self._examples = self._examples, {}
        try:
            return {
                name: draw_outlines(self._dataset.image(name), labels)
                for name, labels in examples.items()
            }
        except Exception as error:
            _log.warning("examples of fold %d could not be drawn: %s", self._fold, error)
            return {}

    def end(self, summary: Mapping[str, Any], model: Path) -> None:
        """The fold is complete."""
        self._trackers.end_fold(self._fold, summary, model)

    def _type_scores(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        types = types_of(self._dataset)
        if not types or not rows:
            return {}
        table = pd.DataFrame({"type": [types[row["id"]] for row in rows]})
        table["score"] = [row["score"] for row in rows]
        means = table.groupby("type")["score"].mean()
        return {f"score/{name}": float(value) for name, value in means.items()}

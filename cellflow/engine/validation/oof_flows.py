"""Out-of-fold flows of a run, as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from cellflow.config import CalibrateConfig, MaskConfig
from cellflow.config.shared import Policy
from cellflow.engine.runs.contents import (
    check_has_honest_score,
    check_models,
    read_table,
    run_dataset,
    run_folds,
    run_mask,
    run_policy,
)
from cellflow.engine.runs.next_command import run_word
from cellflow.engine.runs.run_records import find_oof_record
from cellflow.engine.validation.threshold_scores import CalibrationImages
from cellflow.errors import RunError
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder

__all__ = []


OOF_COLUMNS = [
    "id", "fold", "cell_type", "group", "score", "last_epoch_score", "selection_bias", "predicted_type",
    "ap50", "ap75", "n_true",
]  # fmt: skip
"""What is needed of the table that `cellflow oof` writes."""


@dataclass(frozen=True, eq=False)
class OofRun:
    """A run with its out-of-fold flows."""

    run: RunFolder
    dataset: Dataset
    folds: pd.Series[int]
    store: FlowStore
    scores: pd.DataFrame
    hashes: Mapping[int, str]
    mask: MaskConfig
    policy: Policy
    diameter: float | None
    choice: Mapping[str, Any]

    @classmethod
    def open(cls, run: RunFolder, config: CalibrateConfig) -> OofRun:
        """Open them, and make sure that the run's models made them."""
        dataset = run_dataset(run, config.data)
        folds = run_folds(run, dataset)
        models = check_models(run, unfinished=config.unfinished)
        for path in models.values():
            check_has_honest_score(path)
        if not run.scores.exists():
            raise RunError(
                f"Run {run.name!r} has no out-of-fold flows. Make them: cellflow oof {run_word(run)}"
            )
        made = find_oof_record(run)
        if made is not None and not made.is_of_this_length(run.read_record()):
            raise RunError(
                f"The out-of-fold flows of run {run.name!r} were made before it was trained for more epochs. "
                f"Make them again: cellflow oof {run_word(run)}"
            )
        again = f"Make it again with: cellflow oof {run_word(run)}"
        store, scores = FlowStore(run.flows), read_table(run.scores, OOF_COLUMNS, remedy=again)
        _check_rows(run, scores, folds)
        hashes = {fold: hash_file(path) for fold, path in models.items()}
        for fold, name in zip(scores["fold"].tolist(), scores["id"], strict=True):
            if store.facts(name).get("model_hash") != hashes.get(fold):
                raise RunError(
                    f"The out-of-fold flows of run {run.name!r} were not made by its model of fold {fold}. "
                    f"Make them again: cellflow oof {run_word(run)}"
                )
        policy, diameter = run_policy(run)
        return cls(
            run,
            dataset,
            folds,
            store,
            scores,
            hashes,
            run_mask(run),
            policy,
            diameter,
            made.choice if made is not None and diameter is None else {},
        )

    def hashes_without(self, fold: int) -> tuple[str, ...]:
        """Hashes of the models whose flows the cross-fitted thresholds of a fold come from: those of the others.

        Of one fold alone parts are held out, and its model made all the flows.
        """
        others = [found for number, found in self.hashes.items() if number != fold]
        return tuple(others if len(self.hashes) > 1 else self.hashes.values())

    def flows(self, name: str) -> tuple[NDArray[Any], NDArray[Any], float]:
        """Flow, logit and diameter of an image."""
        flow, cellprob = self.store.read(name)
        return flow, cellprob, self.store.number(name, "diameter")

    def images(self, flows: Callable[[str], Any]) -> CalibrationImages:
        """The run's images with flows from anywhere."""
        return CalibrationImages(
            tuple(self.scores["id"]),
            tuple(self.scores["cell_type"]),
            tuple(int(fold) for fold in self.scores["fold"]),
            tuple(self.scores["group"]),
            tuple(self.scores["predicted_type"]),
            self.dataset.instances,
            flows,
        )


def _check_rows(run: RunFolder, scores: pd.DataFrame, folds: pd.Series[int]) -> None:
    """The table of scores has one row for every image of the folds that were trained."""
    trained = folds[folds.isin(run.read_record()["folds"])]
    if sorted(scores["id"]) != sorted(trained.index):
        raise RunError(
            f"{run.scores}: expected one row for each of {len(trained)} images, found {len(scores)} rows "
            f"of {scores['id'].nunique()} images. Make it again with: cellflow oof {run_word(run)}"
        )


def check_same_data(parts: Sequence[OofRun]) -> None:
    """Flows of different images or splits must not be averaged."""
    for part in parts[1:]:
        for key in ("data_hash", "folds_hash"):
            found = [item.run.read_record()[key] for item in (parts[0], part)]
            if found[0] != found[1]:
                raise RunError(
                    f"Runs {parts[0].run.name!r} and {part.run.name!r} do not belong together: expected "
                    f"one {key}, found {found[0]} and {found[1]}. Only runs of one dataset and split can be "
                    "calibrated together; calibrate each alone."
                )
        given = [item.diameter or item.policy for item in (parts[0], part)]
        if given[0] != given[1]:
            first = parts[0]
            flag = (
                f"--diameter {first.diameter:g}" if first.diameter else f"--policy {first.policy}"
            )
            raise RunError(
                f"Runs {parts[0].run.name!r} and {part.run.name!r} have out-of-fold flows with different "
                f"diameters: {given[0]} and {given[1]}. Make both in one way, such as: "
                f"cellflow oof {run_word(part.run)} {flag}"
            )

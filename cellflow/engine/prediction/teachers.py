"""Which models may make targets for which training, so that the score of that training stays honest.

A fold's validation images are in the training set of every fold model but its own. What another fold's model says of
any image carries something of them, and a network trained on that would be scored on images it knows of. So the
targets for fold f are made by the models of fold f alone: one, or one a run where several runs of other seeds share the
split. How far they are to be trusted is told by flipped views, and by these runs. Thresholds are those of the training:
calibrated ones were fitted on the validation images of all folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.config import MaskOverrides
from cellflow.engine.runs.contents import check_models, is_final_model, run_dataset, run_folds
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.segmentation.member import Member
from cellflow.engine.segmentation.open_models import Opened, open_models
from cellflow.engine.segmentation.segmenter import FLIPS, Segmenter
from cellflow.errors import LeakError, RunError
from cellflow.io.dataset import Dataset
from cellflow.io.target_folder import ALL, part_of
from cellflow.storage.run_folder import RunFolder, find_run

__all__ = ["Teachers", "find_teachers"]

_ORIGIN = ("fold", "data_hash", "folds_hash", "config_hash", "samples_hash", "targets")
"""Facts of a model that say what it was trained on."""


@dataclass(frozen=True)
class Teachers:
    """Models that make targets, by part."""

    runs: tuple[RunFolder, ...]
    """Runs whose models they are; all of one dataset and split."""
    dataset: Dataset
    folds: pd.Series[int]
    """Fold of every image, by id."""
    opened: dict[str, Opened]

    def segmenters(self, batch_size: int) -> dict[str, Segmenter]:
        """What looks at images for each part: all its members, each at all four flips."""
        return {
            part: Segmenter(
                opened.members, opened.thresholds.shared, batch_size=batch_size,
                diameter=opened.diameter, policy=opened.policy, flips=FLIPS,
            )
            for part, opened in self.opened.items()
        }  # fmt: skip

    def origin(self) -> dict[str, Any]:
        """Of which runs, dataset and split they are; JSON types."""
        record = self.runs[0].read_record()
        return {
            "runs": [run.name for run in self.runs],
            "data": str(self.dataset.path.resolve()),
            "data_hash": record["data_hash"],
            "folds_hash": record["folds_hash"],
        }

    def records(self) -> dict[str, dict[str, Any]]:
        """Who the teachers of each part are, and how they look at images; JSON types."""
        return {
            part: {
                "teachers": [_origin_of(member) for member in opened.members],
                "mask": vars(opened.thresholds.shared),
                "policy": opened.policy,
                "diameter": opened.diameter,
                "flips": list(FLIPS),
            }
            for part, opened in self.opened.items()
        }


def _origin_of(member: Member) -> dict[str, Any]:
    """What a model's file says of where it comes from."""
    facts = {key: member.facts[key] for key in _ORIGIN if key in member.facts}
    return {"run": member.facts["run"], "hash": member.hash, **facts}


def find_teachers(
    names: Sequence[str],
    runs_dir: Path,
    machine: Machine,
    *,
    data: Path | None = None,
    unfinished: bool = False,
    mask: MaskOverrides | None = None,
    final: bool = False,
) -> Teachers:
    """Open the models of runs as teachers of each fold, or all of them as those of one final network.

    Without `names` they are those of the newest run. `data` is where the dataset lies now; `unfinished` accepts folds
    whose training has stopped before its last epoch; `mask` has thresholds in place of those of the training; `final`
    opens all models as one part, `ALL`, for a network that has no honest score.

    Raises
    ------
    RunError
        If there is no such run, or the runs are not of one dataset and split, or they have no fold in common.
    """
    runs = tuple(find_run(name, runs_dir) for name in names or (None,))
    records = [run.read_record() for run in runs]
    for run, record in zip(runs[1:], records[1:], strict=True):
        for key in ("data_hash", "folds_hash"):
            if record[key] != records[0][key]:
                raise RunError(
                    f"Runs {runs[0].name!r} and {run.name!r} are not of one dataset and split: expected {key} "
                    f"{records[0][key]}, found {record[key]}. A model of one has seen what the other validates on.",
                    path=run.path, expected=records[0][key], found=record[key],
                )  # fmt: skip
    open_part = partial(
        open_models, [str(run.path.absolute()) for run in runs], machine,
        unfinished=unfinished, calibrated=False, overrides=mask,
    )  # fmt: skip
    dataset = run_dataset(runs[0], data)
    split = run_folds(runs[0], dataset)
    if final:
        return Teachers(runs, dataset, split, {ALL: open_part()})
    there = [check_models(run, unfinished=unfinished, partial=True) for run in runs]
    folds = [fold for fold in there[0] if all(fold in models for models in there)]
    if not folds:
        raise RunError(
            f"Runs {', '.join(run.name for run in runs)} have no model of one fold in common. Train them: "
            "cellflow train --fold all",
            path=runs[0].path,
        )
    opened = {part_of(fold): open_part(folds=[fold]) for fold in folds}
    teachers = Teachers(runs, dataset, split, opened)
    for fold in folds:
        _check_honest(teachers, fold)
    return teachers


def _check_honest(teachers: Teachers, fold: int) -> None:
    """No teacher of a fold, by what its file says of itself, was trained where another one validates."""
    for member in teachers.opened[part_of(fold)].members:
        found = member.facts.get("fold")
        if is_final_model(member.facts):
            raise LeakError(
                f"{member.name} cannot make targets for fold {fold}: it has seen all images of its dataset, itself "
                "or through its teachers.",
                expected=fold, found=ALL,
            )  # fmt: skip
        if found != fold:
            raise LeakError(
                f"{member.name} cannot make targets for fold {fold}: its file says that it was trained for fold "
                f"{found}, so it has seen what fold {fold} validates on.",
                expected=fold, found=found,
            )  # fmt: skip

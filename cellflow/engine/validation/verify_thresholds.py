"""Whether thresholds were fitted on the flows of a run's models, and their honest scores without the own fold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cellflow.engine.runs.contents import read_table
from cellflow.engine.runs.next_command import calibrate_command
from cellflow.engine.runs.thresholds import Thresholds, mask_from_dict, read_thresholds
from cellflow.engine.runtime.progress_lines import follow
from cellflow.engine.segmentation.mask_step import make_labels
from cellflow.engine.validation.cv_table import cross_validation
from cellflow.engine.validation.run_files import RunFiles
from cellflow.engine.validation.verify_oof import NEAR
from cellflow.errors import DataError, RunError
from cellflow.io.flow_store import FlowStore
from cellflow.numeric.score import competition_score

__all__ = ["check_thresholds"]

_COLUMNS = [
    "id", "fold", "cell_type", "group", "score", "last_epoch_score", "selection_bias", "predicted_type",
    "cross_fitted", "ap50", "ap75", "n_true",
]  # fmt: skip
_MEANS = ("images", "last_epoch", "best_epoch", "cross_fitted", "selection_bias")


def check_thresholds(files: RunFiles) -> str:
    """Check ``thresholds.json``, the cross-fitted scores and ``cv.csv``; what was looked at, in words."""
    run = files.run
    if not run.thresholds.exists():
        if run.scores.exists():
            files.note("thresholds.json", f"not calibrated yet: {calibrate_command(run)}")
            _check_cv(files, _read(files, "oof/scores.csv", _COLUMNS[:8] + _COLUMNS[9:]))
        return "none yet"
    try:
        thresholds = read_thresholds(run.thresholds)
    except RunError as error:
        files.wrong("damaged", "thresholds.json", error)
        return "cannot be read"
    if set(thresholds.members) != set(files.models.values()):
        again = f"Make them again: {calibrate_command(run)}"
        reason = f"fitted on flows of other models than the run has. {again}"
        files.wrong("other thresholds", "thresholds.json", reason)
    fitted = _fitted(files, thresholds)
    scores = _read(files, "calibration/scores.csv", _COLUMNS)
    if scores is None:
        return "without the table of their scores"
    if sorted(scores["id"]) != sorted(files.rows):
        reason = f"expected one row for each of {len(files.rows)} images, found {len(scores)} rows"
        files.wrong("other thresholds", "calibration/scores.csv", reason)
    _check_cv(files, scores)
    if not fitted or files.dataset is None:
        return "of the run's models; the cross-fitted scores are not checked"
    checked = _check_cross_fitted(files, fitted, scores)
    if not checked:
        return "of the run's models; the cross-fitted scores are not checked"
    return f"of the run's models; {checked} scores with thresholds of the other folds"


def _read(files: RunFiles, name: str, columns: list[str]) -> pd.DataFrame | None:
    again = f"Make it again with: {calibrate_command(files.run)}"
    try:
        return read_table(files.run.path / name, columns, remedy=again)
    except RunError as error:
        files.wrong("damaged", name, error)
        return None


def _fitted(files: RunFiles, thresholds: Thresholds) -> dict[int, Thresholds]:
    """Thresholds for the images of each fold; empty where they are for parts of a single fold."""
    kept = thresholds.facts.get("folds")
    if not isinstance(kept, dict) or set(kept) != set(map(str, files.models)) or len(kept) < 2:
        return {}
    found = {}
    for fold, model in files.models.items():
        try:
            found[fold] = _thresholds_of(kept[str(fold)])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            files.wrong("damaged", "thresholds.json", f"thresholds for fold {fold}: {error!r:.80}")
            return {}
        members = set(found[fold].members)
        if model in members or (members and members != set(files.models.values()) - {model}):
            reason = f"those for fold {fold} were not fitted on the flows of the other folds alone"
            files.wrong("other thresholds", "thresholds.json", reason)
    return found


def _thresholds_of(plain: Mapping[str, Any]) -> Thresholds:
    per_type = {str(name): mask_from_dict(mask) for name, mask in plain["per_type"].items()}
    return Thresholds(mask_from_dict(plain["shared"]), per_type, members=tuple(plain["members"]))


def _check_cross_fitted(
    files: RunFiles, fitted: Mapping[int, Thresholds], scores: pd.DataFrame
) -> int:
    """The score of each image is that at the thresholds of its fold, which the other folds gave; how many."""
    assert files.dataset is not None
    checked = 0
    try:
        store = FlowStore(files.run.flows)
    except DataError:
        return checked  # told of with the rows
    for row in follow(scores.to_dict("records"), "thresholds", brief=True):
        name, fold = str(row["id"]), files.folds.get(row["id"])
        if fold is None or fold != row["fold"] or fold not in fitted:
            reason = f"calibration/scores.csv has it in fold {row['fold']}, folds.csv in {fold}"
            files.wrong("other thresholds", name, reason)
            continue
        mask = fitted[fold].of(row["predicted_type"])
        try:
            flow, cellprob = store.read(name)
            labels = make_labels(flow, cellprob, store.number(name, "diameter"), mask)
            expected = float(competition_score(files.dataset.instances(name), labels).mean)
        except DataError:
            continue  # told of with the rows
        checked += 1
        if not math.isclose(expected, row["cross_fitted"], abs_tol=NEAR):
            reason = (
                f"calibration/scores.csv has the cross-fitted score {row['cross_fitted']:.6g}; the thresholds that "
                f"the other folds gave make it {expected:.6g}"
            )
            files.wrong("other thresholds", name, reason)
    return checked


def _check_cv(files: RunFiles, scores: pd.DataFrame | None) -> None:
    """``cv.csv`` is the means of the rows."""
    found = _read(files, "cv.csv", ["scope", "name", *_MEANS])
    if scores is None or found is None:
        return
    twice = found[found.duplicated(["scope", "name"])]
    if len(twice):
        which = " ".join(twice[["scope", "name"]].iloc[0])
        files.wrong("other result", "cv.csv", f"has more than one row of {which}")
        return
    expected = cross_validation(scores).set_index(["scope", "name"])
    rows = found.set_index(["scope", "name"])
    for key, row in expected.iterrows():
        for column in _MEANS:
            value = rows[column].get(key, math.nan)
            same = math.isclose(value, row[column], abs_tol=NEAR)
            if not same and not (math.isnan(value) and math.isnan(row[column])):
                where = " ".join(map(str, key)) if isinstance(key, tuple) else str(key)
                reason = f"{column} of {where} is {value:.6g}; the rows give {row[column]:.6g}"
                files.wrong("other result", "cv.csv", reason)

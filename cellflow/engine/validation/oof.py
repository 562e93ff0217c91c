"""Out-of-fold predictions of a run, and the cross-validation made from them."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellflow.config import OofConfig, check_config
from cellflow.config.shared import POLICIES, Policy
from cellflow.engine.data.folds import image_groups
from cellflow.engine.pages.run_page import try_run_page
from cellflow.engine.runs.contents import (
    read_table,
    run_mask,
    run_select_metric,
)
from cellflow.engine.runs.identity import versions
from cellflow.engine.runs.next_command import run_word
from cellflow.engine.runs.tracked_command import tracked
from cellflow.engine.segmentation.channels import warn_of_grey
from cellflow.engine.segmentation.doubts import warn_of_diameter
from cellflow.engine.segmentation.scoring import SCORE_COLUMNS
from cellflow.engine.validation.cv_table import cross_validation
from cellflow.engine.validation.oof_exports import check_exportable, write_oof_exports
from cellflow.engine.validation.oof_flows import OOF_COLUMNS
from cellflow.engine.validation.oof_pass import OofJob, OofWorkers, open_job, open_workers
from cellflow.engine.validation.oof_tables import (
    RECOGNITION_COLUMNS,
    OofImage,
    fold_evaluations,
    last_epoch_scores,
    log_recognition,
    predictions_table,
    selection_biases,
    write_confusion,
)
from cellflow.engine.validation.outlines import write_outlines_folder
from cellflow.engine.validation.policy_choice import choice_record, choose_policy
from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.io.images import read_labels
from cellflow.report.comparison import Comparison
from cellflow.report.text.diameters import diameters_text
from cellflow.storage.atomic import atomic_folder, write_csv, write_json
from cellflow.storage.config_file import write_config_file
from cellflow.storage.hashing import hash_file, hash_json
from cellflow.storage.records import read_json
from cellflow.storage.run_folder import RunFolder, find_run
from cellflow.types import one_line

__all__ = ["OofResult", "oof"]

_log = logging.getLogger(__name__)
_COMPARED = ("models", "mask", "diameter", "data_hash", "folds_hash")
"""What of a pass must be as wanted, for its predictions to be those that were asked for."""


@one_line
@dataclass(frozen=True, eq=False)
class OofResult:
    """What an out-of-fold pass gave.

    Attributes
    ----------
    run : RunFolder
        The run.
    scores : pandas.DataFrame
        A row per image: id, fold, cell_type, epoch of the model, scores, and the score at the last epoch.
    cv : pandas.DataFrame
        Means per fold, per cell type and overall.
    outlines : Path or None
        Sheet of the worst images, in the folder with pictures of all; None where none were asked for.
    exports : Path or None
        Folder of the exports; None where none were asked for.
    report : Path or None
        Page of the run; None where it could not be written.
    """

    run: RunFolder
    scores: pd.DataFrame
    cv: pd.DataFrame
    outlines: Path | None = None
    exports: Path | None = None
    report: Path | None = None


def oof(config: OofConfig) -> OofResult:
    """Predict each image with the model of the fold that validates on it, and score it.

    Fits each fold model's style models (cell type, diameter) on its own training images first. Each
    diameter policy is a pass of its own; the best one is kept. Writes ``oof/flows.zarr``,
    ``oof/masks/<id>.tif``, ``oof/predictions.csv``, ``oof/scores.csv``, ``oof/cell_types.csv`` (confusion
    matrix of the style models), ``oof/oof.json`` (what made them), ``fold_K/styles.json`` and ``cv.csv``
    in the run folder, and on demand pictures in ``oof/outlines/`` and exports in ``oof/export/``. Where exports
    are asked for and a pass of these models is there, it is not repeated.

    Raises
    ------
    RunError, DataError
        If a fold has no model, models, folds and data do not belong together, or exports are made of flows
        or masks of the pass that are gone.

    Examples
    --------
    Of the run ``runs/exp``, whose two folds are trained:

    >>> from cellflow import OofConfig, oof
    >>> result = oof(OofConfig(run="exp", policy="dataset"))
    >>> result.scores[["id", "fold", "cell_type", "n_true"]].head(3)
                  id  fold cell_type  n_true
    0    round_003_0     0     round       6
    1  spindle_004_0     0   spindle      14
    2   spread_005_0     0    spread       7
    >>> result.cv[["scope", "name", "images"]]
           scope     name  images
    0       fold        0       3
    1       fold        1       3
    2  cell_type    round       2
    3  cell_type  spindle       2
    4  cell_type   spread       2
    5    overall      all       6
    """
    check_config(config)
    run = find_run(config.run, config.runs_dir)
    with tracked(run, "out-of-fold predictions"):
        write_config_file(run.settings("oof"), "oof", replace(config, run=str(run.path)))
        result = _oof(run, config)
    return replace(result, report=try_run_page(run, data=config.data))


def _oof(run: RunFolder, config: OofConfig) -> OofResult:
    job = open_job(run, config)
    dataset, models = job.dataset, job.models
    if config.export and _is_there(job):
        check_exportable(run, config.export)
        _log.info("%s: the predictions are there; only what was asked for is written", run.oof)
        again = f"Make it again with: cellflow oof {run_word(run)}"
        scores = read_table(run.scores, OOF_COLUMNS, remedy=again)
        cv = read_table(run.cv, ["scope", "name", "images"], remedy=again)
    else:
        scores, cv = _new_pass(job, _policies(config, dataset))
    sheet = _draw(run, dataset, scores) if config.outlines else None
    exports = None
    if config.export:
        member = job.member(next(iter(models)))
        channels = member.chan, member.chan2
        exports = write_oof_exports(run, dataset, scores, config.export, channels)
    return OofResult(run, scores, cv, sheet, exports)


def _is_there(job: OofJob) -> bool:
    """Whether the run has out-of-fold predictions of these models, made as this command asks for.

    Whatever made them, a new pass would cost the thresholds that were fitted on them: versions do not count,
    and no policy is another one than that of the pass unless one was given.
    """
    stored = read_json(job.run.oof_record)
    if stored is None:
        return False
    wanted = _identity(job)
    if job.config.policy != "auto":
        wanted["policy"] = job.config.policy
    others = [
        key for key in (*_COMPARED, "policy") if stored.get(key) != wanted.get(key, stored.get(key))
    ]
    if others:
        _log.warning(
            "%s: the predictions there were made with other %s; all images are predicted again",
            job.run.oof, " and ".join(others),
        )  # fmt: skip
    return not others


def _new_pass(job: OofJob, policies: Sequence[Policy]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predict all images with each policy, and keep the best one; its scores and their means."""
    run, models = job.run, job.models
    evaluations = {fold: fold_evaluations(run.fold(fold).evaluations) for fold in models}
    last = last_epoch_scores(run, evaluations)
    bias = selection_biases(job.dataset, run, job.folds, evaluations)
    _warn_of_grey(job)
    with open_workers(job) as workers, atomic_folder(run.oof, replace=True) as folder:
        workers.fit_styles()
        passes = {
            policy: _predict_all(job, workers, policy, folder / f"policy_{policy}")
            for policy in policies
        }
        choice = _choice(job, workers, passes)
        best: Policy = choice["policy"]
        if len(passes) > 1:
            _log.info(diameters_text(choice))
        _keep_pass(folder, best)
        write_csv(folder / "predictions.csv", predictions_table(passes[best]))
        scores = _scores_table(job, passes[best], last, bias)
        write_csv(folder / "scores.csv", scores)
        write_confusion(folder / "cell_types.csv", scores)
        log_recognition(scores)
        write_json(folder / "oof.json", _record(job, choice))
        cv = cross_validation(scores, selected_by=run_select_metric(run))
        # before the folder: whoever finds that takes the pass for done, and the thresholds for fitted on it
        write_csv(run.cv, cv)
        run.thresholds.unlink(missing_ok=True)
    return scores, cv


def _draw(run: RunFolder, dataset: Dataset, scores: pd.DataFrame) -> Path:
    """Pictures of truth and prediction; a pass that is complete does not depend on them."""

    def compare(name: str) -> Comparison:
        labels = read_labels(run.oof / "masks" / f"{name}.tif")
        return Comparison(name, dataset.image(name), dataset.instances(name), labels)

    return write_outlines_folder(run.oof / "outlines", scores, compare)


def _warn_of_grey(job: OofJob) -> None:
    """Say which of the images lack the channels of the first model, which all share."""
    member = job.member(next(iter(job.models)))
    used = job.dataset.images.loc[job.folds.index[job.folds.isin(job.models)], "channels"]
    warn_of_grey(used.to_dict(), member.chan, member.chan2)


def _policies(config: OofConfig, dataset: Dataset) -> tuple[Policy, ...]:
    """The diameter policies to compare; with one given diameter there is nothing to choose."""
    if config.diameter is not None:
        return ("dataset",)
    types = 0
    if "cell_type" in dataset.images:
        types = dataset.images["cell_type"].replace("", np.nan).nunique()
    if config.policy == "type" and types < 2:
        raise DataError(
            f"--policy type needs two cell types, found {types} in {dataset.path / 'images.csv'}. Choose "
            "dataset, image or auto."
        )
    if config.policy != "auto":
        return (config.policy,)
    return tuple(policy for policy in POLICIES if policy != "type" or types > 1)


def _predict_all(job: OofJob, workers: OofWorkers, policy: Policy, folder: Path) -> list[OofImage]:
    """One pass over all images, each with the model that never saw it."""
    _log.info("diameter policy %s: a pass over all images", job.config.diameter or policy)
    if job.config.diameter is not None:
        warn_of_diameter(job.config.diameter, [job.member(min(job.models))])
    done = workers.predict(policy, folder)
    _log.info("diameter policy %s: score %.4f", job.config.diameter or policy, _mean(done))
    return done


def _mean(done: list[OofImage]) -> float:
    return float(np.mean(_scores(done)))


def _scores(done: list[OofImage]) -> list[float]:
    return [float(item.scores["score"]) for item in done]


def _keep_pass(folder: Path, best: Policy) -> None:
    """Move one pass's flows and masks up, and remove the others."""
    for item in (folder / f"policy_{best}").iterdir():
        item.rename(folder / item.name)
    for part in folder.glob("policy_*"):
        shutil.rmtree(part)


def _scores_table(
    job: OofJob, done: list[OofImage], last: pd.Series[float], bias: pd.Series[float]
) -> pd.DataFrame:
    """Scores of a pass with each image's group, its score at the last epoch, and the selection bias.

    The last epoch's scores are those of the training; they are left out where other thresholds or a
    given diameter were asked for, because the two could not be compared.
    """
    scores = pd.DataFrame([item.scores for item in done])
    scores["group"] = scores["id"].map(image_groups(job.dataset, job.run.folds))
    as_trained = job.mask == run_mask(job.run) and job.config.diameter is None
    scores["last_epoch_score"] = scores["id"].map(last) if as_trained else np.nan
    scores["selection_bias"] = scores["id"].map(bias)
    columns = ["id", "fold", "cell_type", "group", "epoch", *SCORE_COLUMNS, "last_epoch_score"]
    return scores[[*columns, "selection_bias", *RECOGNITION_COLUMNS]]


def _choice(
    job: OofJob, workers: OofWorkers, passes: Mapping[Policy, list[OofImage]]
) -> dict[str, Any]:
    """The diameter policy to keep, with what speaks for it, as JSON types."""
    groups = image_groups(job.dataset, job.run.folds)
    means = {policy: _mean(done) for policy, done in passes.items()}
    names = [item.name for item in next(iter(passes.values()))]
    kept, comparisons = choose_policy(
        {policy: _scores(done) for policy, done in passes.items()},
        [str(groups[name]) for name in names],
    )
    choice = choice_record(kept, comparisons, means) | {"images": len(names)}
    if kept == "type":
        rows = [item.scores for item in passes[kept]]
        own = sum(row["diameter"] == row["style_diameter"] for row in rows)
        choice |= {"type_factor": workers.type_factor(), "own_estimates": own}
    return choice


def _record(job: OofJob, choice: Mapping[str, Any]) -> dict[str, Any]:
    """What made the out-of-fold predictions, and what came of it."""
    return _identity(job) | {
        "policy": choice["policy"],
        "policies": choice["scores"],
        "diameters": choice,
        "machine": job.machine.describe(),
    }


def _identity(job: OofJob) -> dict[str, Any]:
    """What makes the out-of-fold predictions what they are."""
    record = job.run.read_record()
    return {
        "run": job.run.name,
        "models": {str(fold): hash_file(path) for fold, path in job.models.items()},
        "mask": dataclasses.asdict(job.mask),
        "diameter": job.config.diameter,
        "data_hash": record["data_hash"],
        "folds_hash": record["folds_hash"],
        "config_hash": hash_json(record["config"]),
        "versions": versions(),
    }

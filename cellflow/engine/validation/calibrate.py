"""Thresholds per cell type from stored flows, with an honest score."""

from __future__ import annotations

import dataclasses
import logging
import re
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from cellflow.config import CalibrateConfig, check_config
from cellflow.config.metrics import SELECT_NAMES
from cellflow.engine.pages.run_page import try_run_page
from cellflow.engine.runs.contents import run_select_metric
from cellflow.engine.runs.thresholds import ALL_TYPES, Thresholds, write_thresholds
from cellflow.engine.runs.tracked_command import tracked
from cellflow.engine.validation.calibrate_ensemble import calibrate_ensemble
from cellflow.engine.validation.cv_table import cross_validation
from cellflow.engine.validation.fitted_facts import (
    fitted_facts,
    fitted_source,
    threshold_search_of,
)
from cellflow.engine.validation.oof_flows import OofRun, check_same_data
from cellflow.engine.validation.threshold_search import ThresholdSearch
from cellflow.errors import RunError
from cellflow.report.calibration import plot_curves
from cellflow.storage.atomic import write_csv
from cellflow.storage.config_file import write_config_file
from cellflow.storage.hashing import hash_bytes
from cellflow.storage.run_folder import RunFolder, find_run
from cellflow.types import one_line

__all__ = ["CalibrationResult", "calibrate"]


_log = logging.getLogger(__name__)


@one_line
@dataclass(frozen=True, eq=False)
class CalibrationResult:
    """What a calibration gave.

    Attributes
    ----------
    runs : tuple of RunFolder
        The runs; each has a `thresholds.json`.
    thresholds : tuple of Thresholds
        One for each run.
    cv : tuple of pandas.DataFrame
        Cross-validation of each run with the cross-fitted score.
    ensemble : Thresholds or None
        Thresholds of the ensemble where it could be calibrated.
    record : Path or None
        Where those lie.
    reports : tuple of Path
        Page of each run, where it could be written.
    """

    runs: tuple[RunFolder, ...]
    thresholds: tuple[Thresholds, ...]
    cv: tuple[pd.DataFrame, ...]
    ensemble: Thresholds | None
    record: Path | None
    reports: tuple[Path, ...] = ()


def calibrate(config: CalibrateConfig) -> CalibrationResult:
    """Fit thresholds per cell type on out-of-fold flows; no network runs but for reserved images.

    Writes ``thresholds.json``, ``cv.csv`` and ``calibration/`` (a row per image, a picture per type) in
    every run's folder. Thresholds of an ensemble, by the rules of the design: several runs of one split
    are fitted on the mean of their out-of-fold flows; else images that `folds` reserved are predicted
    with all members and fitted on, drawn towards the single models' optimum; else there are none.

    Raises
    ------
    RunError, DataError
        If a run has no out-of-fold flows, or runs do not belong together.

    Examples
    --------
    Of the run ``runs/exp``, after `oof`:

    >>> from cellflow import CalibrateConfig, calibrate
    >>> result = calibrate(CalibrateConfig(runs=("exp",)))
    >>> (thresholds,) = result.thresholds
    >>> thresholds.source
    'out-of-fold flows of 6 images of run exp'
    >>> sorted(thresholds.per_type)
    ['round', 'spindle', 'spread']
    """
    check_config(config)
    runs = tuple(find_run(name, config.runs_dir) for name in config.runs or (None,))
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise RunError(f"One run is named twice: {', '.join(str(run.path) for run in runs)}.")
    with ExitStack() as stack:
        for run in runs:
            stack.enter_context(tracked(run, "calibration", ensembles_dir=config.ensembles_dir))
        result = _calibrate(runs, config)
    pages = [
        try_run_page(run, data=config.data, ensembles_dir=config.ensembles_dir) for run in runs
    ]
    return replace(result, reports=tuple(page for page in pages if page is not None))


def _calibrate(runs: tuple[RunFolder, ...], config: CalibrateConfig) -> CalibrationResult:
    parts = [OofRun.open(run, config) for run in runs]
    check_same_data(parts)
    used = replace(config, runs=tuple(str(run.path) for run in runs))
    for run in runs:
        write_config_file(run.settings("calibrate"), "calibrate", used)
    results = [_calibrate_run(part, config) for part in parts]
    ensemble = calibrate_ensemble(
        parts, [item.search for item in results], [item.cross_fitted for item in results], config
    )
    return CalibrationResult(
        runs,
        tuple(item.thresholds for item in results),
        tuple(item.cv for item in results),
        *(ensemble or (None, None)),
    )


@dataclass(frozen=True, eq=False)
class _Calibrated:
    search: ThresholdSearch
    thresholds: Thresholds
    cv: pd.DataFrame
    cross_fitted: pd.Series[float]


def _calibrate_run(part: OofRun, config: CalibrateConfig) -> _Calibrated:
    """Thresholds of a run's single models, its cross-fitted score, its tables and pictures."""
    search = threshold_search_of(part.images(part.flows), part.mask, config)
    thresholds = dataclasses.replace(
        search.fit(),
        source=fitted_source(
            f"out-of-fold flows of {len(part.scores)} images of run {part.run.name}", config
        ),
        members=tuple(part.hashes.values()),
        policy=part.policy,
        diameter=part.diameter,
    )
    cross_fitted, fitted = search.cross_fit()
    # The pass may have been made with other thresholds; side by side they all start from one setting.
    rows = range(len(part.scores))
    scores = part.scores.assign(
        score=search.scores.competition_at(rows, part.mask),
        cross_fitted=search.competition_of(fitted),
    )
    if config.select_metric != "competition":
        own = {"_training": search.scores.at(rows, part.mask), "_cross_fitted": cross_fitted}
        scores = scores.assign(**{config.select_metric + end: item for end, item in own.items()})
    selected_by = run_select_metric(part.run)
    cv = cross_validation(
        scores, seed=config.seed, selected_by=selected_by, fitted_for=config.select_metric
    )
    facts = fitted_facts(search, thresholds, cross_fitted, config) | {"selected_by": selected_by}
    facts["folds"] = {
        str(fold): dataclasses.replace(item, members=part.hashes_without(fold)).to_dict()
        for fold, item in fitted.items()
    }
    if part.choice:
        facts["diameters"] = dict(part.choice)
    facts["fold_curves"] = search.fold_curves(thresholds)
    thresholds = dataclasses.replace(thresholds, facts=facts)
    folder = part.run.calibration
    write_csv(folder / "scores.csv", scores)
    for name, curves in facts["curves"].items():
        chosen = dataclasses.asdict(thresholds.of("" if name == ALL_TYPES else name))
        title = f"{part.run.name}, {name}: one threshold varied, the others as chosen"
        plot_curves(
            folder / f"{_file_name(name)}.png",
            curves,
            title=title,
            chosen=chosen,
            errors=facts["errors"][name],
            why=facts["decisions"][name]["why"],
            score=SELECT_NAMES[config.select_metric],
        )
    write_csv(part.run.cv, cv)
    write_thresholds(part.run.thresholds, thresholds)
    return _Calibrated(search, thresholds, cv, pd.Series(cross_fitted, scores["id"]))


def _file_name(cell_type: str) -> str:
    """A cell type as a file name: what cannot be in one is replaced, and the name made unique again."""
    safe = re.sub(r"[^\w .+-]", "_", cell_type).strip(". ")[:80]
    return safe if safe == cell_type else f"{safe}_{hash_bytes(cell_type.encode())[:6]}"

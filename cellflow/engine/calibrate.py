"""Thresholds per cell type from stored flows, with an honest score."""

from __future__ import annotations

import dataclasses
import logging
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.config import CalibrateConfig, MaskConfig, check_config, config_to_dict
from cellflow.engine.cross_validation import cross_validation
from cellflow.engine.folds import image_groups
from cellflow.engine.machine import choose_machine
from cellflow.engine.metadata import read_json
from cellflow.engine.models import Opened, ensemble_record, open_models, run_policy
from cellflow.engine.next_command import run_word
from cellflow.engine.oof import run_folds
from cellflow.engine.progress_lines import follow
from cellflow.engine.recording import recorded
from cellflow.engine.runs import check_models, read_table, run_dataset, run_mask, versions
from cellflow.engine.score import MIN_GROUPS
from cellflow.engine.segment import Policy, Segmenter
from cellflow.engine.threshold_search import ALL_TYPES, CalibrationImages, ThresholdSearch
from cellflow.engine.thresholds import Thresholds, write_thresholds
from cellflow.errors import RunError
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.io.fold_table import RESERVED
from cellflow.numeric.averaging import VARIANTS, Variant, average_flows
from cellflow.report.calibration import plot_curves
from cellflow.storage.atomic import write_csv
from cellflow.storage.config_file import write_config_file
from cellflow.storage.hashing import hash_bytes, hash_file
from cellflow.storage.run_folder import RunFolder, find_run, is_of_this_length
from cellflow.types import one_line

__all__ = ["CalibrationResult", "calibrate"]

OOF_COLUMNS = [
    "id", "fold", "cell_type", "group", "score", "last_epoch_score", "selection_bias", "predicted_type",
    "ap50", "ap75", "n_true",
]  # fmt: skip
"""What is needed of the table that `cellflow oof` writes."""

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
    """

    runs: tuple[RunFolder, ...]
    thresholds: tuple[Thresholds, ...]
    cv: tuple[pd.DataFrame, ...]
    ensemble: Thresholds | None
    record: Path | None


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
    """
    check_config(config)
    runs = tuple(find_run(name, config.runs_dir) for name in config.runs or (None,))
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise RunError(f"One run is named twice: {', '.join(str(run.path) for run in runs)}.")
    with ExitStack() as stack:
        for run in runs:
            stack.enter_context(recorded(run, "calibration", ensembles_dir=config.ensembles_dir))
        return _calibrate(runs, config)


def _calibrate(runs: tuple[RunFolder, ...], config: CalibrateConfig) -> CalibrationResult:
    parts = [_OofRun.open(run, config) for run in runs]
    _check_same(parts)
    used = replace(config, runs=tuple(str(run.path) for run in runs))
    for run in runs:
        write_config_file(run.settings("calibrate"), "calibrate", used)
    results = [_calibrate_run(part, config) for part in parts]
    ensemble = _calibrate_ensemble(parts, [item.search for item in results], config)
    return CalibrationResult(
        runs,
        tuple(item.thresholds for item in results),
        tuple(item.cv for item in results),
        *(ensemble or (None, None)),
    )


@dataclass(frozen=True, eq=False)
class _OofRun:
    """A run with its out-of-fold flows."""

    run: RunFolder
    dataset: Dataset
    folds: pd.Series[int]
    store: FlowStore
    scores: pd.DataFrame
    hashes: tuple[str, ...]
    mask: MaskConfig
    policy: Policy
    diameter: float | None

    @classmethod
    def open(cls, run: RunFolder, config: CalibrateConfig) -> _OofRun:
        """Open them, and make sure that the run's models made them."""
        dataset = run_dataset(run, config.data)
        folds = run_folds(run, dataset)
        models = check_models(run, unfinished=config.unfinished)
        if not run.scores.exists():
            raise RunError(
                f"Run {run.name!r} has no out-of-fold flows. Make them: cellflow oof {run_word(run)}"
            )
        if not is_of_this_length(run.read_record(), read_json(run.oof_record) or {}):
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
            tuple(hashes.values()),
            run_mask(run),
            policy,
            diameter,
        )

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


@dataclass(frozen=True, eq=False)
class _Calibrated:
    search: ThresholdSearch
    thresholds: Thresholds
    cv: pd.DataFrame


def _calibrate_run(part: _OofRun, config: CalibrateConfig) -> _Calibrated:
    """Thresholds of a run's single models, its cross-fitted score, its tables and pictures."""
    search = _search(part.images(part.flows), part.mask, config)
    thresholds = dataclasses.replace(
        search.fit(),
        source=f"out-of-fold flows of {len(part.scores)} images of run {part.run.name}",
        members=part.hashes,
        policy=part.policy,
        diameter=part.diameter,
    )
    cross_fitted, fitted = search.cross_fit()
    # The pass may have been made with other thresholds; side by side they all start from one setting.
    default = search.score_rows(range(len(part.scores)), part.mask)
    scores = part.scores.assign(score=default, cross_fitted=cross_fitted)
    cv = cross_validation(scores, seed=config.seed)
    facts = _facts(search, thresholds, cross_fitted, config) | {
        "folds": {str(fold): item.to_dict() for fold, item in fitted.items()}
    }
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
        )
    write_csv(part.run.cv, cv)
    write_thresholds(part.run.thresholds, thresholds)
    return _Calibrated(search, thresholds, cv)


def _calibrate_ensemble(
    parts: Sequence[_OofRun], searches: Sequence[ThresholdSearch], config: CalibrateConfig
) -> tuple[Thresholds, Path] | None:
    """Thresholds of the ensemble of all members, by the first rule that applies."""
    reserved = [str(name) for name in parts[0].folds.index if parts[0].folds[name] == RESERVED]
    if len(parts) > 1:
        found = _from_seeds(parts, config)
    elif reserved and config.reserved:
        found = _from_reserved(parts[0], reserved, searches[0], config)
    else:
        return None
    record = ensemble_record(config.ensembles_dir, [part.run.name for part in parts])
    members = tuple(hash_ for part in parts for hash_ in part.hashes)
    thresholds = dataclasses.replace(
        found, members=members, policy=parts[0].policy, diameter=parts[0].diameter
    )
    write_thresholds(record, thresholds)
    return thresholds, record


def _from_seeds(parts: Sequence[_OofRun], config: CalibrateConfig) -> Thresholds:
    """Fit on the mean of the out-of-fold flows of several trainings of one split."""

    def flows_with(variant: Variant) -> Callable[[str], Any]:
        def flows(name: str) -> tuple[NDArray[Any], NDArray[Any], float]:
            found = [part.flows(name) for part in parts]
            mean = average_flows(((item[0], item[1]) for item in found), variant=variant)
            return mean[0], mean[1], float(np.mean([item[2] for item in found]))

        return flows

    images = {variant: parts[0].images(flows_with(variant)) for variant in VARIANTS}
    names = " and ".join(part.run.name for part in parts)
    source = f"mean out-of-fold flows of {names}, {len(parts[0].scores)} images"
    masks = {part.mask for part in parts}
    start = masks.pop() if len(masks) == 1 else MaskConfig()
    return _best_variant(images, source, start, None, config)


def _from_reserved(
    part: _OofRun, names: list[str], prior: ThresholdSearch, config: CalibrateConfig
) -> Thresholds:
    """Fit on images that no member trained or was selected on, predicted by all of them."""
    machine = choose_machine(config.runtime)
    opened = open_models(
        [str(part.run.path)], machine.device, unfinished=config.unfinished, calibrated=False
    )
    types = _column(part.dataset, "cell_type", names)
    groups = tuple(image_groups(part.dataset, part.run.folds).loc[names])
    with tempfile.TemporaryDirectory(prefix="cellflow-") as folder:
        stores, found = _predict_reserved(part.dataset, names, opened, Path(folder), machine.amp)

        def flows_with(variant: Variant) -> Callable[[str], Any]:
            def flows(name: str) -> tuple[NDArray[Any], NDArray[Any], float]:
                mean = average_flows((store.read(name) for store in stores), variant=variant)
                return mean[0], mean[1], found[name][0]

            return flows

        guessed = tuple(found[name][1] for name in names)
        images = {
            variant: CalibrationImages(
                tuple(names),
                types,
                (RESERVED,) * len(names),
                groups,
                guessed,
                part.dataset.instances,
                flows_with(variant),
            )
            for variant in VARIANTS
        }
        source = (
            f"{len(names)} reserved images, all {len(opened.members)} members of {part.run.name}"
        )
        return _best_variant(images, source, part.mask, prior, config)


def _predict_reserved(
    dataset: Dataset, names: list[str], opened: Opened, folder: Path, amp: Any
) -> tuple[list[FlowStore], dict[str, tuple[float, str]]]:
    """Flows of every member, and for each image the diameter and the cell type that were taken."""
    stores = [FlowStore(folder / f"{place}.zarr", mode="w") for place in range(len(opened.members))]
    segmenter = Segmenter(
        opened.members, MaskConfig(), amp=amp, policy=opened.policy, diameter=opened.diameter
    )
    found = {}
    for name in follow(names, "reserved images", brief=True):
        flows, diameter, cell_type = segmenter.member_flows(dataset.image(name))
        found[name] = diameter, cell_type
        for store, (flow, cellprob) in zip(stores, flows, strict=True):
            store.write(name, flow, cellprob)
    return stores, found


def _best_variant(
    images: Mapping[Variant, CalibrationImages],
    source: str,
    mask: MaskConfig,
    prior: ThresholdSearch | None,
    config: CalibrateConfig,
) -> Thresholds:
    """Thresholds with the way of averaging that scores best when cross-fitted."""
    fits: dict[Variant, tuple[float, Thresholds]] = {}
    for variant, part in images.items():
        search = _search(part, mask, config, prior)
        cross_fitted = search.cross_fit()[0]
        thresholds = search.fit()
        facts = _facts(search, thresholds, cross_fitted, config) | {"average": variant}
        fits[variant] = float(cross_fitted.mean()), dataclasses.replace(thresholds, facts=facts)
    best: Variant = "plain"
    for variant, (score, _) in fits.items():
        if score > max(fits["plain"][0] + MIN_VARIANT_GAIN, fits[best][0]):  # never where it is nan
            best = variant
    compared = {variant: _known(score) for variant, (score, _) in fits.items()}
    thresholds = fits[best][1]
    facts = {**thresholds.facts, "averages_compared": compared}
    return dataclasses.replace(thresholds, source=source, facts=facts)


MIN_VARIANT_GAIN = 0.002
"""Another way of averaging than the plain mean must score better by this."""


def _search(
    images: CalibrationImages,
    mask: MaskConfig,
    config: CalibrateConfig,
    prior: ThresholdSearch | None = None,
) -> ThresholdSearch:
    return ThresholdSearch(images, config.grid, mask, config.shrinkage, config.smoothing, prior)


def _facts(
    search: ThresholdSearch,
    thresholds: Thresholds,
    cross_fitted: NDArray[np.float64],
    config: CalibrateConfig,
) -> dict[str, Any]:
    """What people want to know of fitted thresholds: scores, curves, settings, versions."""
    types = np.array(search.images.types)
    scores, curves, errors = {}, {}, {}
    for cell_type in ("", *thresholds.per_type):
        part = np.flatnonzero((types == cell_type) | (cell_type == ""))
        name = cell_type or ALL_TYPES
        scores[name] = {
            "images": len(part),
            "training_thresholds": float(search.score_rows(part, search.base).mean()),
            "cross_fitted": _known(float(cross_fitted[part].mean())),
            "fitted_on_itself": float(_fitted(search, thresholds, part).mean()),
        }
        curves[name] = search.curves(thresholds.of(cell_type), cell_type)
        errors[name] = search.errors(thresholds.of(cell_type), cell_type)
    decisions = {
        name or ALL_TYPES: {
            "optimum": dataclasses.asdict(item.optimum),
            "taken": item.taken,
            "gain": _known(item.gain),
            "error": _known(item.error) if item.groups >= MIN_GROUPS else None,
            "groups": item.groups,
            "why": item.why,
        }
        for name, item in search.decisions().items()
    }
    settings = {key: value for key, value in config_to_dict(config).items() if key in _SETTINGS}
    return {
        "scores": scores,
        "curves": curves,
        "errors": errors,
        "decisions": decisions,
        "settings": settings,
        "versions": versions(),
    }


def _known(score: float) -> float | None:
    """A score as JSON has it."""
    return None if np.isnan(score) else score


_SETTINGS = ("grid", "shrinkage", "smoothing", "seed")


def _fitted(
    search: ThresholdSearch, thresholds: Thresholds, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Scores at thresholds that were fitted on these very images."""
    found = [thresholds.of(search.images.found_types[row]) for row in rows]
    return np.array(
        [search.score_rows([row], mask)[0] for row, mask in zip(rows, found, strict=True)]
    )


def _column(dataset: Dataset, name: str, ids: list[str]) -> tuple[str, ...]:
    if name not in dataset.images:
        return ("",) * len(ids)
    return tuple(str(value) for value in dataset.images.loc[ids, name])


def _file_name(cell_type: str) -> str:
    """A cell type as a file name: what cannot be in one is replaced, and the name made unique again."""
    safe = re.sub(r"[^\w .+-]", "_", cell_type).strip(". ")[:80]
    return safe if safe == cell_type else f"{safe}_{hash_bytes(cell_type.encode())[:6]}"


def _check_rows(run: RunFolder, scores: pd.DataFrame, folds: pd.Series[int]) -> None:
    """The table of scores has one row for every image of the folds that were trained."""
    trained = folds[folds.isin(run.read_record()["folds"])]
    if sorted(scores["id"]) != sorted(trained.index):
        raise RunError(
            f"{run.scores}: expected one row for each of {len(trained)} images, found {len(scores)} rows "
            f"of {scores['id'].nunique()} images. Make it again with: cellflow oof {run_word(run)}"
        )


def _check_same(parts: Sequence[_OofRun]) -> None:
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
            raise RunError(
                f"Runs {parts[0].run.name!r} and {part.run.name!r} have out-of-fold flows with different "
                f"diameters: {given[0]} and {given[1]}. Make both with one policy, such as: "
                f"cellflow oof {run_word(part.run)} --policy {parts[0].policy}"
            )

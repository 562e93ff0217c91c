"""Thresholds of an ensemble, from seeds of one split or from reserved images."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.config import CalibrateConfig, MaskConfig
from cellflow.engine.data.folds import image_groups
from cellflow.engine.runs.thresholds import Thresholds, write_thresholds
from cellflow.engine.runtime.machine import choose_machine
from cellflow.engine.runtime.progress_lines import follow
from cellflow.engine.segmentation.open_models import Opened, open_models
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.engine.validation.fitted_facts import (
    fitted_facts,
    fitted_source,
    number_or_null,
    threshold_search_of,
)
from cellflow.engine.validation.member_choice import MemberChoice, choose_members
from cellflow.engine.validation.oof_flows import OofRun
from cellflow.engine.validation.threshold_scores import CalibrationImages, ThresholdScores
from cellflow.engine.validation.threshold_search import ThresholdSearch
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.io.fold_table import RESERVED
from cellflow.numeric.averaging import VARIANTS, Variant, average_flows
from cellflow.numeric.bootstrap import bootstrap_mean
from cellflow.storage.run_folder import ensemble_record

__all__ = []


MIN_VARIANT_GAIN = 0.002
"""Another way of averaging than the plain mean must score better by this."""


def calibrate_ensemble(
    parts: Sequence[OofRun],
    searches: Sequence[ThresholdSearch],
    cross_fitted: Sequence[pd.Series[float]],
    config: CalibrateConfig,
) -> tuple[Thresholds, Path] | None:
    """Thresholds of the ensemble of all members, by the first rule that applies.

    `searches` and `cross_fitted` (by id) are those of the single models of each run.
    """
    record = ensemble_record(config.ensembles_dir, [part.run.name for part in parts])
    reserved = [str(name) for name in parts[0].folds.index if parts[0].folds[name] == RESERVED]
    if len(parts) > 1:
        choice = _choice_of_runs(parts, config) if config.greedy else None
        kept = range(len(parts)) if choice is None else sorted(choice.kept)
        names = [part.run.name for part in parts]
        parts = [parts[place] for place in kept]
        found = _from_seeds(parts, [cross_fitted[place] for place in kept], config)
        if choice is not None:
            facts = {**found.facts, "member_choice": choice.to_dict(names)}
            found = dataclasses.replace(found, facts=facts)
    elif reserved and config.reserved:
        found = _from_reserved(parts[0], reserved, searches[0], config)
    else:
        return None
    members = tuple(hash_ for part in parts for hash_ in part.hashes.values())
    thresholds = dataclasses.replace(
        found, members=members, policy=parts[0].policy, diameter=parts[0].diameter
    )
    write_thresholds(record, thresholds)
    return thresholds, record


def _choice_of_runs(parts: Sequence[OofRun], config: CalibrateConfig) -> MemberChoice:
    """Runs whose members raise the score of the mean out-of-fold flows, at the thresholds of the training."""
    mask, images = _start_mask(parts), _averaged(parts, "plain")

    def scores_of(places: tuple[int, ...]) -> NDArray[np.float64]:
        chosen = [parts[place] for place in places]
        title = " + ".join(part.run.name for part in chosen)
        own = ThresholdScores(_averaged(chosen, "plain"), config.grid, mask, config.select_metric)
        return own.each(mask, title)

    return choose_members(len(parts), scores_of, images.groups, seed=config.seed)


def _start_mask(parts: Sequence[OofRun]) -> MaskConfig:
    """Thresholds that all were trained with, or the defaults."""
    masks = {part.mask for part in parts}
    return masks.pop() if len(masks) == 1 else MaskConfig()


def _averaged(parts: Sequence[OofRun], variant: Variant) -> CalibrationImages:
    """The images of runs of one split, with the average of their flows."""

    def flows(name: str) -> tuple[NDArray[Any], NDArray[Any], float]:
        found = [part.flows(name) for part in parts]
        mean = average_flows(((item[0], item[1]) for item in found), variant=variant)
        return mean[0], mean[1], float(np.mean([item[2] for item in found]))

    return parts[0].images(flows)


def _from_seeds(
    parts: Sequence[OofRun], cross_fitted: Sequence[pd.Series[float]], config: CalibrateConfig
) -> Thresholds:
    """Fit on the mean of the out-of-fold flows of several trainings of one split."""
    images = {variant: _averaged(parts, variant) for variant in VARIANTS}
    names = " and ".join(part.run.name for part in parts)
    source = f"mean out-of-fold flows of {names}, {len(parts[0].scores)} images"
    ids = list(parts[0].scores["id"])
    single = np.mean([scores.loc[ids].to_numpy() for scores in cross_fitted], axis=0)
    return _best_variant(images, source, _start_mask(parts), config, single=single)


def _from_reserved(
    part: OofRun, names: list[str], prior: ThresholdSearch, config: CalibrateConfig
) -> Thresholds:
    """Fit on images that no member trained or was selected on, predicted by all of them."""
    machine = choose_machine(config.runtime)
    opened = open_models(
        [str(part.run.path)], machine, unfinished=config.unfinished, calibrated=False
    )
    types = _column(part.dataset, "cell_type", names)
    groups = tuple(image_groups(part.dataset, part.run.folds).loc[names])
    with tempfile.TemporaryDirectory(prefix="cellflow-") as folder:
        stores, found = _predict_reserved(part.dataset, names, opened, Path(folder))

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
        single = _single_scores(images["plain"], stores, prior)
        return _best_variant(images, source, part.mask, config, prior=prior, single=single)


def _single_scores(
    images: CalibrationImages, stores: Sequence[FlowStore], search: ThresholdSearch
) -> NDArray[np.float64]:
    """Mean score of the single members on each reserved image, at the thresholds of single models.

    These were fitted on other images, so that the scores are as honest as the cross-fitted ones of the
    ensemble.
    """
    thresholds = search.fit()
    rows = list(zip(images.ids, images.found_types, strict=True))
    diameters = {name: images.flows(name)[2] for name in images.ids}
    scores = []
    for store in stores:

        def flows(name: str, store: FlowStore = store) -> tuple[NDArray[Any], NDArray[Any], float]:
            return (*store.read(name), diameters[name])

        own = dataclasses.replace(images, flows=flows)
        scored = dataclasses.replace(search.scores, images=own, _known={})
        scores.append([scored.once(name, thresholds.of(kind)) for name, kind in rows])
    return np.asarray(np.mean(scores, axis=0))


def _predict_reserved(
    dataset: Dataset, names: list[str], opened: Opened, folder: Path
) -> tuple[list[FlowStore], dict[str, tuple[float, str]]]:
    """Flows of every member, and for each image the diameter and the cell type that were taken."""
    stores = [FlowStore(folder / f"{place}.zarr", mode="w") for place in range(len(opened.members))]
    segmenter = Segmenter(
        opened.members, MaskConfig(), policy=opened.policy, diameter=opened.diameter
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
    config: CalibrateConfig,
    *,
    prior: ThresholdSearch | None = None,
    single: NDArray[np.float64],
) -> Thresholds:
    """Thresholds with the way of averaging that scores best when cross-fitted.

    `single` are the scores of single models on the same images.
    """
    fits: dict[Variant, tuple[float, Thresholds]] = {}
    for variant, part in images.items():
        search = threshold_search_of(part, mask, config, prior)
        cross_fitted = search.cross_fit()[0]
        thresholds = search.fit()
        facts = fitted_facts(search, thresholds, cross_fitted, config) | {
            "average": variant,
            "against_single": _against_single(cross_fitted, single, part.groups),
        }
        fits[variant] = float(cross_fitted.mean()), dataclasses.replace(thresholds, facts=facts)
    best: Variant = "plain"
    for variant, (score, _) in fits.items():
        if score > max(fits["plain"][0] + MIN_VARIANT_GAIN, fits[best][0]):  # never where it is nan
            best = variant
    compared = {variant: number_or_null(score) for variant, (score, _) in fits.items()}
    thresholds = fits[best][1]
    facts = {**thresholds.facts, "averages_compared": compared}
    return dataclasses.replace(thresholds, source=fitted_source(source, config), facts=facts)


def _against_single(
    ensemble: NDArray[np.float64], single: NDArray[np.float64], groups: Sequence[str]
) -> dict[str, float | None]:
    """Mean scores of the ensemble and of single models, and what it gains, paired, with its 95 % interval."""
    gain = ensemble - single
    if np.isnan(gain).any():  # one group, which cannot be cross-fitted
        return {}
    interval = bootstrap_mean(gain, groups)
    values = {
        "ensemble": float(ensemble.mean()),
        "single": float(single.mean()),
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
    }
    return {name: number_or_null(value) for name, value in values.items()}


def _column(dataset: Dataset, name: str, ids: list[str]) -> tuple[str, ...]:
    if name not in dataset.images:
        return ("",) * len(ids)
    return tuple(str(value) for value in dataset.images.loc[ids, name])

"""What is known of fitted thresholds: gains, errors, scores."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.config import CalibrateConfig, MaskConfig, config_to_dict
from cellflow.config.metrics import SELECT_NAMES
from cellflow.engine.runs.identity import versions
from cellflow.engine.runs.thresholds import ALL_TYPES, Thresholds
from cellflow.engine.validation.threshold_scores import CalibrationImages
from cellflow.engine.validation.threshold_search import ThresholdSearch
from cellflow.numeric.bootstrap import MIN_GROUPS

__all__ = []


def threshold_search_of(
    images: CalibrationImages,
    mask: MaskConfig,
    config: CalibrateConfig,
    prior: ThresholdSearch | None = None,
) -> ThresholdSearch:
    return ThresholdSearch(
        images,
        config.grid,
        mask,
        config.shrinkage,
        config.smoothing,
        prior,
        config.select_metric,
    )


def fitted_facts(
    search: ThresholdSearch,
    thresholds: Thresholds,
    cross_fitted: NDArray[np.float64],
    config: CalibrateConfig,
) -> dict[str, Any]:
    """What people want to know of fitted thresholds: scores by the metric they were fitted for, curves, settings."""
    types = np.array(search.images.types)
    scores, curves, errors = {}, {}, {}
    for cell_type in ("", *thresholds.per_type):
        part = np.flatnonzero((types == cell_type) | (cell_type == ""))
        name = cell_type or ALL_TYPES
        scores[name] = {
            "images": len(part),
            "training_thresholds": float(search.scores.at(part, search.base).mean()),
            "cross_fitted": number_or_null(float(cross_fitted[part].mean())),
            "fitted_on_itself": float(_fitted(search, thresholds, part).mean()),
        }
        curves[name] = search.scores.curves(thresholds.of(cell_type), cell_type)
        errors[name] = search.scores.errors(thresholds.of(cell_type), cell_type)
    decisions = {
        name or ALL_TYPES: {
            "optimum": dataclasses.asdict(item.optimum),
            "taken": item.taken,
            "gain": number_or_null(item.gain),
            "error": number_or_null(item.error) if item.groups >= MIN_GROUPS else None,
            "groups": item.groups,
            "why": item.why,
        }
        for name, item in search.decisions().items()
    }
    settings = {key: value for key, value in config_to_dict(config).items() if key in _SETTINGS}
    return {
        "metric": search.metric,
        "scores": scores,
        "curves": curves,
        "errors": errors,
        "decisions": decisions,
        "settings": settings,
        "versions": versions(),
    }


def fitted_source(source: str, config: CalibrateConfig) -> str:
    """What thresholds were fitted on, and for which metric where that is not the score."""
    if config.select_metric == "competition":
        return source
    return f"{source}, fitted for {SELECT_NAMES[config.select_metric]}"


def number_or_null(score: float) -> float | None:
    """A score as JSON has it."""
    return None if np.isnan(score) else score


_SETTINGS = ("grid", "shrinkage", "smoothing", "seed", "select_metric")


def _fitted(
    search: ThresholdSearch, thresholds: Thresholds, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Scores at thresholds that were fitted on these very images."""
    found = [thresholds.of(search.images.found_types[row]) for row in rows]
    return np.array(
        [search.scores.at([row], mask)[0] for row, mask in zip(rows, found, strict=True)]
    )

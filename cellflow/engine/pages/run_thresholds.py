"""Thresholds of a run for its page: the curves, what was chosen, and whether folds agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from cellflow.config.metrics import SELECT_NAMES
from cellflow.engine.runs.thresholds import ALL_TYPES, AXIS_NAMES, Thresholds
from cellflow.report.pages.run_facts import ThresholdFacts
from cellflow.report.pages.threshold_charts import place_on_curve
from cellflow.storage.records import dict_or_empty, number_or_none

__all__ = ["SWING_STEPS", "swing", "threshold_facts"]

SWING_STEPS = 3
"""Steps of the grid from which on values that were fitted without one fold each count as swinging."""

Curve = list[list[float]]


def threshold_facts(found: Thresholds) -> ThresholdFacts:
    """What a page shows of thresholds; curves that are damaged are left out."""
    facts = found.facts
    chosen = {ALL_TYPES: dataclasses.asdict(found.shared)}
    chosen |= {name: dataclasses.asdict(mask) for name, mask in found.per_type.items()}
    curves = _curves(facts.get("curves"))
    folds = {
        str(fold): dict_or_empty(dict_or_empty(item).get("shared"))
        for fold, item in dict_or_empty(facts.get("folds")).items()
    }
    decisions = dict_or_empty(facts.get("decisions"))
    why = {name: str(dict_or_empty(item).get("why", "")) for name, item in decisions.items()}
    scores = {
        name: {
            key: number_or_none(dict_or_empty(item).get(key))
            for key in ("images", "training_thresholds", "cross_fitted")
        }
        for name, item in dict_or_empty(facts.get("scores")).items()
    }
    swings = [swing(name, folds, curves.get(ALL_TYPES, {}).get(name, [])) for name in AXIS_NAMES]
    return ThresholdFacts(
        source=found.source, chosen=chosen, curves=curves,
        fold_curves=_curves(facts.get("fold_curves")), fold_chosen=folds, why=why, scores=scores,
        metric=SELECT_NAMES.get(str(facts.get("metric", "competition")), "score"),
        swings=[item for item in swings if item],
    )  # fmt: skip


def swing(name: str, folds: Mapping[str, Mapping[str, Any]], curve: Curve) -> dict[str, Any]:
    """How far a threshold moves when each fold in turn is left out of the fit, and what that is worth.

    Parameters
    ----------
    name : str
        The threshold.
    folds : mapping
        From a fold to the settings fitted without it.
    curve : list of [value, score]
        Mean score of all images along the grid, in its order.

    Returns
    -------
    dict
        `values` by fold, `steps` of the grid between the outermost, `costs` (the largest difference of the
        mean score between any two of them), and whether it `swings`: `SWING_STEPS` steps or more. Empty
        where fewer than two folds are known, or the grid is not.
    """
    known = {fold: number_or_none(item.get(name)) for fold, item in folds.items()}
    values = {fold: value for fold, value in known.items() if value is not None}
    if len(values) < 2 or not curve:
        return {}
    places = [place_on_curve(curve, value, name) for value in values.values()]
    scores = [curve[place][1] for place in places]
    steps = max(places) - min(places)
    return {
        "threshold": name,
        "values": values,
        "steps": steps,
        "costs": max(scores) - min(scores),
        "swings": steps >= SWING_STEPS,
    }


def _curves(found: Any) -> dict[str, dict[str, Curve]]:
    """Curves by name and threshold, without those that are no pairs of numbers."""
    kept: dict[str, dict[str, Curve]] = {}
    for name, axes in dict_or_empty(found).items():
        lines = {
            axis: [[float(value), float(score)] for value, score in pairs]
            for axis, pairs in dict_or_empty(axes).items()
            if _is_curve(pairs)
        }
        if lines:
            kept[str(name)] = lines
    return kept


def _is_curve(pairs: Any) -> bool:
    return (
        isinstance(pairs, list)
        and bool(pairs)
        and all(
            isinstance(pair, list) and len(pair) == 2 and None not in map(number_or_none, pair)
            for pair in pairs
        )
    )

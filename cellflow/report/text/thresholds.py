"""Thresholds and the cross-validation at them, as `cellflow calibrate` prints them."""

from __future__ import annotations

import dataclasses
from typing import Any

from cellflow.config import MaskConfig
from cellflow.config.metrics import SELECT_NAMES
from cellflow.report.text.cv import cv_text
from cellflow.report.text.diameters import diameters_text

__all__ = ["calibration_text", "mask_text", "thresholds_text"]

_ALWAYS = ("cellprob_threshold", "flow_threshold", "min_size")


def calibration_text(result: Any) -> str:
    """A `CalibrationResult`: scores and thresholds of every run and of their ensemble, and where they lie."""
    lines = []
    for run, thresholds, cv in zip(result.runs, result.thresholds, result.cv, strict=True):
        lines += [cv_text(cv), f"\n{thresholds_text(thresholds)}"]
        lines.append(f"Written: {run.thresholds}, {run.cv}, {run.calibration}")
    if result.ensemble is not None:
        lines.append(f"\nensemble: {thresholds_text(result.ensemble)}")
        lines.append(f"Written: {result.record}")
    return "\n".join(lines)


def thresholds_text(thresholds: Any) -> str:
    """`Thresholds` with their source and what they gain, and which diameters they are for."""
    metric = thresholds.facts.get("metric", "competition")
    name_of = "score" if metric == "competition" else SELECT_NAMES[metric]
    lines = [f"thresholds from {thresholds.source}:"]
    known = thresholds.facts["scores"]  # that of all types has a name of its own
    width = max([12, *map(len, known)])
    for name, scores in known.items():
        fitted = scores["cross_fitted"]
        after = (
            "-> one group, not cross-fitted" if fitted is None else f"-> {fitted:.4f} cross-fitted"
        )
        lines.append(f"  {name:{width}} {mask_text(thresholds.of(name))}")
        lines.append(
            f"  {'':{width}} {name_of} {scores['training_thresholds']:.4f} {after}, {scores['images']} images"
        )
    if thresholds.facts.get("diameters"):
        lines.append(diameters_text(thresholds.facts["diameters"]))
    return "\n".join(lines)


def mask_text(mask: MaskConfig) -> str:
    """A setting as people read it: the three thresholds, and what else differs from the defaults."""
    values, default = dataclasses.asdict(mask), dataclasses.asdict(MaskConfig())
    shown = [name for name in values if name in _ALWAYS or values[name] != default[name]]
    return ", ".join(f"{name} {values[name]:g}" for name in shown)

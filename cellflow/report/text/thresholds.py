"""Thresholds and the cross-validation at them, as `cellflow calibrate` prints them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from cellflow.config import MaskConfig
from cellflow.config.metrics import SELECT_NAMES
from cellflow.report.text.cv import cv_text
from cellflow.report.text.diameters import diameters_text

__all__ = ["calibration_text", "mask_text", "thresholds_text"]

_ALWAYS = ("cellprob_threshold", "flow_threshold", "min_size")


class Thresholds(Protocol):
    """Thresholds by cell type, see `cellflow.engine.runs.thresholds.Thresholds`."""

    @property
    def source(self) -> str: ...
    @property
    def facts(self) -> Mapping[str, Any]: ...
    def of(self, cell_type: str) -> MaskConfig: ...


class Run(Protocol):
    """Files of a run that calibration writes."""

    @property
    def thresholds(self) -> Path: ...
    @property
    def cv(self) -> Path: ...
    @property
    def calibration(self) -> Path: ...


class Calibration(Protocol):
    """What came of a calibration, see `cellflow.engine.validation.calibrate.CalibrationResult`."""

    @property
    def runs(self) -> Sequence[Run]: ...
    @property
    def thresholds(self) -> Sequence[Thresholds]: ...
    @property
    def cv(self) -> Sequence[pd.DataFrame]: ...
    @property
    def ensemble(self) -> Thresholds | None: ...
    @property
    def record(self) -> Path | None: ...


def calibration_text(result: Calibration) -> str:
    """Scores and thresholds of every run and of their ensemble, and where they lie."""
    lines = []
    for run, thresholds, cv in zip(result.runs, result.thresholds, result.cv, strict=True):
        lines += [cv_text(cv), f"\n{thresholds_text(thresholds)}"]
        lines.append(f"Written: {run.thresholds}, {run.cv}, {run.calibration}")
    if result.ensemble is not None:
        lines.append(f"\nensemble: {thresholds_text(result.ensemble)}")
        if result.ensemble.facts.get("member_choice"):
            lines.append(choice_text(result.ensemble.facts["member_choice"]))
        lines.append(f"Written: {result.record}")
    return "\n".join(lines)


def thresholds_text(thresholds: Thresholds) -> str:
    """Thresholds with their source and what they gain, and which diameters they are for."""
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


def choice_text(choice: Mapping[str, Any]) -> str:
    """Members that were kept and left out, with the score after each, and what choosing flatters."""
    taken = zip(choice["kept"], choice["scores"], strict=True)
    lines = [
        f"  {'with' if place else 'kept'} {name}: {score:.4f}"
        for place, (name, score) in enumerate(taken)
    ]
    out = ", ".join(choice["left_out"])
    lines.append(f"  left out: {out or 'none'}; all together: {choice['every']:.4f}")
    bias = choice["selection_bias"]
    flatters = "not known of one group" if bias is None else f"{bias:.4f}"
    lines.append(f"  how much this choice flatters these scores: {flatters}")
    return "\n".join(lines)


def mask_text(mask: MaskConfig) -> str:
    """A setting as people read it: the three thresholds, and what else differs from the defaults."""
    values, default = dataclasses.asdict(mask), dataclasses.asdict(MaskConfig())
    shown = [name for name in values if name in _ALWAYS or values[name] != default[name]]
    return ", ".join(f"{name} {values[name]:g}" for name in shown)

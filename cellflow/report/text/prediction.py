"""Predictions and what they would take, as `cellflow predict` and `cellflow ensemble` print them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any, Protocol

from cellflow.report.text.table import named_lines
from cellflow.storage.sizes import duration_text, few_text, plural

__all__ = ["prediction_plan_text", "prediction_text"]


class Prediction(Protocol):
    """What a prediction wrote, see `cellflow.engine.prediction.ensemble.EnsembleResult`."""

    @property
    def folder(self) -> Path: ...
    @property
    def masks(self) -> Path: ...
    @property
    def cells(self) -> Mapping[str, int]: ...
    @property
    def members(self) -> int: ...
    @property
    def written(self) -> tuple[str, ...]: ...
    @property
    def slides(self) -> Mapping[str, Any]: ...


def prediction_text(result: Prediction) -> str:
    """What a prediction found, what of it lies where, and how to look at it."""
    members = "" if result.members == 1 else f", mean flow of {result.members} models"
    lines = [
        f"{plural(sum(result.cells.values()), 'cell')} in {plural(len(result.cells), 'image')}{members}",
    ]
    if result.written:
        lines.append(f"Written: {result.folder}: {', '.join(result.written)}")
    shown = max(result.cells, key=lambda name: result.cells[name], default="")
    mask, outline = result.masks / f"{shown}.tif", result.folder / "outlines" / f"{shown}.png"
    if outline.is_file():
        lines.append(f"Open: {outline}")
    elif mask.is_file():
        lines.append(f"Open: napari --layer-type labels {quote(str(mask))}, or drag it onto Fiji")
    if result.slides:
        lines += _slide_lines(result.slides)
    return "\n".join(lines)


def _slide_lines(slides: Mapping[str, Any]) -> list[str]:
    """How to look at slides, by the one with the most cells; blocks that are missing."""
    shown = max(slides.values(), key=lambda slide: slide.cells)
    lines = [
        f"Open: napari --layer-type labels {quote(str(shown.labels))} over its image",
        f"QuPath: open the image and drag {shown.outlines} onto it",
        f"Table: {shown.table}",
    ]
    lines += [
        f"{name}: {plural(len(slide.failed), 'block')} could not be predicted ({few_text(slide.failed)}) and "
        "hold no cells; repeat the command to try them again"
        for name, slide in slides.items()
        if slide.failed
    ]
    return lines


def prediction_plan_text(plan: Any) -> str:
    """What a prediction would take, by its `PredictionPlan`."""
    return named_lines(
        {
            "images": f"{plan.images}, {plan.done} of them done",
            "members": f"{plural(plan.members, 'network')}, {plural(plan.views, 'view')} each",
            "thresholds": plan.thresholds,
            "machine": plan.machine.replace("amp None", "float32"),
            "an image": f"{plan.seconds_per_image:.2f} s, measured on the first ones",
            "time": f"{duration_text(plan.seconds)} for those that are left",
            "results": str(plan.folder),
        }
    )

"""Pictures of a calibration: scores along each threshold, and why a point was chosen."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cellflow.report._figure import BLUE, GREY, ORANGE, RED, save_figure

__all__ = ["plot_curves"]

RULE = (
    "A value may score higher here and yet not be chosen: all three are chosen together, scores are "
    "smoothed with those of neighbouring values (a cell type's drawn towards those of all images), every "
    "step away from the training's thresholds costs 0.0002, and an optimum must gain more than its "
    "standard error on images it was not fitted on."
)
WITH_ERRORS = (
    "Bands: standard error of the difference to what is chosen, whole groups; a line whose band reaches "
    "the dashed level cannot be told from it."
)
WITHOUT_ERRORS = "No bands: too few groups to know the standard error of a difference."
LETTERS = 54
"""Letters of the text for every panel's width."""


def plot_curves(
    path: Path,
    curves: Mapping[str, Sequence[Sequence[float]]],
    *,
    title: str,
    chosen: Mapping[str, float],
    errors: Mapping[str, Sequence[float | None]],
    why: str,
    score: str = "competition score",
) -> None:
    """Write a PNG with one panel per threshold: score over its values, the others as chosen.

    The chosen value and the highest one are marked, with what the highest would gain.

    Parameters
    ----------
    path : Path
        File to write, atomically.
    curves : mapping
        From the name of a threshold to ``[value, score]`` pairs in the order of the grid. A flow
        threshold of 0 is "no check" and drawn at the right end.
    title : str
        Title of the picture.
    chosen : mapping
        Value of each threshold that was chosen.
    errors : mapping
        From the name of a threshold to the standard error of the difference to the chosen value, for
        each of its values; None where it is not known.
    why : str
        Why these thresholds were chosen.
    score : str
        What the scores are.
    """
    width = LETTERS * len(curves)
    known = any(error for values in errors.values() for error in values)
    notes = (why, WITH_ERRORS if known else WITHOUT_ERRORS, RULE)
    text = "\n".join(textwrap.fill(note, width) for note in notes)
    height = 3.6 + 0.19 * (text.count("\n") + 1)
    figure = Figure(figsize=(4.2 * len(curves), height), layout="constrained")
    figure.suptitle(title, fontsize=12, fontweight="bold", parse_math=False)
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for axes, (name, pairs) in zip(panels, curves.items(), strict=True):
        _plot_curve(axes, name, pairs, chosen[name], errors[name])
    panels[0].set_ylabel(score)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=9, color=GREY)
    save_figure(path, figure)


def _plot_curve(
    axes: Axes,
    name: str,
    pairs: Sequence[Sequence[float]],
    chosen: float,
    errors: Sequence[float | None],
) -> None:
    values, scores = np.array(pairs, dtype=np.float64).T
    places = np.arange(len(values))
    spread = np.array([np.nan if error is None else error for error in errors])
    axes.plot(places, scores, "o-", color=BLUE, markersize=4)
    axes.fill_between(places, scores - spread, scores + spread, color=BLUE, alpha=0.18, lw=0)
    labels = ["off" if name == "flow_threshold" and not value else f"{value:g}" for value in values]
    every = max(1, len(values) // 8)
    axes.set_xticks(places[::every], labels[::every])
    axes.set_xlabel(name)
    axes.grid(color=GREY, alpha=0.2)
    place, best = int(np.abs(values - chosen).argmin()), int(scores.argmax())
    label = f"chosen {labels[place]}: {scores[place]:.4f}"
    axes.axvline(place, color=RED, linestyle="--", linewidth=1.2, label=label)
    axes.axhline(scores[place], color=RED, linestyle="--", linewidth=0.6)
    if scores[best] > scores[place]:
        gain = f"{scores[best] - scores[place]:+.4f}"
        if not np.isnan(spread[best]):
            gain += f" \N{PLUS-MINUS SIGN} {spread[best]:.4f}"
        axes.plot(
            [best], [scores[best]], "D", color=ORANGE, ms=8, mec="white", zorder=5,
            label=f"highest {labels[best]}: {gain}",
        )  # fmt: skip
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=9, ncols=2)

"""Pictures of a calibration: scores along each threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cellflow.report._figure import BLUE, GREY, RED, save_figure

__all__ = ["plot_curves"]


def plot_curves(
    path: Path,
    curves: dict[str, list[list[float]]],
    *,
    title: str,
    chosen: dict[str, float] | None = None,
) -> None:
    """Write a PNG with one panel per threshold: score over its values, the others at their optimum.

    Parameters
    ----------
    path : Path
        File to write, atomically.
    curves : dict
        From the name of a threshold to ``[value, score]`` pairs in the order of the grid. A flow
        threshold of 0 is "no check" and drawn at the right end.
    title : str
        Title of the picture.
    chosen : dict, optional
        Value of each threshold that was chosen.
    """
    figure = Figure(figsize=(4.2 * len(curves), 3.6), layout="constrained")
    figure.suptitle(title, fontsize=12, fontweight="bold", parse_math=False)
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for axes, (name, pairs) in zip(panels, curves.items(), strict=True):
        values, scores = np.array(pairs, dtype=np.float64).T
        places = np.arange(len(values))
        axes.plot(places, scores, "o-", color=BLUE, markersize=4)
        labels = [
            "off" if name == "flow_threshold" and not value else f"{value:g}" for value in values
        ]
        every = max(1, len(values) // 8)
        axes.set_xticks(places[::every], labels[::every])
        axes.set_xlabel(name)
        axes.grid(color=GREY, alpha=0.2)
        if chosen is not None:
            place = int(np.abs(values - chosen[name]).argmin())
            axes.axvline(place, color=RED, linestyle="--", linewidth=1.2, label="chosen")
            axes.legend(frameon=False)
    panels[0].set_ylabel("score")
    save_figure(path, figure)

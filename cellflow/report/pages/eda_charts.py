"""Charts of the page of `cellflow eda`. Boxes and histograms come as figures, so that pages stay small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cellflow.report.pages.chart import COLOURS, Chart, axes, literal, log_axis
from cellflow.report.pages.table import Column, Table
from cellflow.storage.sizes import type_text

__all__ = [
    "BOXES",
    "fold_charts",
    "group_charts",
    "intensity_charts",
    "number_charts",
    "size_charts",
]

MOST_TYPES = 10
"""Types that are drawn; the tables have them all."""
MOST_POINTS = 3000
"""Points of a chart; of more images every second, third ... is drawn."""
_BINS = 36
_BAR_LEGEND = {"orientation": "h", "y": -0.2, "traceorder": "normal"}
BOXES = (
    "A box holds the middle half, its line is the median, and its ends leave 5 % on either side."
)

Layout = dict[str, Any]


def size_charts(images: pd.DataFrame, cells: pd.DataFrame) -> list[Chart]:
    """Diameters of cells, and the images by their size and number of cells."""
    if cells.empty:
        return []
    kinds = _types(images)
    of_cell = cells["id"].map(images["cell_type"])
    diameters = {kind: cells.loc[of_cell == kind, "diameter"] for kind in kinds}
    areas = {kind: cells.loc[of_cell == kind, "area"] for kind in kinds}
    known = images[images["diameter"] > 0]
    medians = {kind: known.loc[known["cell_type"] == kind, "diameter"] for kind in kinds}
    return [
        _histogram("diameters", "Diameters of cells", "diameter, pixels", diameters),
        _boxes(
            "diameter-boxes",
            "Diameters by type: cells, and medians of images",
            "diameter, pixels",
            {"cells": diameters, "medians of images": medians},
            "Where boxes of images are short, one diameter for the type will do; where they are long, each image "
            "needs its own.",
        ),
        _boxes("areas", "Areas of cells", "area, pixels", {"cells": areas}),
        _cloud(
            known,
            ("crowd", "Every image: number and size of cells"),
            ("n_cells", "cells"),
            ("diameter", "median diameter, pixels"),
            "Each point is an image; point at it for its id. Images far from the others deserve a look.",
        ),
    ]


def number_charts(images: pd.DataFrame) -> list[Chart]:
    """Cells of each image, and how densely they lie."""
    return [
        _image_boxes(images, ("cells-per-image", "Cells per image", "cells"), {"n_cells": "cells"}),
        _image_boxes(
            images,
            ("covered", "Share of the image in cells", "% of the pixels"),
            {"covered": "in cells"},
            times=100,
            log=False,
        ),
    ]


def intensity_charts(images: pd.DataFrame) -> list[Chart]:
    """Brightness of the images: means, percentiles, and cells against the rest."""
    parts = {"p1": "percentile 1", "p50": "median", "p99": "percentile 99"}
    several = " Images are of several types of pixels, so they cannot be compared directly."
    told = several if images["dtype"].nunique() > 1 else ""
    return [
        _image_boxes(
            images,
            ("brightness", "Mean intensity of images", "intensity, as in the files"),
            {"mean": "mean"},
            f"The mean over all pixels and channels of an image.{told}",
            log=False,
        ),
        _image_boxes(
            images,
            ("percentiles", "Dark, middle and bright pixels", "intensity, as in the files"),
            parts,
            f"Of each image the intensity that 1, 50 and 99 % of the pixels do not exceed.{told}",
            log=False,
        ),
        _cloud(
            images,
            ("light", "Every image: brightness, and cells against the rest"),
            ("mean", "mean intensity"),
            ("contrast", "contrast of cells"),
            "Contrast: how much brighter cells are than the rest, in standard deviations of the image; below 0 they "
            "are darker.",
            log=False,
        ),
    ]


def group_charts(images: pd.DataFrame, group: str | None) -> list[Chart]:
    """How many images groups have, by type."""
    counts = images.groupby("group").size()
    numbers = np.unique(counts)
    kinds = _types(images)
    first = images.groupby("group")["cell_type"].agg(lambda column: column.mode().iloc[0])
    of_kind = {
        kind: [int(((counts == n) & (first == kind)).sum()) for n in numbers] for kind in kinds
    }
    about = "group-sizes", "Sizes of groups", "images in the group", "groups"
    says = (
        f"Groups are the values of {literal(group)}; a group stays in one fold, whatever its size."
    )
    return [_stacked(about, [str(number) for number in numbers], of_kind, says)]


def fold_charts(images: pd.DataFrame) -> list[Chart]:
    """Images and cells of each fold, by type."""
    folds = sorted(images["fold"].dropna().unique())
    names = ["reserved" if fold < 0 else f"fold {int(fold)}" for fold in folds]
    kinds = _types(images)
    parts = {kind: images[images["cell_type"] == kind].groupby("fold") for kind in kinds}
    sizes = {kind: part.size() for kind, part in parts.items()}
    cells = {kind: part["n_cells"].sum() for kind, part in parts.items()}
    return [
        _stacked(
            (f"fold-{what}", f"{what.capitalize()} of each fold", "", what),
            names,
            {kind: [int(sums.get(fold, 0)) for fold in folds] for kind, sums in of_kind.items()},
            height=300,
        )
        for what, of_kind in (("images", sizes), ("cells", cells))
    ]


def _stacked(
    about: tuple[str, str, str, str],
    x: list[str],
    counts: Mapping[str, list[int]],
    says: str = "",
    *,
    height: int = 340,
) -> Chart:
    """Bars of the types on top of each other; `about`: name, title, titles of the axes."""
    name, title, *titles = about
    traces = [
        {
            "type": "bar", "name": literal(type_text(kind)), "x": x, "y": values,
            "marker": {"color": _colour(place)},
        }
        for place, (kind, values) in enumerate(counts.items())
    ]  # fmt: skip
    more = {"barmode": "stack", "legend": _BAR_LEGEND, "showlegend": len(counts) > 1}
    layout = axes(*titles) | more
    layout["xaxis"]["type"] = "category"
    return Chart(name, title, traces, layout, says, height=height)


def _types(images: pd.DataFrame) -> list[str]:
    """The most frequent types."""
    return [str(kind) for kind in images["cell_type"].value_counts().index[:MOST_TYPES]]


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _histogram(name: str, title: str, axis: str, values: Mapping[str, pd.Series[float]]) -> Chart:
    """Shares of cells in bins that grow in proportion: sizes are told apart by their ratio."""
    every = np.concatenate([part.to_numpy(np.float64) for part in values.values()])
    low, high = np.percentile(every, (0, 100))
    edges = np.geomspace(low / 1.02, max(high, low) * 1.02, _BINS + 1)
    traces = []
    for place, (kind, part) in enumerate(values.items()):
        counts = np.histogram(part, edges)[0]
        share = 100 * counts / max(1, counts.sum())
        traces.append(
            {
                "type": "scatter", "mode": "lines", "name": literal(type_text(kind) if kind else "cells"),
                "x": _rounded(np.concatenate([edges[:1], edges])),
                "y": _rounded(np.concatenate([[0], share, [0]])),
                "line": {"shape": "hv", "color": _colour(place), "width": 2},
                "fill": "tozeroy", "fillcolor": _soft(_colour(place)),
                "hovertemplate": "%{x:.1f} pixels: %{y:.1f} %<extra>%{fullData.name}</extra>",
            }
        )  # fmt: skip
    layout = axes(axis, "% of the cells of the type" if len(values) > 1 else "% of the cells")
    layout["xaxis"] |= _log_axis(low, high)
    layout["showlegend"] = len(values) > 1
    says = "The diameter of a cell is that of a disc of its area. Bins grow in proportion."
    return Chart(name, title, traces, layout, says)


def _boxes(
    name: str,
    title: str,
    axis: str,
    parts: Mapping[str, Mapping[str, pd.Series[float]]],
    says: str = "",
    *,
    log: bool = True,
) -> Chart:
    """Boxes of each type (`parts`: by what is drawn, then by type), from their percentiles."""
    traces: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    ends: list[tuple[float, float]] = []
    kinds = list(next(iter(parts.values())))
    for place, (part, values) in enumerate(parts.items()):
        known = {kind: column.dropna() for kind, column in values.items()}
        known = {kind: column for kind, column in known.items() if len(column)}
        fences = {
            kind: np.percentile(column, (5, 25, 50, 75, 95)) for kind, column in known.items()
        }
        names = [literal(type_text(kind) if kind else "all") for kind in fences]
        columns = zip(*fences.values(), strict=True) if fences else [()] * 5
        keys = ("lowerfence", "q1", "median", "q3", "upperfence")
        traces.append(
            {
                "type": "box", "name": part, "x": names, "hoverinfo": "y",
                "marker": {"color": _colour(place)},
                **{key: _rounded(column) for key, column in zip(keys, columns, strict=True)},
            }
        )  # fmt: skip
        ends += [(fence[0], fence[4]) for fence in fences.values()]
        rows += [
            {"type": type_text(kind), "of": part, "n": len(known[kind])}
            | dict(zip(("low", "q1", "median", "q3", "high"), fences[kind], strict=True))
            for kind in fences
        ]
    layout = axes("", axis)
    drawn = [float(value) for fence in ends for value in fence]
    if log and drawn and min(drawn) > 0:
        layout["yaxis"] |= _log_axis(min(drawn), max(drawn))
    layout |= {"boxmode": "group", "showlegend": len(parts) > 1}
    layout["xaxis"]["type"] = "category"
    if kinds == [""] and len(parts) == 1:
        layout["xaxis"]["showticklabels"] = False
    return Chart(name, title, traces, layout, says, _box_table(title, rows))


def _box_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("type", "Cell type"), Column("of", "Of"), Column("n", "How many"),
        Column("low", "5 %", 1), Column("q1", "25 %", 1), Column("median", "Median", 1),
        Column("q3", "75 %", 1), Column("high", "95 %", 1),
    ]  # fmt: skip
    return Table(title, columns, rows)


def _image_boxes(
    images: pd.DataFrame,
    about: tuple[str, str, str],
    columns: Mapping[str, str],
    says: str = "",
    *,
    times: float = 1,
    log: bool = True,
) -> Chart:
    """Boxes of columns of the images, by type; `about`: name, title, axis."""
    kinds = _types(images)
    parts = {
        word: {kind: times * images.loc[images["cell_type"] == kind, column] for kind in kinds}
        for column, word in columns.items()
    }
    return _boxes(*about, parts, says, log=log)


def _cloud(
    images: pd.DataFrame,
    about: tuple[str, str],
    x: tuple[str, str],
    y: tuple[str, str],
    says: str,
    *,
    log: bool = True,
) -> Chart:
    """A point for each image; `about`: name and title, `x` and `y`: column and title of the axis."""
    step = -(-len(images) // MOST_POINTS) or 1
    shown = images.iloc[::step]
    traces = []
    for place, kind in enumerate(_types(images)):
        members = shown[shown["cell_type"] == kind]
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": literal(type_text(kind) if kind else "images"),
                "x": _rounded(members[x[0]]), "y": _rounded(members[y[0]]),
                "text": [literal(name) for name in members.index],
                "marker": {"color": _colour(place), "size": 8, "opacity": 0.75},
                "hovertemplate": "%{text}<br>" + f"{x[1]} %{{x}}, {y[1]} %{{y}}<extra></extra>",
            }
        )  # fmt: skip
    layout = axes(x[1], y[1]) | {"showlegend": len(traces) > 1}
    if log:
        for axis, (column, _) in (("xaxis", x), ("yaxis", y)):
            values = shown[column][shown[column] > 0]
            if len(values):
                layout[axis] |= _log_axis(values.min(), values.max())
    if step > 1:
        says += f" Drawn is one image of {step}."
    return Chart(*about, traces, layout, says)


def _log_axis(low: float, high: float) -> Layout:
    """A logarithmic axis with ticks at 1, 2 and 5; a linear one where values are about alike."""
    if not low > 0 or high / low < 3:
        return {}
    return log_axis(low, high)


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.5g}") for value in np.asarray(values, np.float64)]


def _soft(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.13)"

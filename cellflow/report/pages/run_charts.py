"""Charts of a run's page: scores by fold, type and IoU threshold, courses of the training, types, diameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cellflow.report.pages.chart import COLOURS, Chart, intervals, literal, log_axis
from cellflow.report.pages.run_facts import FoldFacts, RunFacts
from cellflow.report.pages.table import Column, Table
from cellflow.report.text.cv import part_name
from cellflow.storage.sizes import type_text

__all__ = ["course_charts", "line_style", "pairs_by_type", "recognition_charts", "score_charts"]

Trace = dict[str, Any]
_PRECISION = re.compile(r"ap(\d\d)")
_DASHES = ("solid", "dash", "dot", "dashdot")
_HUES = COLOURS[:-1]
"""Without the grey, which is too dark on dark ground."""
WIDE_RANGE = 10.0
"""Losses that span more than this factor get a logarithmic axis."""


def line_style(place: int, width: float = 2) -> dict[str, Any]:
    """Colour, dashes and width of the line of a fold or a type; no two of 24 are the same."""
    return {
        "color": _HUES[place % len(_HUES)],
        "dash": _DASHES[place // len(_HUES) % len(_DASHES)],
        "width": width,
    }


def score_charts(facts: RunFacts) -> list[Chart]:
    """Expected score of every fold and type, and precision over the IoU."""
    charts = [_interval_chart(facts.cv)] if facts.cv is not None else []
    if facts.scores is not None:
        for column, name, title in (("fold", "fold {}", "fold"), ("cell_type", "{}", "cell type")):
            charts.append(_precision_chart(facts.scores, column, name, title))
    else:
        charts.append(_evaluated_precision(facts.folds))
    return [chart for chart in charts if chart is not None]


def _interval_chart(cv: pd.DataFrame) -> Chart | None:
    """Points with the intervals of `cv.csv`, one below the other."""
    rows = cv[cv["scope"].isin(["fold", "cell_type", "overall"])]
    value = rows["expected"] if "expected" in rows else pd.Series(np.nan, index=rows.index)
    value = value.fillna(rows["best_epoch"])
    if value.isna().all():
        return None
    low, high = (
        rows[key] if key in rows else pd.Series(np.nan, index=rows.index) for key in ("low", "high")
    )
    names = [literal(part_name(row, "all images")) for row in rows.to_dict("records")]
    trace = intervals(value, low, high, names, COLOURS[0])
    trace["hovertemplate"] = "%{y}: %{x:.3f}<extra></extra>"
    layout = {
        "xaxis": {"title": {"text": "score"}},
        "yaxis": {"autorange": "reversed", "type": "category"},
        "showlegend": False,
    }
    says = (
        "What a single model should score on new images: by fold, on each cell type, and on all; with 95 % intervals "
        "from whole groups of images; no line where there is one group."
    )
    height = 110 + 32 * len(names)
    title = "Score by fold and type" if (rows["scope"] == "cell_type").any() else "Score by fold"
    return Chart("by-part", title, [trace], layout, says, height=max(240, height))


def _precision_chart(scores: pd.DataFrame, column: str, name: str, title: str) -> Chart | None:
    """Mean precision at each IoU threshold, for each value of a column and for all images."""
    steps = _steps(scores)
    parts = [(value, rows) for value, rows in scores.groupby(column, sort=True)]
    if not steps or (column != "fold" and len(parts) < 2):
        return None
    lines = {name.format(type_text(value)): rows for value, rows in parts}
    lines = {"all images": scores, **lines} if len(parts) > 1 else lines
    table = {
        key: [float(rows[f"ap{at:02d}"].mean()) for at in steps] for key, rows in lines.items()
    }
    return _lines_over_iou(
        f"iou-{column.replace('_', '-')}", f"Precision over IoU, by {title}", steps, table
    )


def _evaluated_precision(folds: Sequence[FoldFacts]) -> Chart | None:
    """The same of the best epoch of each fold while there are no out-of-fold predictions."""
    steps: list[int] = []
    table = {}
    for item in folds:
        rows = item.evaluations
        if not len(rows) or item.epoch is None:
            continue
        best = rows[rows["epoch"] == item.epoch]
        steps = _steps(rows)
        if len(best) and steps:
            table[f"fold {item.fold}"] = [float(best[f"ap{at:02d}"].mean()) for at in steps]
    if not table:
        return None
    so_far = "" if all(item.state == "finished" for item in folds) else " so far"
    title = f"Precision over IoU at the best epoch{so_far}"
    return _lines_over_iou("iou-fold", title, steps, table)


def _steps(table: pd.DataFrame) -> list[int]:
    """IoU thresholds in percent that a table has a column for."""
    found = [_PRECISION.fullmatch(str(name)) for name in table]
    return sorted(int(item[1]) for item in found if item)


def _lines_over_iou(
    name: str, title: str, steps: Sequence[int], lines: Mapping[str, Sequence[float]]
) -> Chart:
    places = [step / 100 for step in steps]
    traces = [
        {
            "type": "scatter", "mode": "lines+markers", "x": places, "y": values, "name": literal(key),
            "line": line_style(place, 3 if key == "all images" else 1.7),
            "hovertemplate": "IoU %{x:.2f}: %{y:.3f}<extra>" + literal(key) + "</extra>",
        }
        for place, (key, values) in enumerate(lines.items())
    ]  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "IoU"}, "tickformat": ".2f"},
        "yaxis": {"title": {"text": "precision"}, "rangemode": "tozero"},
    }
    says = (
        "Precision is found / (found + missed + false) cells, as a mean over images; the score is the mean of "
        "these values. A line that falls early has outlines that are off; one that starts low misses cells."
    )
    columns = [
        Column("name", "Images of"),
        *(Column(f"at{step}", f"{step / 100:.2f}", 3) for step in steps),
    ]
    rows = [
        {"name": key, **{f"at{step}": value for step, value in zip(steps, values, strict=True)}}
        for key, values in lines.items()
    ]
    return Chart(name, title, traces, layout, says, Table(title, columns, rows))


def course_charts(facts: RunFacts) -> list[Chart]:
    """Loss, score and learning rate of all folds over the epochs."""
    begun = [item for item in facts.folds if len(item.history)]
    if not begun:
        return []
    losses = [trace for item in begun for trace in _loss_traces(item)]
    values = np.array([v for trace in losses for v in trace["y"] if v is not None and v > 0])
    wide = len(values) > 0 and values.max() > WIDE_RANGE * values.min()
    epochs = {"xaxis": {"title": {"text": "epoch"}}}
    scores = [trace for item in begun for trace in _score_traces(item)]
    rates = [_line(item, "learning_rate", {"showlegend": True, "mode": "lines"}) for item in begun]
    loss_axis = {
        "title": {"text": "loss"},
        **(log_axis(values.min(), values.max()) if wide else {}),
    }
    charts = [
        Chart(
            "loss", "Loss", losses, {**epochs, "yaxis": loss_axis},
            "Lines: training; diamonds: validation; a star marks the epoch that was chosen. A training loss that "
            "falls while the validation loss rises is overfitting.",
        ),
        Chart(
            "course", "Score of the validation images", scores,
            {**epochs, "yaxis": {"title": {"text": "score"}, "rangemode": "tozero"}},
            f"The {facts.select_metric} chooses the epoch, which the star marks"
            + ("" if facts.select_metric == "competition score" else "; drawn is the competition score")
            + ".",
            _best_table(begun),
        ),
        Chart(
            "rate", "Learning rate", rates,
            {**epochs, "yaxis": {"title": {"text": "learning rate"}, "rangemode": "tozero"}},
            "As it was given to the optimizer.",
        ),
    ]  # fmt: skip
    return [chart for chart in charts if any(len(trace["y"]) for trace in chart.traces)]


def _line(item: FoldFacts, column: str, more: Mapping[str, Any]) -> Trace:
    """A column of a fold's history, where it has a value."""
    table = item.history
    x, y = _known(table, column)
    name = f"fold {item.fold}"
    return {
        "type": "scatter", "x": x, "y": y, "name": name, "legendgroup": name, "showlegend": False,
        "line": line_style(item.fold), "hovertemplate": "epoch %{x}: %{y:.4g}<extra>" + name + "</extra>",
        **more,
    }  # fmt: skip


def _known(table: pd.DataFrame, column: str) -> tuple[list[float], list[float]]:
    if column not in table:
        return [], []
    values = pd.to_numeric(table[column], errors="coerce").replace([np.inf, -np.inf], np.nan)
    rows = values.notna() & table["epoch"].notna()
    return table.loc[rows, "epoch"].tolist(), values[rows].tolist()


def _loss_traces(item: FoldFacts) -> Iterator[Trace]:
    yield _line(item, "train_loss", {"mode": "lines", "showlegend": True})
    thin = {**line_style(item.fold), "width": 1, "dash": "dot"}
    mark = {"symbol": "diamond-open", "size": 8}
    validation = _line(item, "val_loss", {"mode": "lines+markers", "marker": mark, "line": thin})
    yield validation
    if item.epoch in validation["x"]:
        yield _star(item, validation["y"][validation["x"].index(item.epoch)])


def _score_traces(item: FoldFacts) -> Iterator[Trace]:
    yield _line(item, "val_score", {"mode": "lines+markers", "showlegend": True})
    averaged = _line(item, "val_score_ema", {"mode": "lines+markers"})
    if averaged["x"]:
        averaged["line"] = {**line_style(item.fold), "dash": "dot"}
        averaged["hovertemplate"] = (
            f"epoch %{{x}}: %{{y:.4g}}<extra>fold {item.fold}, averaged weights</extra>"
        )
        yield averaged
    if item.epoch is not None and item.score is not None:
        yield _star(item, item.score)


def _star(item: FoldFacts, value: float) -> Trace:
    """The epoch that was chosen."""
    name = f"fold {item.fold}"
    return {
        "type": "scatter", "mode": "markers", "x": [item.epoch], "y": [value], "name": name,
        "legendgroup": name, "showlegend": False,
        "marker": {"symbol": "star", "size": 15, "color": line_style(item.fold)["color"],
                   "line": {"width": 1, "color": "white"}},
        "hovertemplate": "chosen: epoch %{x}, %{y:.4g}<extra>" + name + "</extra>",
    }  # fmt: skip


def _best_table(folds: Sequence[FoldFacts]) -> Table:
    columns = [
        Column("fold", "Fold"), Column("state", "State"),
        Column("epochs", "Epochs", None, "trained so far"), Column("epoch", "Chosen epoch"),
        Column("score", "Its score", 4, "of the validation images, on which it was chosen: optimistic"),
    ]  # fmt: skip
    rows = [
        {
            "fold": str(item.fold),
            "state": item.state + (", patience ended" if item.ended == "patience" else ""),
            "epochs": _whole(item.epochs),
            "epoch": _whole(item.epoch),
            "score": item.score,
        }
        for item in folds
    ]
    return Table("Folds", columns, rows)


def _whole(value: float | None) -> float | None:
    return int(value) if value is not None and value == int(value) else value


def recognition_charts(facts: RunFacts) -> list[Chart]:
    """True against told cell types and diameters."""
    charts = []
    if facts.confusion is not None and facts.confusion.shape[1] > 1 and len(facts.confusion):
        charts.append(_confusion_chart(facts.confusion))
    if facts.scores is not None and {"median_diameter", "style_diameter"} <= set(facts.scores):
        charts.append(_diameter_chart(facts.scores))
    return [chart for chart in charts if chart is not None]


def _confusion_chart(table: pd.DataFrame) -> Chart | None:
    """True types as rows, told types as columns; the numbers are images."""
    counts = table.iloc[:, 1:].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    true = [literal(type_text(name)) for name in table.iloc[:, 0]]
    told = [literal(name) for name in table.columns[1:]]
    if len(true) < 2 or np.isnan(counts).any():
        return None
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = sum(counts[row, told.index(name)] for row, name in enumerate(true) if name in told)
    trace = {
        "type": "heatmap", "x": told, "y": true, "z": share.tolist(), "text": counts.astype(int).tolist(),
        "texttemplate": "%{text}", "showscale": False, "zmin": 0, "zmax": 1, "xgap": 2, "ygap": 2,
        "colorscale": [[0, "#e3ebf2"], [1, COLOURS[0]]],
        "hovertemplate": "true %{y}, told %{x}: %{text} images<extra></extra>",
    }  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "told"}, "type": "category"},
        "yaxis": {"title": {"text": "true"}, "type": "category", "autorange": "reversed"},
    }
    says = (
        f"{right:.0f} of {counts.sum():.0f} images are recognised, each by a model that never saw it. Thresholds "
        "by type depend on it; an image that is told as unsure takes those of all types."
    )
    columns = [Column("true", "True type"), *(Column(f"c{n}", name) for n, name in enumerate(told))]
    rows = [
        {"true": name, **{f"c{n}": int(value) for n, value in enumerate(line)}}
        for name, line in zip(table.iloc[:, 0].map(type_text), counts, strict=True)
    ]
    columns[1:] = [Column(f"c{n}", str(name)) for n, name in enumerate(table.columns[1:])]
    height = 170 + 45 * len(true)
    title = "Cell types: told against true"
    return Chart(
        "confusion", title, [trace], layout, says, Table(title, columns, rows), height=height
    )


def pairs_by_type(
    table: pd.DataFrame, x: str, y: str, *, ends: Sequence[float], line: str, says: str
) -> list[Trace]:
    """Two values of every image against each other, a colour and a sign for each type, and the line x = y."""
    traces: list[Trace] = [
        {
            "type": "scatter", "mode": "lines", "x": [*ends], "y": [*ends], "name": line, "hoverinfo": "skip",
            "line": {"color": "#8a94a0", "width": 1, "dash": "dash"},
        }
    ]  # fmt: skip
    for place, (cell_type, rows) in enumerate(table.groupby("cell_type", sort=True)):
        name = literal(type_text(cell_type))
        color = line_style(place)["color"]
        traces.append(
            {
                "type": "scatter", "mode": "markers", "x": rows[x].tolist(), "y": rows[y].tolist(),
                "name": name, "text": [literal(item) for item in rows["id"]],
                "marker": {"size": 7, "color": color, "opacity": 0.75, "symbol": place % 8},
                "hovertemplate": "%{text}<br>" + says + "<extra>" + name + "</extra>",
            }
        )  # fmt: skip
    return traces


def _diameter_chart(scores: pd.DataFrame) -> Chart | None:
    """Every image's median diameter, and what its style says."""
    known = scores[(scores["median_diameter"] > 0) & (scores["style_diameter"] > 0)]
    if known.empty:
        return None
    ends = [float(known[["median_diameter", "style_diameter"]].to_numpy().min()) * 0.9]
    ends.append(float(known[["median_diameter", "style_diameter"]].to_numpy().max()) * 1.1)
    told = "true %{x:.1f}, told %{y:.1f} pixels"
    traces = pairs_by_type(
        known, "median_diameter", "style_diameter", ends=ends, line="told = true", says=told
    )
    error = np.abs(np.log(known["style_diameter"] / known["median_diameter"]))
    scale = log_axis(*ends) if ends[1] > 4 * ends[0] else {}
    layout = {
        "xaxis": {"title": {"text": "true median diameter, pixels"}, **scale},
        "yaxis": {"title": {"text": "told by style, pixels"}, **scale},
    }
    says = (
        f"The median error is {100 * np.expm1(error.median()):.0f} %; a tenth of the images are off by more than "
        f"{100 * np.expm1(error.quantile(0.9)):.0f} %. The diameter policy image takes what is told."
    )
    return Chart("diameters", "Diameters: told against true", traces, layout, says, height=380)

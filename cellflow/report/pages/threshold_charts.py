"""Charts of calibrated thresholds: scores along each threshold, by fold and by type, with what was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cellflow.report.pages.chart import Chart, literal
from cellflow.report.pages.run_charts import line_style
from cellflow.report.pages.run_facts import ThresholdFacts
from cellflow.report.pages.table import Column, Table
from cellflow.storage.records import number_or_none

__all__ = ["chosen_table", "fold_table", "place_on_curve", "reasons", "threshold_charts"]

_AXES = ("cellprob_threshold", "flow_threshold", "min_size")
_TITLES = {
    "cellprob_threshold": "cellprob threshold",
    "flow_threshold": "flow threshold",
    "min_size": "minimum size, pixels",
}
_OTHERS = ("niter", "max_size_fraction", "score_per_pixel", "fill_holes")

Curves = Mapping[str, Mapping[str, Sequence[Sequence[float]]]]
Chosen = Mapping[str, Mapping[str, Any]]


def threshold_charts(found: ThresholdFacts, *, by: str) -> list[Chart]:
    """A chart for each threshold with a line for each fold (`by` "fold"), or for each cell type ("type")."""
    if by == "fold":
        shared = {name: found.curves[name] for name in found.curves if name == "all types"}
        lines = {"all folds": shared.get("all types", {})} | {
            f"fold {name}": curves for name, curves in found.fold_curves.items()
        }
        chosen = {"all folds": found.chosen["all types"]} | {
            f"fold {name}": mask for name, mask in found.fold_chosen.items()
        }
    else:
        lines, chosen = dict(found.curves), dict(found.chosen)
    if by == "fold" and not found.fold_curves:
        return []
    if by == "type" and len(lines) < 2 and found.fold_curves:  # the line of all folds is the same
        return []
    charts = [_chart(axis, lines, chosen, found.metric, by) for axis in _AXES]
    return [chart for chart in charts if chart is not None]


def _chart(axis: str, lines: Curves, chosen: Chosen, metric: str, by: str) -> Chart | None:
    traces: list[dict[str, Any]] = []
    for place, (name, curves) in enumerate(lines.items()):
        pairs = curves.get(axis)
        if not pairs:
            continue
        line = line_style(place, 1.7 if place else 3)
        labels = [_label(axis, value) for value, _ in pairs]
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "x": labels, "y": [score for _, score in pairs],
                "name": literal(name), "legendgroup": literal(name), "line": line, "marker": {"size": 4},
                "hovertemplate": "%{x}: %{y:.4f}<extra>" + literal(name) + "</extra>",
            }
        )  # fmt: skip
        value = number_or_none(chosen.get(name, {}).get(axis))
        if value is not None:
            at = place_on_curve(pairs, value, axis)
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "x": [labels[at]], "y": [pairs[at][1]],
                    "name": literal(name), "legendgroup": literal(name), "showlegend": False,
                    "marker": {"symbol": "star", "size": 14, "color": line["color"],
                               "line": {"width": 1, "color": "white"}},
                    "hovertemplate": f"chosen {_label(axis, value)}: %{{y:.4f}}<extra>"
                    + literal(name) + "</extra>",
                }
            )  # fmt: skip
    if not traces:
        return None
    layout = {
        "xaxis": {"title": {"text": _TITLES[axis]}, "type": "category"},
        "yaxis": {"title": {"text": metric}},
    }
    name = f"by-{by}-{axis.replace('_', '-')}"
    title = _TITLES[axis].capitalize() + (f", by {by}" if len(lines) > 1 else "")
    return Chart(name, title, traces, layout, height=350)


def place_on_curve(pairs: Sequence[Sequence[float]], value: float, axis: str) -> int:
    """The place of a curve that is nearest to a value; no flow check (0) lies beyond all thresholds."""
    grid = [pair[0] for pair in pairs]
    if axis == "flow_threshold":
        grid, value = [item or 1e3 for item in grid], value or 1e3
    return min(range(len(grid)), key=lambda place: abs(grid[place] - value))


def _label(axis: str, value: float) -> str:
    return "off" if axis == "flow_threshold" and not value else f"{value:g}"


def chosen_table(found: ThresholdFacts) -> Table:
    """What was chosen for each cell type, with its scores."""
    columns = [
        Column("name", "Images of"), *(Column(axis, _TITLES[axis]) for axis in _AXES),
        Column("images", "Images"),
        Column("training_thresholds", "At the training's", 4, "score at the training's thresholds"),
        Column("cross_fitted", "Cross-fitted", 4, "score at thresholds fitted on the other folds"),
    ]  # fmt: skip
    rows = [
        {
            "name": name,
            **{axis: _label(axis, float(mask[axis])) for axis in _AXES},
            **{
                key: found.scores.get(name, {}).get(key)
                for key in ("training_thresholds", "cross_fitted")
            },
            "images": _count(found.scores.get(name, {}).get("images")),
        }
        for name, mask in found.chosen.items()
    ]
    return Table("Chosen thresholds", columns, rows)


def reasons(found: ThresholdFacts) -> list[tuple[str, str]]:
    """For all images and each cell type, why its thresholds were taken."""
    texts = [(name, _extras(mask) + found.why.get(name, "")) for name, mask in found.chosen.items()]
    return [(name, text) for name, text in texts if text]


def _extras(mask: Mapping[str, Any]) -> str:
    """Settings beyond the three that are not the default."""
    usual = {"niter": 0, "max_size_fraction": 0.4, "score_per_pixel": 0.0, "fill_holes": True}
    found = [f"{key} {mask[key]}" for key in _OTHERS if mask.get(key, usual[key]) != usual[key]]
    return f"With {', '.join(found)}. " if found else ""


def _count(value: Any) -> int | None:
    return None if value is None else int(value)


def fold_table(found: ThresholdFacts) -> Table:
    """What was fitted without each fold, and how far that moves."""
    folds = list(found.fold_chosen)
    columns = [
        Column("threshold", "Threshold"),
        *(Column(f"fold{n}", f"without fold {fold}") for n, fold in enumerate(folds)),
        Column("steps", "Steps", None, "of the grid between the outermost"),
        Column("costs", "Costs", 4, "largest difference of the mean score of all images between these values"),
        Column("verdict", "Folds agree"),
    ]  # fmt: skip
    rows = [
        {
            "threshold": _TITLES[item["threshold"]],
            **{
                f"fold{n}": None
                if fold not in item["values"]
                else _label(item["threshold"], item["values"][fold])
                for n, fold in enumerate(folds)
            },
            "steps": item["steps"],
            "costs": item["costs"],
            "verdict": "no: it swings" if item["swings"] else "yes",
        }
        for item in found.swings
    ]
    return Table("Shared thresholds, fitted without each fold in turn", columns, rows)

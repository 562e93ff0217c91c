"""The page of several runs side by side: scores, settings that differ, paired differences, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.report.pages.chart import COLOURS, Chart, axes, intervals, literal
from cellflow.report.pages.page import write_page
from cellflow.report.pages.run_charts import pairs_by_type
from cellflow.report.pages.run_facts import Hint
from cellflow.report.pages.table import Column, Table, rows_of
from cellflow.report.text.cv import CV_COLUMNS, part_name

__all__ = ["CompareFacts", "PairFacts", "PairPicture", "draw_compare_page"]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class PairPicture:
    """One image with the cells of both runs.

    Attributes
    ----------
    id, text : str
        The image, and its two scores in words.
    image, a, b : str
        Addresses of the pictures: the image itself, and with the truth and the cells of A and of B.
    """

    id: str
    text: str
    image: str
    a: str
    b: str


@dataclass(frozen=True, eq=False)
class PairFacts:
    """Run B against run A.

    Attributes
    ----------
    a, b : str
        Their names.
    hints : sequence of Hint
        What follows, and what makes them hard to compare.
    table, images : pandas.DataFrame
        As `cellflow.engine.validation.compare_runs.Comparison` has them.
    pictures : sequence of PairPicture
        Images whose scores differ most.
    without : str
        Why there are no pictures; empty where there are.
    """

    a: str
    b: str
    hints: Sequence[Hint]
    table: pd.DataFrame
    images: pd.DataFrame
    pictures: Sequence[PairPicture] = ()
    without: str = ""


@dataclass(frozen=True, eq=False)
class CompareFacts:
    """Several runs; each is compared with the first.

    Attributes
    ----------
    names : sequence of str
        Names of the runs.
    runs : sequence of mapping
        A row for each: name, status, images and the overall row of `cv.csv`.
    settings : sequence of mapping
        A row for each setting that is not the same in all: `name`, and the value by the place of the run.
    pairs : sequence of PairFacts
    """

    names: Sequence[str]
    runs: Sequence[Row]
    settings: Sequence[Row]
    pairs: Sequence[PairFacts] = field(default_factory=tuple)


def draw_compare_page(path: Path, facts: CompareFacts, *, made_by: str) -> None:
    """Write the page, atomically; `made_by` is the command that makes it."""
    settings = [
        Column("name", "Setting"),
        *(Column(str(place), name) for place, name in enumerate(facts.names)),
    ]
    shown = {
        "facts": facts,
        "run_table": Table("Cross-validation of each run", _run_columns(facts.runs), facts.runs),
        "settings_table": Table("Values of each run", settings, facts.settings),
        "pairs": [_drawn_pair(place, pair) for place, pair in enumerate(facts.pairs, 1)],
    }
    title = " against ".join(facts.names) if len(facts.names) == 2 else ", ".join(facts.names)
    write_page(
        path, "compare.html", shown, title=title, made_by=made_by, assets=["run.css"], charts=True
    )


def _run_columns(rows: Sequence[Row]) -> list[Column]:
    columns = [
        Column("name", "Run"), Column("status", "Status"), Column("images", "Images"),
        Column("expected", "Expected", 3, CV_COLUMNS["expected"][1]),
        Column("low", "From", 3, "95 % interval of expected, whole groups drawn anew"),
        Column("high", "To", 3),
        *(
            Column(key, heading.capitalize(), 3, says)
            for key, (heading, says) in CV_COLUMNS.items() if key != "expected"
        ),
        Column("created", "Started"),
    ]  # fmt: skip
    return [column for column in columns if any(row.get(column.key) is not None for row in rows)]


def _drawn_pair(place: int, pair: PairFacts) -> dict[str, Any]:
    charts = [_interval_chart(place, pair), *_image_charts(place, pair)]
    return {
        "id": f"pair-{place}",
        "facts": pair,
        "charts": [chart for chart in charts if chart is not None],
        "table": _difference_table(pair),
        "image_table": _image_table(pair) if len(pair.images) else None,
    }


def _difference_table(pair: PairFacts) -> Table:
    columns = [
        Column("what", "Images of"), Column("thresholds", "Thresholds"), Column("images", "Images"),
        Column("groups", "Groups"), Column("score_a", pair.a, 4), Column("score_b", pair.b, 4),
        Column("difference", "Difference", 4, f"{pair.b} minus {pair.a}, image by image"),
        Column("low", "From", 4, "95 % interval, whole groups drawn anew"), Column("high", "To", 4),
        Column("verdict", "Verdict"),
    ]  # fmt: skip
    rows = [{**row, "what": part_name(row, "all images")} for row in rows_of(pair.table)]
    for row in rows:
        row["verdict"] = {"B better": f"{pair.b} better", "A better": f"{pair.a} better"}.get(
            str(row["verdict"]), row["verdict"]
        )
    return Table(f"{pair.b} minus {pair.a}", columns, rows)


def _image_table(pair: PairFacts) -> Table:
    columns = [
        Column("id", "Image"), Column("cell_type", "Type"), Column("fold", "Fold"),
        Column("score_a", pair.a, 3), Column("score_b", pair.b, 3),
        Column("difference", "Difference", 3),
        Column("cross_fitted_difference", "Difference, fitted", 3, "at cross-fitted thresholds"),
    ]  # fmt: skip
    shown = [column for column in columns if column.key in pair.images]
    ranked = pair.images.sort_values("difference", key=abs, ascending=False, kind="stable")
    rows = rows_of(ranked)
    return Table(
        f"{pair.b} minus {pair.a}: {len(rows)} images, the largest difference first", shown, rows
    )


def _interval_chart(place: int, pair: PairFacts) -> Chart | None:
    """Differences with their intervals, a colour for each kind of thresholds."""
    table = pair.table.dropna(subset=["difference"])
    if table.empty:
        return None
    traces = []
    for number, (thresholds, rows) in enumerate(table.groupby("thresholds", sort=False)):
        names = [literal(part_name(row, "all images")) for row in rows.to_dict("records")]
        trace = intervals(rows["difference"], rows["low"], rows["high"], names, COLOURS[number])
        trace["name"] = f"{thresholds} thresholds"
        trace["marker"]["symbol"] = ("circle", "diamond")[number % 2]
        trace["hovertemplate"] = "%{y}: %{x:+.4f}<extra>" + str(thresholds) + "</extra>"
        traces.append(trace)
    count = table.groupby("thresholds").size().max()
    zero = {"zeroline": True, "zerolinewidth": 2, "rangemode": "tozero"}
    layout = {
        "xaxis": {"title": {"text": "difference of the score"}, **zero},
        "yaxis": {"autorange": "reversed", "type": "category"},
        "scattermode": "group",
    }
    says = (
        f"Right of zero {pair.b} is better. Lines are 95 % intervals of the paired difference, from drawing whole "
        "groups of images anew; one that crosses zero leaves it open."
    )
    title = f"Difference, {pair.b} minus {pair.a}"
    height = 150 + 36 * int(count)
    return Chart(f"difference-{place}", title, traces, layout, says, height=max(260, height))


def _image_charts(place: int, pair: PairFacts) -> list[Chart]:
    """Every image: the two scores, and the differences in order."""
    images = pair.images
    if images.empty:
        return []
    says = "%{x:.3f} and %{y:.3f}"
    traces = pairs_by_type(
        images, "score_a", "score_b", ends=[0, 1], line="no difference", says=says
    )
    both = {
        "xaxis": {"title": {"text": literal(pair.a)}, "range": [-0.02, 1.02]},
        "yaxis": {"title": {"text": literal(pair.b)}, "range": [-0.02, 1.02]},
    }
    ranked = images.sort_values("difference", kind="stable")
    bars = {
        "type": "bar", "x": list(range(1, len(ranked) + 1)), "y": ranked["difference"].tolist(),
        "text": [literal(item) for item in ranked["id"]], "textposition": "none",
        "marker": {"color": [COLOURS[0] if value >= 0 else COLOURS[3] for value in ranked["difference"]]},
        "hovertemplate": "%{text}: %{y:+.3f}<extra></extra>",
    }  # fmt: skip
    order = axes("images, in the order of the difference", "difference of the score")
    better, worse = int((images["difference"] > 0).sum()), int((images["difference"] < 0).sum())
    says = f"{pair.b} is better on {better} images, {pair.a} on {worse}; {len(images) - better - worse} are the same."
    return [
        Chart(f"images-{place}", "Score of every image in both", traces, both,
              f"Above the line {pair.b} is better.", height=400),
        Chart(f"order-{place}", "Differences in order", [bars], {**order, "bargap": 0.1}, says, height=400),
    ]  # fmt: skip

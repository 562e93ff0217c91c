"""The page of `cellflow suggest`: which images to annotate next, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cellflow.report._figure import BLUE, GREEN, ORANGE
from cellflow.report.pages.chart import Chart, literal
from cellflow.report.pages.page import write_page
from cellflow.report.pages.table import Column, Table

__all__ = ["Card", "Dot", "Part", "write_suggestion_page"]

MOST_ROWS = 1000
"""Rows of the table of all images; the CSV beside the page has all of them."""


class Part(NamedTuple):
    """One of the parts that a suggestion is made of: its name, a share from 0 to 1 as a bar, and it in words."""

    name: str
    share: float
    value: str
    says: str


@dataclass(frozen=True)
class Card:
    """A suggested image.

    Attributes
    ----------
    rank : int
    id, path, reason : str
    cell_type : str
        Predicted; empty where it is unknown.
    cells : int
        Predicted.
    nearest : str
        Id of the annotated image that it is most like; empty where none is known.
    parts : sequence of Part
    picture : str
        Address of an image; empty where it cannot be shown.
    outlines : str
        Of the predicted cells, the ``d`` of an SVG path in pixels of the image.
    shape : (int, int)
        Height and width in pixels.
    """

    rank: int
    id: str
    path: str
    reason: str
    cell_type: str
    cells: int
    nearest: str
    parts: Sequence[Part]
    picture: str
    outlines: str
    shape: tuple[int, int]


class Dot(NamedTuple):
    """An image on the map of styles: where, its id, which kind, and what is said of it."""

    x: float
    y: float
    id: str
    kind: str
    says: str


KINDS = {
    "annotated": ("Annotated already", GREEN, "circle", 8),
    "candidate": ("Not suggested", BLUE, "circle-open", 8),
    "suggested": ("Suggested", ORANGE, "star", 12),
}
"""What is on the map: its name there, colour, sign and size."""


def write_suggestion_page(
    path: Path,
    facts: Mapping[str, Any],
    cards: Sequence[Card],
    *,
    dots: Sequence[Dot],
    explained: float,
    made_by: str,
) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
        File to write, ends in .html.
    facts : mapping
        run; summary (label, value and note of the tiles on top); hints (kind and text); rows (all images that
        were looked at: id, rank, doubt, unlike, nearest, cell_type, cells); passed_over (those that were not:
        id and why); csv (what the button for it downloads); commands (what to do next, in words and as a command).
    cards : sequence of Card
        The suggested images, the best first.
    dots : sequence of Dot
        Images on the map of styles; none where there is none.
    explained : float
        Part of all variance that the map shows.
    made_by : str
        The command that made the page.
    """
    rows, passed_over = facts["rows"], facts["passed_over"]
    reasons = [Column("id", "Image"), Column("why", "Why")]
    shown = {
        **facts,
        "cards": cards,
        "paths": "\n".join(card.path for card in cards),
        "chart": _map(dots, explained) if dots else None,
        "all_images": _all_images(rows),
        "more_rows": max(0, len(rows) - MOST_ROWS),
        "passed_over": Table("Images that were passed over", reasons, passed_over)
        if passed_over
        else None,
    }
    write_page(
        path, "suggest.html", shown, title=f"What to annotate next: {facts['run']}", made_by=made_by,
        assets=("suggest.css", "suggest.js"), charts=bool(dots),
    )  # fmt: skip


def _map(dots: Sequence[Dot], explained: float) -> Chart:
    """The map of styles, what is suggested on top."""
    traces = []
    for kind, (name, colour, sign, size) in KINDS.items():
        group = [dot for dot in dots if dot.kind == kind]
        if not group:
            continue
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": f"{name} ({len(group)})",
                "x": [dot.x for dot in group], "y": [dot.y for dot in group],
                "text": [f"<b>{literal(dot.id)}</b><br>{literal(dot.says)}" for dot in group],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {"color": colour, "symbol": sign, "size": size, "line": {"width": 1.5, "color": colour}},
            }
        )  # fmt: skip
    axis: dict[str, Any] = {"showticklabels": False, "zeroline": False}
    layout = {
        "xaxis": {**axis, "title": {"text": "first principal axis"}},
        "yaxis": {**axis, "title": {"text": "second principal axis"}},
    }
    says = (
        "Each point is an image, and images that the networks find alike lie close together. The two axes show "
        f"{explained:.0%} of how styles differ, so what lies together here may still be apart."
    )
    return Chart("map", "Styles of all images", traces, layout, says, height=520)


def _all_images(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("id", "Image"), Column("rank", "Rank", None, "Of the suggested ones"),
        Column("doubt", "Doubt", 3, "How far the models are apart, 0 to 1"),
        Column("unlike", "Unlike", 3, "How unlike its style is to that of the nearest annotated image, 0 to 1"),
        Column("nearest", "Nearest annotated"), Column("cell_type", "Predicted type"),
        Column("cells", "Predicted cells"),
    ]  # fmt: skip
    if not any(row["cell_type"] for row in rows):
        columns = [column for column in columns if column.key != "cell_type"]
    return Table("Images that were looked at", columns, list(rows)[:MOST_ROWS])

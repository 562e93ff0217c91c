"""A chart of a page: what plotly draws, what it says, and its figures as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cellflow.report._figure import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from cellflow.report.pages.table import Table

__all__ = ["COLOURS", "Chart", "literal"]

COLOURS = (BLUE, ORANGE, GREEN, RED, SKY, PURPLE, GREY)
"""Of one thing after the other; they are told apart with any colour vision, on light and on dark ground."""


@dataclass(frozen=True)
class Chart:
    """What `macros.html` draws with ``chart(...)``.

    Attributes
    ----------
    name : str
        Its id in the page.
    title : str
        Stands above it.
    traces : sequence of mapping
        Of plotly: what is drawn. Without a colour of their own they get those of `COLOURS`.
    layout : mapping
        Of plotly; colours, fonts and margins are those of the page.
    says : str
        One or two sentences: what it shows, and what is to be seen. They stand below, and screen readers
        read them.
    table : Table, optional
        The figures, which unfold below.
    height : int
        In pixels.
    """

    name: str
    title: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    says: str = ""
    table: Table | None = None
    height: int = 340

    @property
    def drawn(self) -> dict[str, Any]:
        """What the script of the page hands to plotly."""
        return {
            "traces": [dict(item) for item in self.traces],
            "layout": {"colorway": list(COLOURS), "height": self.height, **self.layout},
        }


def literal(text: object) -> str:
    """A text, such as an id, as plotly shows it: it takes tags in names and titles for its own."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

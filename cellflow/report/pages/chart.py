"""A chart of a page: what plotly draws, what it says, and its figures as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cellflow.report._figure import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from cellflow.report.pages.table import Table

__all__ = ["COLOURS", "Chart", "axes", "intervals", "literal", "log_axis"]

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


def axes(x: str, y: str) -> dict[str, Any]:
    """Both axes of a chart with their titles, as plotly takes them."""
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}


def intervals(
    value: pd.Series[float],
    low: pd.Series[float],
    high: pd.Series[float],
    names: list[str],
    colour: str,
) -> dict[str, Any]:
    """A trace for plotly: points with their intervals, one below the other."""
    return {
        "type": "scatter", "mode": "markers", "x": value.tolist(), "y": names,
        "marker": {"size": 10, "color": colour},
        "error_x": {
            "type": "data", "symmetric": False, "thickness": 1.5, "color": colour,
            "array": (high - value).tolist(), "arrayminus": (value - low).tolist(),
        },
    }  # fmt: skip


def log_axis(low: float, high: float) -> dict[str, Any]:
    """A logarithmic axis for plotly with ticks at 1, 2, 5, 10 ...; at powers of ten alone where it is long.

    By itself plotly writes a bare 2 for 20 and for 200.
    """
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) < 5 else (1,)
    ticks = [float(power * step) for power in powers for step in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,g}" for tick in ticks]}


def literal(text: object) -> str:
    """A text, such as an id, as plotly shows it: it takes tags in names and titles for its own."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

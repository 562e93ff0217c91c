"""One HTML page: a template, filled, with all that it needs inside."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cellflow.storage.atomic import write_text
from cellflow.storage.plain_values import plain
from cellflow.types import shorten

__all__ = ["write_page"]

MISSING = "–"
"""Stands where a figure is not known."""
ID_LETTERS = 32
"""Letters of an id on a card; the whole of it stands in its title. `page.js` has the same number."""
_BREAK_EVERY = 16
"""Letters after which a word without spaces may go on in the next line of a table."""
_LONG, _CHUNK = re.compile(rf"(\S{{{_BREAK_EVERY + 1},}})"), re.compile(rf"\S{{1,{_BREAK_EVERY}}}")


def write_page(
    path: Path,
    template: str,
    facts: Mapping[str, Any],
    *,
    title: str,
    made_by: str = "",
    assets: Sequence[str] = (),
    charts: bool = False,
    refresh: float | None = None,
) -> None:
    """Write a page that opens from disk, atomically; nothing in it is fetched from anywhere.

    Parameters
    ----------
    path : Path
        File to write, ends in .html.
    template : str
        Name of a template in ``templates/``, which extends ``base.html``.
    facts : mapping
        What the template shows. All text is escaped.
    title : str
        Title of the page.
    made_by : str
        The command that makes it, which stands at the foot of the page.
    assets : sequence of str
        Names in ``assets/``, scripts (.js) and styles (.css), that this page needs besides ``page.css`` and
        ``page.js``.
    charts : bool
        Whether there are charts, which need plotly's script of 5 MB.
    refresh : float, optional
        Seconds after which an open page loads itself again, while its run goes on.
    """
    names = ["page.css", "page.js", *assets]
    page = _environment().get_template(template)
    text = page.render(
        facts, title=title, made_by=made_by, made_at=datetime.now(UTC), refresh=refresh,
        styles=[_asset(name) for name in names if name.endswith(".css")],
        scripts=[_asset(name) for name in names if name.endswith(".js")],
        plotly=Markup(_plotly()) if charts else "",
    )  # fmt: skip
    write_text(path, text)


def _number(value: Any, digits: int = 3) -> str:
    """A number as people read it; `MISSING` where it is not known."""
    value = plain(value)
    if value is None or value == "":
        return MISSING
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:,.{digits}f}".replace("-0." + "0" * digits, "0." + "0" * digits)


def _short(name: Any) -> str:
    """An id as cards show it."""
    return shorten(str(name), ID_LETTERS)


def _breaks(text: Any) -> Markup:
    """A text, escaped, whose long words may go on in the next line; copied, it is what it was."""
    pieces = _LONG.split(str(text))
    return Markup("").join(
        Markup("<wbr>").join(_CHUNK.findall(piece)) if place % 2 else piece
        for place, piece in enumerate(pieces)
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cellflow.report.pages"), undefined=jinja2.StrictUndefined,
        autoescape=True, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(number=_number, plain=plain, short=_short, breaks=_breaks)
    environment.globals.update(missing=MISSING)
    return environment


@cache
def _asset(name: str) -> Markup:
    return Markup(files("cellflow.report.pages").joinpath("assets", name).read_text("utf-8"))


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())

"""What every page does: sections, tables that sort, charts, commands to copy, text that stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest

from cellflow.report.pages import page as pages
from cellflow.report.pages.chart import Chart
from cellflow.report.pages.table import Column, Table

EVIL = "<img src=x onerror=alert(1)>"
TEMPLATE = """
{% extends "base.html" %}
{% block main %}
{% call show.section("first", "First") %}
<dl class="tiles">{{ show.tile("Score", 0.51234|number, "0.400 to 0.600") }}</dl>
{{ show.table(table) }}
{{ show.hints([("good", "All is well."), ("warning", evil), ("note", "So it is.")]) }}
{% endcall %}
{% call show.section("second", "Second") %}
{{ show.chart(chart) }}
{{ show.command("cellflow oof " ~ evil) }}
{% endcall %}
{% endblock %}
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    environment = pages._environment()
    loader = jinja2.ChoiceLoader([jinja2.DictLoader({"test.html": TEMPLATE}), environment.loader])
    monkeypatch.setattr(environment, "loader", loader)
    columns = [Column("id", "Image"), Column("score", "Score", 3), Column("n", "Cells")]
    rows: list[dict[str, Any]] = [
        {"id": "b", "score": 0.5, "n": 1200},
        {"id": EVIL, "score": float("nan"), "n": 3, "href": "#second"},
        {"id": "a10", "score": 0.25, "n": 20},
        {"id": "a9", "score": 0.75, "n": 100},
    ]
    table = Table("Images", columns, rows)
    traces = [
        {"x": [1, 2], "y": [0.1, float("nan")], "name": EVIL},
        {"x": [1, 2], "y": [0.3, 0.2], "name": "b"},
    ]
    chart = Chart(
        "curve", "A curve", traces, {"xaxis": {"title": {"text": "epoch"}}}, "Rises.", table
    )
    facts = {"table": table, "chart": chart, "evil": EVIL}
    target = tmp_path / "page.html"
    pages.write_page(
        target, "test.html", facts, title=f"Page {EVIL}", made_by="cellflow x", charts=True
    )
    return target


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["laptop", "phone"])
def test_it_opens_and_everyone_can_use_it(path, open_page, check_access, size, scheme):
    page = open_page(path, size=size, scheme=scheme)
    page.locator("#curve .main-svg").first.wait_for()
    assert page.locator("nav a").all_inner_texts() == ["First", "Second"]
    assert page.locator("h1").inner_text() == f"Page {EVIL}"
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    check_access(page)


def test_tables_sort(path, open_page):
    page = open_page(path)
    first = lambda: page.locator("#first tbody tr td:first-child").all_inner_texts()  # noqa: E731
    assert first() == ["b", EVIL, "a10", "a9"]
    page.click("#first th:nth-child(2) button")  # what is unknown comes last either way
    assert first() == ["a9", "b", "a10", EVIL]
    page.click("#first th:nth-child(2) button")
    assert first() == ["a10", "b", "a9", EVIL]
    assert page.get_attribute("#first th:nth-child(2)", "aria-sort") == "ascending"
    page.focus("#first th:nth-child(1) button")
    page.keyboard.press("Enter")
    assert first() == [EVIL, "a9", "a10", "b"]
    page.click("#first th:nth-child(3) button")
    assert first() == ["b", "a9", "a10", EVIL]


def test_ids_are_shortened_alike_in_pages_and_scripts(tmp_path: Path, open_page: Any) -> None:
    """Cards that templates write and those that scripts write call an image the same."""
    pages.write_page(tmp_path / "a.html", "base.html", {}, title="t")
    page = open_page(tmp_path / "a.html")
    for text in ("a", "d" * 32, "0123456789abcdef" * 4, "ab_" * 11):
        assert page.evaluate("(text) => cellflowShort(text)", text) == pages._short(text)


def test_a_table_of_long_ids_is_read_on_a_phone(tmp_path: Path, path: Path, open_page: Any) -> None:
    """Text stands in columns, not letter below letter, and the page does not scroll sideways."""
    rows = [{"id": "d8" * 32, "score": 0.5, "n": 7, "why": "it is unlike all others of its type"}]
    columns = [
        Column("n", "Number"),
        Column("score", "Score", 3),
        Column("id", "Image"),
        Column("why", "Why"),
    ]
    chart = Chart("curve", "A curve", [{"x": [1], "y": [1]}])
    facts = {"table": Table("t", columns, rows), "chart": chart, "evil": ""}
    pages.write_page(path, "test.html", facts, title="t", charts=True)
    page = open_page(path, size="phone")
    for column in (2, 3):
        place = page.locator("tbody td").nth(column).bounding_box()
        assert place["width"] > 120 and place["height"] < 150
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("tbody td").nth(2).text_content() == "d8" * 32

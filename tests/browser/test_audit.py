"""The page of an audit: marks by key and button, undo, filters, layers, the list, and what it does to a dataset."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellflow import PrepareConfig, cli, prepare
from cellflow.io.audit_list import COLUMNS, AuditRow, read_audit_list, row_check, row_values
from cellflow.io.dataset import Dataset
from cellflow.numeric.rle import rle_encode, rles_from_instances
from cellflow.report.pages.audit_page import Card, write_audit_page

SHAPE = (40, 50)
IDS = ["=1+1, it's", "plain", "'+2", "round 7"]
EVIL = '<img src=x onerror=alert(1)>, "two"\nlines'


def box(y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    labels = np.zeros(SHAPE, np.uint16)
    for number, x in enumerate((2, 18, 34), 1):
        labels[5:20, x : x + 12] = number
    for folder in ("images", "masks"):
        (tmp_path / "source" / folder).mkdir(parents=True)
    for place, name in enumerate(IDS):
        pixels = np.random.default_rng(place).integers(0, 255, SHAPE, np.uint8)
        tifffile.imwrite(tmp_path / "source" / "images" / f"{name}.tif", pixels)
        tifffile.imwrite(tmp_path / "source" / "masks" / f"{name}.tif", labels)
    return prepare(PrepareConfig(tmp_path / "source", out=tmp_path / "data"))


def rows_of(data: Dataset) -> list[AuditRow]:
    """A missing cell, an outline, two that no model sees: the first to be fixed, the last without proposal."""
    made = []
    for place, (name, cells, kind, proposal) in enumerate(
        [
            (IDS[0], (), "missing", [box(25, 5, 35, 15)]),
            (IDS[1], (1,), "outline", [box(8, 3, 22, 14)]),
            (IDS[2], (2,), "unseen", []),
            (IDS[3], (1, 2), "split", [box(5, 2, 20, 30)]),
        ]
    ):
        own = rles_from_instances(data.instances(name))
        texts = tuple(map(rle_encode, proposal))
        made.append(
            AuditRow(
                name, cells, kind, texts, row_check(name, [own[c - 1] for c in cells], texts), data.hash,
                suspicion=0.9 - place / 10, reason='Because, "so".', fold=place % 2,
                cell_type="round" if place else "",
            )
        )  # fmt: skip
    return made


def write(path: Path, data: Dataset, rows: list[AuditRow], **changes: object) -> Path:
    labels = np.kron(np.arange(4).reshape(2, 2), np.ones((20, 25), int))
    maps = dict.fromkeys(("annotated", "suspect", "predicted", "chosen"), labels)
    picture = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3), np.uint8)
    cards = [Card(row.id, row.cell_type, row_values(row), picture, maps) for row in rows]
    facts = {
        "run": "exp", "total": len(rows), "images": 4, "flows": True, "decided": 0, "columns": COLUMNS,
        "data_hash": data.hash, "table": "audit.csv", "apply": "cellflow prepare data --audit audit-list.csv",
        "command": "cellflow audit exp", "oof_command": "cellflow oof exp",
    }  # fmt: skip
    write_audit_page(path, cards, facts | changes)
    return path


@pytest.fixture
def path(tmp_path: Path, data: Dataset) -> Path:
    return write(tmp_path / "audit.html", data, rows_of(data))


@pytest.mark.parametrize(("size", "scheme"), [("laptop", "light"), ("phone", "dark")])
def test_it_opens_and_everyone_can_use_it(path, open_page, check_access, size, scheme):
    page = open_page(path, size=size, scheme=scheme)
    assert page.locator(".card").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("[data-download]").is_disabled()
    check_access(page)
    for row, verdict in ((0, "fix"), (1, "ok"), (2, "drop")):
        page.click(f"[data-row='{row}'] [data-verdict='{verdict}']")
    page.click("summary >> nth=0")
    page.click("summary >> nth=1")
    check_access(page)  # the colours of marks too


def verdicts(page) -> list[str]:
    return [card.get_attribute("data-verdict") or "" for card in page.locator(".card").all()]


def test_marks_by_key(path, open_page):
    page = open_page(path)
    press = page.keyboard.press
    press("ArrowRight")  # the first card
    press("f")
    assert verdicts(page) == ["fix", "", "", ""]
    press("d")  # on the second, which came by itself
    press("f")  # nothing is proposed for the third
    assert verdicts(page) == ["fix", "drop", "", ""]
    assert page.inner_text("[data-said]") == "Nothing is proposed instead."
    press("a")
    assert page.inner_text("[data-said]") == ""
    press("ArrowLeft")
    press("a")  # the same key again takes the mark back
    assert verdicts(page) == ["fix", "drop", "", ""]
    assert page.locator("[data-counts]").inner_text() == "2 of 4 marked: 0 ok, 1 fix, 1 drop"
    press("u")
    assert verdicts(page) == ["fix", "drop", "ok", ""]
    press("u")
    press("u")
    assert verdicts(page) == ["fix", "", "", ""]
    assert page.evaluate("document.activeElement.dataset.row") == "1"
    assert page.get_attribute("[data-row='0'] [data-verdict='fix']", "aria-pressed") == "true"
    press("Control+a")  # selects all, and marks nothing
    assert verdicts(page) == ["fix", "", "", ""]
    page.reload()
    assert verdicts(page) == ["fix", "", "", ""]  # they are kept
    assert page.locator("[data-stored]").inner_text() == ""


def test_marks_stay_with_their_suspicion(path, data, open_page):
    page = open_page(path)
    page.click("[data-row='1'] [data-verdict='drop']")
    page.click("[data-row='3'] [data-verdict='ok']")
    rows = rows_of(data)
    changed = replace(rows[3], check="other")  # of another proposal
    write(path, data, [changed, rows[2], rows[1]])
    page.reload()
    assert verdicts(page) == ["", "", "drop"]


def test_filters_and_layers(path, open_page):
    page = open_page(path)
    shown = lambda: [int(c.get_attribute("data-row")) for c in page.locator(".card:visible").all()]  # noqa: E731
    page.select_option("[data-filter='kind']", "unseen")
    assert shown() == [2]
    page.select_option("[data-filter='kind']", "")
    page.select_option("[data-filter='fold']", "0")
    assert shown() == [0, 2]
    page.select_option("[data-filter='cell_type']", "round")
    assert shown() == [2]
    page.select_option("[data-filter='fold']", "")
    page.select_option("[data-filter='cell_type']", "")
    page.locator("[data-row='1']").focus()
    page.keyboard.press("a")
    page.select_option("[data-filter='verdict']", "none")
    assert shown() == [0, 2, 3]
    page.select_option("[data-filter='verdict']", "fix")
    assert shown() == []
    assert page.locator("[data-none]").is_visible()
    page.select_option("[data-filter='verdict']", "")
    page.locator("[data-row='0']").focus()
    page.keyboard.press("p")
    assert not page.locator("[data-row='0'] path.predictions").first.is_visible()
    assert page.locator("[data-row='0'] path.annotations").first.is_visible()
    assert page.get_attribute("[data-layer='predictions']", "aria-pressed") == "false"


def download(page, target: Path) -> Path:
    with page.expect_download() as caught:
        page.click("[data-download]")
    assert caught.value.suggested_filename == "audit-list.csv"
    caught.value.save_as(target)
    return target


def test_the_downloaded_list_is_applied(path, data, open_page, tmp_path):
    page = open_page(path)
    for row, verdict in ((0, "fix"), (1, "fix"), (2, "drop"), (3, "ok")):
        page.click(f"[data-row='{row}'] [data-verdict='{verdict}']")
    marked = download(page, tmp_path / "audit-list.csv")
    wanted = rows_of(data)
    again = read_audit_list(marked)
    assert [(row.id, row.verdict, row.cells, row.proposal) for row in again] == [
        (row.id, verdict, row.cells, row.proposal)
        for row, verdict in zip(wanted, ("fix", "fix", "drop", "ok"), strict=True)
    ]
    assert again[0].reason == 'Because, "so".'
    out = tmp_path / "audited"
    with pytest.raises(SystemExit) as end:
        cli.main(["prepare", str(data.path), "--audit", str(marked), "--out", str(out)])
    assert not end.value.code
    made = Dataset.open(out)
    counts = [made.images.at[name, "n_instances"] for name in IDS]
    assert counts == [4, 3, 2, 3]
    last = rles_from_instances(made.instances(IDS[0]))[-1]
    assert last == rle_encode(box(25, 5, 35, 15))


def test_ids_stay_text(tmp_path, data, open_page):
    rows = [
        replace(rows_of(data)[1], id=name, cell_type=EVIL)
        for name in (EVIL, "=HYPERLINK(1)", "a\r\nb", "</script><b>")
    ]
    page = open_page(write(tmp_path / "audit.html", data, rows))
    assert page.locator(".card img").count() == len(rows)  # their crops
    assert page.locator("main b").count() == 0
    first = page.locator(".card .id span").first  # long, so shortened; pointed at, it is whole
    assert first.inner_text().startswith("<img src=x o") and len(first.inner_text()) == 32
    assert first.get_attribute("title") == rows[0].id
    for row in range(len(rows)):
        page.click(f"[data-row='{row}'] [data-verdict='ok']")
    marked = download(page, tmp_path / "list.csv")
    assert [row.id for row in read_audit_list(marked)] == [row.id for row in rows]
    with marked.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["id"] for row in table] == [EVIL, "'=HYPERLINK(1)", "a\r\nb", "</script><b>"]
    assert all(row["cell_type"] == EVIL for row in table)


def test_a_page_of_nothing(tmp_path, data, open_page, check_access):
    page = open_page(write(tmp_path / "audit.html", data, [], flows=False, decided=3))
    assert "Nothing is suspected" in page.inner_text("main")
    assert "earlier audits of this dataset have decided on them" in page.inner_text("main")
    check_access(page)


def test_where_nothing_can_be_kept_the_page_says_so(path, open_page):
    page = open_page(path)
    page.evaluate("void (Storage.prototype.setItem = () => { throw new Error(1); })")
    page.click("[data-row='0'] [data-verdict='ok']")
    assert "keeps no marks" in page.inner_text("[data-stored]")
    assert page.evaluate("document.body.hasAttribute('data-unsaved')")

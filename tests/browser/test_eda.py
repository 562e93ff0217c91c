"""The page of `cellflow eda` as people use it: pictures that open, arrow keys, outlines, text that stays text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from cellflow import EdaConfig, PrepareConfig, eda, prepare

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine images of two types, of which one is called as no type is; one image is far brighter."""
    folder = tmp_path_factory.mktemp("eda")
    rng, kinds = np.random.default_rng(0), {}
    for part in ("images", "masks"):
        (folder / "source" / part).mkdir(parents=True)
    for number in range(9):
        labels = np.zeros((96, 128), np.uint16)
        for cell, place in enumerate(rng.permutation(24)[:8].tolist(), 1):
            y, x = 4 + 22 * (place // 6) + rng.integers(8), 3 + 21 * (place % 6) + rng.integers(6)
            labels[y : y + 12, x : x + 12] = cell
        labels[94, 1] = 3 if number == 2 else 0
        pixels = rng.integers(0, 40, labels.shape) + 80 * (labels > 0) + (90 if number == 4 else 20)
        for part, array in (("images", pixels.astype(np.uint8)), ("masks", labels)):
            tifffile.imwrite(folder / "source" / part / f"i{number}.tif", array)
        kinds[f"i{number}"] = EVIL if number == 8 else "round"
    table = folder / "table.csv"
    pd.DataFrame({"cell_type": kinds}).rename_axis("id").to_csv(table)
    prepare(PrepareConfig(folder / "source", table=table, out=folder / "data"))
    return eda(EdaConfig(folder / "data", samples=8)).page


@pytest.mark.parametrize(("size", "scheme"), [("laptop", "light"), ("phone", "dark")])
def test_it_opens_and_everyone_can_use_it(path, open_page, check_access, size, scheme) -> None:
    page = open_page(path, size=size, scheme=scheme)
    page.locator("#types").scroll_into_view_if_needed()
    page.locator("#diameters .main-svg").first.wait_for()
    assert page.locator("img[onerror]").count() == 0
    assert page.locator("#samples h3").all_inner_texts() == [EVIL, "round"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    check_access(page)
    page.click("#samples [data-view] >> nth=0")
    check_access(page)


def test_a_picture_opens_and_keys_go_on(path, open_page) -> None:
    page = open_page(path)
    count = page.locator("#samples .view").count()
    names = page.locator("#samples .id").all_inner_texts()
    page.focus("#samples [data-view] >> nth=0")
    page.keyboard.press("Enter")
    title = page.locator("#zoom-title")
    assert title.inner_text() == f"{names[0]}, 8 cells (1 of {count})"
    large, small = page.locator(".stage img"), page.locator("#samples img").first
    assert large.bounding_box()["width"] > 3 * small.bounding_box()["width"]
    # the outlines lie on the picture
    assert page.locator(".stage svg").bounding_box() == large.bounding_box()
    page.keyboard.press("ArrowRight")
    assert title.inner_text().startswith(names[1])
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert title.inner_text() == f"{names[-1]}, 8 cells ({count} of {count})"
    page.click("[data-step='1']")
    assert title.inner_text().startswith(names[0])
    page.keyboard.press("Escape")
    assert not page.locator("#zoom").is_visible()
    assert page.evaluate("document.activeElement.closest('.view .id, .view') !== null")


def test_outlines_can_be_switched_off(path, open_page) -> None:
    page = open_page(path)
    lines = page.locator("#samples use.cells").first
    assert lines.is_visible()
    assert page.locator("#samples use.cells").first.evaluate("line => line.getBBox().width") > 60
    page.click("#samples [data-outlines]")
    assert not lines.is_visible()
    assert page.get_attribute("#zoom [data-outlines]", "aria-pressed") == "false"
    page.click("#samples [data-view] >> nth=1")
    assert not page.locator(".stage use.cells").is_visible()
    page.keyboard.press("o")
    assert page.locator(".stage use.cells").is_visible()
    page.click("[data-close]")
    assert lines.is_visible()


def test_cells_to_look_at_are_marked(path, open_page) -> None:
    page = open_page(path)
    view = page.locator("#labels .view", has_text="i2").first
    assert "with specks" in view.inner_text()
    view.locator("button").click()
    assert page.locator(".stage use.marked").is_visible()
    assert "2 parts" in page.locator("[data-why]").inner_text()

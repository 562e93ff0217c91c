"""The page of `cellflow suggest` in a browser: outlines on and off, the list copied and downloaded, hostile names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skimage.io import imsave

from cellflow.engine.pages.suggestion import (
    Pool,
    Suggested,
    SuggestionFacts,
    outline_path,
    write_suggestion,
)
from cellflow.io.image_source import find_images
from cellflow.numeric.suggestion import Choice
from cellflow.synthetic import synthetic_dataset

EVIL = "<img src=x onerror=alert(1)>"
NAMES = [EVIL, "=1+1", "a b & c", "d"]


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four candidates with their true cells for predicted ones, three of them suggested; two passed over."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "images").mkdir()
    items = list(synthetic_dataset(4, shape=(90, 120), seed=3, per_group=1))
    for name, item in zip(NAMES, items, strict=True):
        imsave(folder / "images" / f"{name}.png", item.image, check_contrast=False)
    images = find_images(folder / "images")
    rng = np.random.default_rng(0)
    styles = rng.normal(size=(7, 5)).astype(np.float32)
    table = pd.DataFrame(
        {
            "doubt": [0.9, 0.5, 0.2, 0.1], "doubt_place": [1, 2 / 3, 1 / 3, 0], "unlike": [0.3, 0.2, 0.4, 0.1],
            "unlike_place": [2 / 3, 1 / 3, 1, 0], "nearest": [EVIL, "x", "x", "y"],
            "cell_type": [EVIL, "", "round", "round"], "cells": [int(item.labels.max()) for item in items],
        },
        index=pd.Index(NAMES, name="id"),
    )  # fmt: skip
    chosen = [
        Suggested(
            name, folder / "images" / f"{name}.png", Choice(place, 0.5 / (place + 1), 0.1, 3 - place),
            f"The models see different cells; unlike {EVIL}.", outline_path(items[place].labels), (90, 120),
        )
        for place, name in enumerate(NAMES[:3])
    ]  # fmt: skip
    facts = SuggestionFacts(
        run=f"exp {EVIL}", members=3, annotated=3, wanted=5, images=6, chosen=chosen,
        pool=Pool(table, styles[3:], styles[:3], [EVIL, "x", "y"]),
        left_out={"old": f"is annotated already: {EVIL}"}, failed={"</script>": "broken </script>"},
        command=f"cellflow predict '{EVIL}'", made_by="cellflow suggest exp --images pool",
    )  # fmt: skip
    write_suggestion(folder / "out", facts, images)
    return folder / "out" / "suggest.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["laptop", "phone"])
def test_it_opens_and_everyone_can_use_it(page_path, open_page, check_access, size, scheme):
    page = open_page(page_path, size=size, scheme=scheme)
    assert page.locator("h1").inner_text() == f"What to annotate next: exp {EVIL}"
    assert page.locator(".card h3").all_inner_texts() == [
        f"{rank} {name}" for rank, name in enumerate(NAMES[:3], 1)
    ]
    assert page.locator(".card img, h3 img, td img, .reason img").count() == 0
    page.locator("#map").scroll_into_view_if_needed()
    page.locator("#map .main-svg").first.wait_for()
    assert "Suggested (3)" in page.locator("#map .legend").text_content()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    check_access(page)


def test_outlines_lie_on_the_cells_and_go_away(page_path, open_page):
    page = open_page(page_path)
    shown = page.locator(".card .outline:not(.under)").first
    assert shown.is_visible()
    picture, line = (
        page.locator(f".card svg {name}").first.bounding_box() for name in ("image", "path")
    )
    assert (
        picture["x"] - 2 <= line["x"]
        and line["y"] + line["height"] <= picture["y"] + picture["height"] + 2
    )
    button = page.get_by_role("button", name="Predicted outlines")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false" and not shown.is_visible()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true" and shown.is_visible()


def test_the_list_is_downloaded_and_copied(page_path, open_page, tmp_path):
    page = open_page(page_path)
    with page.expect_download() as started:
        page.get_by_role("button", name="Download CSV").click()
    started.value.save_as(tmp_path / "got.csv")
    assert started.value.suggested_filename == "suggest.csv"
    assert (tmp_path / "got.csv").read_bytes() == (page_path.parent / "suggest.csv").read_bytes()
    assert pd.read_csv(tmp_path / "got.csv")["id"].tolist() == NAMES[:3]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy the list").click()
    page.get_by_text("3 paths copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.split("\n") == (page_path.parent / "chosen.txt").read_text().splitlines()


def test_a_row_of_the_table_leads_to_its_card(page_path, open_page):
    page = open_page(page_path)
    page.locator("#all td a").nth(1).click()
    assert page.url.endswith("#image-2")
    assert page.locator(".card:target h3").inner_text() == f"2 {NAMES[1]}"

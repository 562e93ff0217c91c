"""The explorer as a person uses it: list, layers, errors, keys, mouse, addresses."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
from planted_run import dataset_of, run_of, squares

from cellflow.engine.pages.explorer import explorer_facts
from cellflow.report.pages import page as pages
from cellflow.report.pages.explorer import EXPLORER_ASSETS, explorer_values

EVIL = "<img src=x onerror=alert(1)>"
ODD = "it's & 5% #1+2"
SHAPE = (90, 120)
TEMPLATE = """
{% extends "base.html" %}
{% from "explorer.html" import explorer_section with context %}
{% block main %}{{ explorer_section(explorer, explorer_data, poor_below) }}{% endblock %}
"""
PINCH = """() => {
    const canvas = document.querySelector("canvas"), box = canvas.getBoundingClientRect();
    canvas.setPointerCapture = () => {};
    const touch = (type, id, x) => canvas.dispatchEvent(new PointerEvent(type, {
        pointerId: id, pointerType: "touch", clientX: box.left + x, clientY: box.top + 100,
    }));
    touch("pointerdown", 11, 100); touch("pointerdown", 12, 200);
    touch("pointermove", 12, 300); touch("pointerup", 11, 100); touch("pointerup", 12, 300);
}"""
MISSED, SPLIT, GOOD = (5, 5, 25, 25), (5, 40, 25, 60), (60, 5, 80, 25)
ONE, TWO, POOR = (40, 70, 52, 90), (54, 70, 66, 90), (5, 80, 25, 100)


def planted() -> tuple[dict[str, Any], dict[str, Any]]:
    """Four images: one with an error of each kind, one without any, one empty, one all missed."""
    truth = squares(SHAPE, MISSED, SPLIT, GOOD, ONE, TWO, POOR)
    wrong = squares(
        SHAPE,
        (5, 40, 25, 50),
        (5, 50, 25, 60),
        GOOD,
        (40, 70, 66, 90),
        (5, 80, 25, 94),
        (75, 100, 88, 115),
    )
    nothing = np.zeros(SHAPE, np.int32)
    found = {
        "a10": (truth, truth),
        "a9": (truth, wrong),
        ODD: (nothing, nothing),
        "b": (truth, nothing),
    }
    rng = np.random.default_rng(0)
    images = {
        name: (
            np.clip(90 + 60 * (true > 0) + rng.normal(0, 9, SHAPE), 0, 255).astype(np.uint8),
            true,
        )
        for name, (true, _) in found.items()
    }
    return images, {name: predicted for name, (_, predicted) in found.items()}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explorer")
    images, predicted = planted()
    dataset = dataset_of(folder, images)
    run = run_of(dataset, folder / "runs" / "planted", predicted)
    facts = explorer_facts(run, dataset)
    # no prepared image is called so, but a table that somebody changed may have anything
    named = {"b": (EVIL, "round"), "a9": ("a9", "spindle")}
    items = []
    for item in facts.images:
        name, kind = named.get(item.id, (item.id, ""))
        items.append(dataclasses.replace(item, id=name, cell_type=kind))
    environment = pages._environment()
    loader = environment.loader
    environment.loader = jinja2.ChoiceLoader([jinja2.DictLoader({"only.html": TEMPLATE}), loader])
    target = run.path / "report.html"
    values = explorer_values(dataclasses.replace(facts, images=items))
    pages.write_page(target, "only.html", values, title="Explorer", assets=EXPLORER_ASSETS)
    environment.loader = loader
    return target


def ids(page: Any) -> list[str]:
    return page.locator("[data-list] b").all_text_contents()


def says(page: Any) -> str:
    return page.inner_text("[data-says]")


def loaded(page: Any) -> None:
    """The outlines are there."""
    page.wait_for_selector("[data-sums] table", state="attached")


def at(page: Any) -> list[float]:
    """Scale and place of the picture, once it stands still."""
    page.wait_for_timeout(120)
    return [float(part) for part in page.get_attribute("canvas", "data-at").split()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["laptop", "phone"])
def test_it_opens_and_everyone_can_use_it(path, open_page, check_access, size, scheme):
    page = open_page(path, size=size, scheme=scheme)
    loaded(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("main img:not(.ex-thumb)").count() == 0
    page.click("[data-sums-box] summary")
    check_access(page)
    page.focus("canvas")
    page.keyboard.press("?")
    assert page.locator("dialog").is_visible()
    check_access(page)


def test_the_list_sorts_and_filters(path, open_page):
    page = open_page(path)
    assert ids(page) == [EVIL, "a9", "a10", ODD]  # worst score first
    left = lambda: page.inner_text("[data-left]")  # noqa: E731
    assert left() == "4 of 4 images"
    for key in ("split", "merged", "poor", "false"):
        page.select_option("[data-sort]", key)
        assert ids(page)[0] == "a9"
    page.select_option("[data-sort]", "missed")
    assert ids(page)[:2] == [EVIL, "a9"]
    page.select_option("[data-sort]", "id")
    assert ids(page) == [EVIL, "a9", "a10", ODD]
    page.click("[data-order]")
    assert ids(page) == [ODD, "a10", "a9", EVIL]
    page.fill("[data-text]", "A1")
    assert (ids(page), left()) == (["a10"], "1 of 4 images")
    page.fill("[data-text]", "a")
    assert ids(page) == ["a10", "a9", EVIL]
    page.select_option("[data-type]", label="spindle")
    assert (ids(page), left()) == (["a9"], "1 of 4 images")
    page.fill("[data-text]", "nothing is called so")
    assert (ids(page), left()) == ([], "0 of 4 images")
    page.fill("[data-text]", "")
    page.select_option("[data-type]", label="all")
    page.select_option("[data-fold]", label="0")
    assert left() == f"{len(ids(page))} of 4 images"
    assert 0 < len(ids(page)) < 4
    about = page.locator("[data-list] [role=option]").first.text_content()
    assert "fold 0" in about


def test_errors_are_counted_shown_and_add_up(path, open_page):
    page = open_page(path, at="#image=a9&layers=image,errors")
    loaded(page)
    assert page.inner_text("[data-name]") == "a9"
    counts = page.locator("[data-errors] .count").all_inner_texts()
    assert counts == ["1", "1", "1", "1", "1"]
    page.click("[data-sums-box] summary")
    rows = page.locator("[data-sums] tbody tr").all_inner_texts()
    numbers = {row.split("\t")[0]: row.split("\t")[1:] for row in rows}
    assert numbers["Correct"] == ["1", "0", "1", "0"]
    assert numbers["Split"] == ["1", "1", "2", "2"]
    assert numbers["Merged"] == ["2", "2", "1", "1"]
    assert numbers["Together, as in oof/scores.csv"] == ["6", "4", "6", "4"]


def test_from_error_to_error(path, open_page):
    page = open_page(path, at="#image=a9&layers=image,errors")
    loaded(page)
    page.focus("canvas")
    whole = at(page)[0]
    found = []
    for _ in range(5):
        page.keyboard.press("e")
        found.append(says(page))
    assert found == [
        "Error 1 of 5: missed cell, no prediction touches it.",
        "Error 2 of 5: one true cell in 2 pieces.",
        "Error 3 of 5: one prediction over 2 true cells.",
        "Error 4 of 5: poor outline, IoU 0.70.",
        "Error 5 of 5: false cell, it touches no true cell.",
    ]
    assert at(page)[0] > 1.5 * whole
    box = page.locator("canvas").bounding_box()
    scale, x, y = at(page)  # the false cell stands in the middle
    assert x + scale * 107.5 == pytest.approx(box["width"] / 2, abs=1)
    assert y + scale * 81.5 == pytest.approx(box["height"] / 2, abs=1)
    page.keyboard.press("e")
    assert says(page).startswith("Error 1 of 5")
    page.keyboard.press("Shift+E")
    assert says(page).startswith("Error 5 of 5")
    page.keyboard.press("f")  # no false cells any more
    page.keyboard.press("e")
    assert says(page).startswith("Error 1 of 4")
    assert page.get_attribute("[data-error=false]", "aria-pressed") == "false"
    assert page.url.endswith("&hide=false")
    page.keyboard.press("0")
    assert at(page)[0] == pytest.approx(whole)


def colours(page: Any) -> set[str]:
    """Which of the explorer's colours are on the canvas; a screenshot, as its pixels cannot be read."""
    import io

    from skimage.io import imread

    page.wait_for_timeout(150)
    pixels = imread(io.BytesIO(page.locator("canvas").screenshot()))[..., :3].astype(int)
    names = ["truth", "predicted", "missed", "false", "split", "merged", "poor"]
    found = set()
    for name in names:
        text = page.evaluate(
            "name => getComputedStyle(document.querySelector('.explorer')).getPropertyValue(name)",
            f"--ex-{name}",
        )
        wanted = np.array([int(text.strip()[i : i + 2], 16) for i in (1, 3, 5)])
        if (np.abs(pixels - wanted).max(axis=-1) < 6).sum() > 3:
            found.add(name)
    return found


def test_layers_come_and_go(path, open_page):
    page = open_page(path, at="#image=a9&layers=image")
    loaded(page)
    page.focus("canvas")
    assert colours(page) == set()
    page.keyboard.press("2")
    assert colours(page) == {"truth"}
    page.keyboard.press("3")
    assert colours(page) >= {"predicted"}
    page.keyboard.press("2")
    page.keyboard.press("3")
    page.keyboard.press("4")
    assert colours(page) == {"missed", "false", "split", "merged", "poor"}
    page.click("[data-error=split]")
    assert colours(page) == {"missed", "false", "merged", "poor"}
    page.focus("canvas")
    page.keyboard.press("5")
    assert page.locator("[data-scale] .flow img").is_visible()
    page.keyboard.press("6")
    assert page.locator("[data-scale] .cellprob").is_visible()
    assert "layers=image,errors,flow,cellprob&hide=split" in page.url
    names = page.locator("[data-layers] button").all_text_contents()
    names = [name.strip() for name in names]
    assert names == ["Image1", "Truth2", "Prediction3", "Errors4", "Flow5", "Cellprob6"]


def test_moving_and_zooming(path, open_page):
    page = open_page(path)
    loaded(page)
    box = page.locator("canvas").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    start = at(page)
    page.mouse.move(*middle)
    page.mouse.wheel(0, -300)  # the page scrolls on, until somebody works here
    page.wait_for_timeout(100)
    assert at(page) == start
    assert "wheel zooms" in says(page)
    page.evaluate("scrollTo(0, 0)")
    page.mouse.click(*middle)
    assert "Background" in says(page) or "cell" in says(page)
    page.mouse.wheel(0, -300)
    closer = at(page)
    assert closer[0] > start[0]
    page.mouse.down()
    page.mouse.move(middle[0] + 50, middle[1] + 30, steps=4)
    page.mouse.up()
    moved = at(page)
    assert moved[1] - closer[1] == pytest.approx(50, abs=15)
    page.keyboard.press("ArrowLeft")
    assert at(page)[1] == pytest.approx(moved[1] + 60)
    page.keyboard.press("+")
    assert at(page)[0] == pytest.approx(1.5 * moved[0], rel=1e-3)
    page.keyboard.press("-")
    page.keyboard.press("0")
    assert at(page) == start
    page.mouse.dblclick(*middle)
    assert at(page)[0] == pytest.approx(2 * start[0], rel=1e-3)
    page.click("[data-do=fit]")
    assert at(page) == start
    page.evaluate(PINCH)
    assert at(page)[0] == pytest.approx(2 * start[0], rel=1e-3)  # two fingers, twice as far apart


def test_an_address_for_each_image(path, open_page):
    page = open_page(path)
    loaded(page)
    page.click("text=a10")
    assert page.url.endswith("#image=a10&layers=image,truth,predicted,errors")
    page.keyboard.press("n")
    name = lambda: page.inner_text("[data-name]")  # noqa: E731
    assert name() == ODD
    address = page.url
    page.keyboard.press("n")
    assert says(page) == "This is the last image of the list."
    page.keyboard.press("p")
    page.keyboard.press("k")
    assert name() == "a9"
    page.go_back()
    assert name() == "a10"
    page.go_back()
    assert name() == ODD
    page.go_forward()
    assert name() == "a10"
    other = open_page(path, at=address[address.index("#") :])
    loaded(other)
    assert other.inner_text("[data-name]") == ODD
    assert other.evaluate("document.activeElement.tagName") == "CANVAS"
    assert other.locator("[aria-selected=true] b").text_content() == ODD
    other.keyboard.press("4")
    assert "layers=image,truth,predicted" in other.url


def test_a_link_is_copied(path, open_page):
    page = open_page(path)
    loaded(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("[data-do=copy]")
    # not by a script that is polled: the page's policy lets none be made of text
    page.locator("[data-says]", has_text=re.compile("copy|copied")).wait_for(state="attached")
    shown = page.input_value("[data-address]") or page.evaluate("navigator.clipboard.readText()")
    assert shown == page.url
    assert "#image=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&layers=" in shown


def test_by_keyboard_alone(path, open_page):
    page = open_page(path)
    loaded(page)
    page.focus("[data-list]")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("[data-name]") == "a9"
    option = page.get_attribute("[data-list]", "aria-activedescendant")
    assert page.locator(f"#{option} b").text_content() == "a9"
    page.keyboard.press("End")
    assert page.inner_text("[data-name]") == ODD
    page.keyboard.press("Home")
    assert page.inner_text("[data-name]") == EVIL
    page.focus("[data-text]")
    page.keyboard.type("n1e")  # keys of the explorer are letters here
    assert page.input_value("[data-text]") == "n1e"
    assert page.inner_text("[data-name]") == EVIL


def test_a_page_without_its_folder_says_so(path, open_page, tmp_path):
    alone = tmp_path / "report.html"
    text = path.read_text("utf-8").replace('"report-files"', '"gone"')
    alone.write_text(text.replace("<head>", "<head><!-- alone -->"), "utf-8")
    page = open_page(path)  # the fixture counts failed requests, so this one is opened by hand
    other = page.context.browser.new_page()
    other.goto(alone.resolve().as_uri())
    other.wait_for_selector("[data-wait]:not([hidden])")
    assert "Keep the folder gone where the page is" in other.inner_text("[data-wait]")
    assert other.locator(".ex-thumb").count() == 4
    other.close()

"""Pictures of truth and prediction: every size and kind of image, and cells that can be told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.io import imread

from cellflow.errors import DataError
from cellflow.numeric.rle import instances_from_rles
from cellflow.report.comparison import CAPTION, SIDE, Comparison, write_comparison, write_overview

pytestmark = pytest.mark.filterwarnings("error")

GREEN, MAGENTA = (0, 230, 89), (255, 64, 191)


def cells(side: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """One cell that is found, one that is missed, one that is false."""
    part = side // 8
    truth, predicted = np.zeros((2, side, side), np.int32)
    truth[part : 3 * part, part : 3 * part] = 1
    predicted[part : 3 * part, part : 3 * part] = 4
    truth[part : 3 * part, 5 * part : 7 * part] = 7
    predicted[5 * part : 7 * part, 5 * part : 7 * part] = 9
    return truth, predicted


def drawn(path: Path, item: Comparison) -> np.ndarray[Any, Any]:
    """The picture without caption and legend, in the order of its pixels."""
    write_comparison(path, item)
    picture = imread(path)[..., :3].astype(int)
    side = item.image.shape[0] * -(-SIDE // item.image.shape[0])
    left = (picture.shape[1] - side) // 2
    return picture[CAPTION : CAPTION + side, left : left + side]


@pytest.mark.parametrize("side", [64, 200, 1030])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_found_missed_and_false_cells_differ(
    tmp_path: Path, side: int, channels: int | None
) -> None:
    dtype = {None: np.uint8, 1: np.float32, 2: np.uint16, 3: np.uint8, 4: np.float64}[channels]
    shape = (side, side) if channels is None else (side, side, channels)
    image = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    item = Comparison("x", image, *cells(side))
    assert item.counts == "2 true cells: 1 found, 1 missed; 1 false"
    picture = drawn(tmp_path / "x.png", item)
    scale = len(picture) // side
    part = scale * (side // 8)
    corner = {"found": (part, part), "missed": (part, 5 * part), "false": (5 * part, 5 * part)}
    assert picture[corner["found"]].tolist() == [255, 255, 255]
    assert picture[corner["missed"]].tolist() == list(GREEN)
    assert picture[corner["false"]].tolist() == list(MAGENTA)
    middle = {name: (y + part // 3, x + part // 3) for name, (y, x) in corner.items()}
    inside = {
        name: picture[y : y + part, x : x + part].mean(axis=(0, 1))
        for name, (y, x) in middle.items()
    }
    assert inside["missed"][1] - inside["missed"][0] > 40  # a tint of green
    assert inside["false"][0] - inside["false"][1] > 30  # and of magenta
    assert np.ptp(inside["found"]) < 20


def test_a_missed_cell_has_a_thicker_line(tmp_path: Path) -> None:
    side = 800
    truth, predicted = cells(side)
    picture = drawn(tmp_path / "x.png", Comparison("x", np.zeros((side, side)), truth, predicted))
    row = picture[200]
    assert np.count_nonzero((row == 255).all(axis=1)) == 4
    assert np.count_nonzero((row == GREEN).all(axis=1)) == 6


def test_cells_that_overlap_have_whole_outlines(tmp_path: Path) -> None:
    side = 800
    runs = [
        " ".join(f"{y * side + x + 1} 200" for y in range(top, top + 200))
        for top, x in ((100, 100), (150, 150))
    ]
    truth = instances_from_rles(runs, (side, side))
    nothing = np.zeros((side, side), np.int32)
    picture = drawn(tmp_path / "x.png", Comparison("x", np.zeros((side, side)), truth, nothing))
    assert picture[299, 200].tolist() == picture[200, 299].tolist() == list(GREEN)
    assert picture[150, 200].tolist() == picture[200, 150].tolist() == list(GREEN)


def test_images_without_cells_and_long_names(tmp_path: Path) -> None:
    nothing = np.zeros((70, 90), np.int32)
    item = Comparison("a $na_me " * 40, np.full((70, 90), 3.0), nothing, nothing)
    assert item.counts == "0 true cells: 0 found, 0 missed; 0 false"
    assert item.score == 1.0
    write_comparison(tmp_path / "one.png", item)
    write_overview(tmp_path / "many.png", [item] * 11, title="many")
    write_overview(tmp_path / "single.png", [item])
    assert imread(tmp_path / "many.png").shape[0] > imread(tmp_path / "single.png").shape[0]


def test_sizes_must_fit() -> None:
    nothing = np.zeros((7, 9), np.int32)
    with pytest.raises(DataError, match=r"image x: .*found 9 x 7, 7 x 9, 7 x 9"):
        Comparison("x", np.zeros((9, 7)), nothing, nothing)

"""Validation images of a training as a mosaic: no cell is lost, and both pictures can be flipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.io import imread

from cellflow.numeric.labels import instances_from_labels, instances_from_masks
from cellflow.report import mosaic
from cellflow.report.mosaic import FILL, SIDE, Tile, TilePair, write_mosaic
from cellflow.report.overlays import PREDICTED_COLOR, TRUE_COLOR, color_bytes
from cellflow.synthetic import synthetic_dataset
from cellflow.types import Instances

TRUE, PREDICTED = color_bytes(TRUE_COLOR), color_bytes(PREDICTED_COLOR)


def squares(shape: tuple[int, int], *places: tuple[int, int, int]) -> NDArray[np.int32]:
    """Label map of squares: first row, first column, side."""
    labels = np.zeros(shape, np.int32)
    for number, (y, x, side) in enumerate(places, 1):
        labels[y : y + side, x : x + side] = number
    return labels


def pair_of(image: NDArray[np.generic], truth: Instances, labels: NDArray[np.int32]) -> TilePair:
    return Tile.of("a", image, truth).compare(labels, 0.5)


def test_both_pictures_have_one_grid_and_the_same_image(tmp_path: Path) -> None:
    pairs = [
        Tile.of(item.id, item.image, instances_from_labels(item.labels), item.cell_type).compare(
            np.zeros_like(item.labels), 0.0
        )
        for item in synthetic_dataset(6, shape=(96, 112), seed=5)
    ]
    for predicted in (False, True):
        write_mosaic(tmp_path / f"{predicted}.png", pairs, title="run", predicted=predicted)
    truth, found = (imread(tmp_path / f"{name}.png").astype(int) for name in (False, True))
    assert truth.shape == found.shape
    assert truth.shape[1] > 4 * SIDE
    equal = (truth == found).all(axis=2)
    assert 0.6 < equal.mean() < 1  # the missed cells and the captions differ
    assert (truth == TRUE).all(axis=2).sum() > 100
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["False.png", "True.png"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 20])
def test_any_number_of_images(tmp_path: Path, count: int) -> None:
    labels = squares((40, 30), (5, 5, 9))
    pair = pair_of(np.zeros((40, 30)), instances_from_labels(labels), labels)
    write_mosaic(tmp_path / "a.png", [pair] * count, title="a" * 500, predicted=True)
    lines = (imread(tmp_path / "a.png") == PREDICTED).all(axis=2)
    height, width = pair.true.shape[:2]
    assert height == SIDE
    assert width == 270
    of_one = int((pair.predicted == PREDICTED).all(axis=2).sum())
    assert lines[:-40].sum() == min(count, 16) * of_one  # the last rows are the legend


def test_what_is_missed_and_false_is_filled_and_counted() -> None:
    shape = (SIDE, SIDE)
    truth = squares(shape, (10, 10, 30), (100, 100, 30), (200, 200, 30))
    labels = squares(shape, (11, 11, 30), (300, 20, 30))
    found = Tile.of("a", np.zeros(shape), instances_from_labels(truth), "round").compare(
        labels, 0.25
    )
    assert found.true_line == "round · 3 cells, 2 missed"
    assert found.predicted_line == "round · score 0.25 · 1 right, 1 false"
    assert np.array_equal(found.true[110, 110], np.rint(FILL * TRUE))
    assert found.true[20, 20].max() == 0
    assert np.array_equal(found.predicted[310, 30], np.rint(FILL * PREDICTED))
    assert found.predicted[20, 20].max() == 0
    for y, x in ((10, 10), (100, 100), (229, 229)):
        assert np.array_equal(found.true[y, x], TRUE)


def test_overlapping_cells_both_have_their_outline() -> None:
    shape = (SIDE, SIDE)
    masks = [squares(shape, place) > 0 for place in ((50, 50, 100), (100, 100, 100), (60, 60, 20))]
    found = pair_of(np.zeros(shape), instances_from_masks(masks, shape), np.zeros(shape, np.int32))
    for y, x in ((149, 149), (100, 199), (100, 100), (60, 60)):
        assert np.array_equal(found.true[y, x], TRUE), (y, x)


@settings(deadline=None, max_examples=50)
@given(
    height=st.integers(1, 1500), width=st.integers(1, 1500), side=st.integers(1, 60),
    seed=st.integers(0, 99), channels=st.sampled_from([(), (1,), (2,), (3,)]),
)  # fmt: skip
def test_every_cell_that_is_shown_has_a_line(
    height: int, width: int, side: int, seed: int, channels: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : height : 2 * side, 0 : width : 2 * side].reshape(2, -1)[:, :50]
    labels = squares((height, width), *zip(y, x, [side] * len(y), strict=True))
    image = rng.integers(0, 255, (height, width, *channels), dtype=np.uint8)
    tile = Tile.of("a", image, instances_from_labels(labels))
    assert max(tile.picture.shape) == SIDE
    shown = set(
        np.unique(labels[tile.rows[0] : tile.rows[-1] + 1, tile.columns[0] : tile.columns[-1] + 1])
    )
    if min(height, width) > 100:  # and so not squeezed to a strip
        assert set(np.unique(tile.cells[tile.lines])) == shown - {0}
    found = tile.compare(labels, 1.0)
    assert found.true.shape == found.predicted.shape == tile.picture.shape


def test_of_a_large_image_with_small_cells_the_part_with_the_cells_is_shown() -> None:
    shape = (1500, 2000)
    labels = squares(shape, *[(1000 + 20 * at, 1200 + 20 * at, 8) for at in range(10)])
    tile = Tile.of("a", np.zeros(shape), instances_from_labels(labels))
    assert tile.picture.shape[:2] == (SIDE, SIDE)
    assert len(np.unique(tile.cells)) == 11
    assert tile.compare(labels, 1.0).true_line == "part · 10 cells, 0 missed"
    whole = Tile.of(
        "a", np.zeros((700, 700)), instances_from_labels(squares((700, 700), (9, 9, 40)))
    )
    assert whole.compare(np.zeros((700, 700), np.int32), 0.0).true_line == "1 cell, 1 missed"


def test_an_image_without_cells() -> None:
    found = pair_of(np.ones((50, 60)), instances_from_labels(squares((50, 60))), squares((50, 60)))
    assert found.true_line == "0 cells, 0 missed"
    assert found.predicted_line == "score 0.50 · 0 right, 0 false"


@settings(deadline=None, max_examples=60)
@given(st.text("0123456789abcdefWM", min_size=1, max_size=90), st.integers(60, 400))
def test_captions_stay_over_their_image(words: str, width: int) -> None:
    font = mosaic._font(12, bold=True)
    shown = mosaic._fitting(words, font, width)
    assert font.getlength(shown) <= width
    assert shown == words if font.getlength(words) <= width else shown.count("...") == 1


def test_ids_of_64_letters_do_not_run_into_each_other(tmp_path: Path) -> None:
    """Between two images nothing is written."""
    pair = pair_of(np.zeros((60, 60)), instances_from_labels(squares((60, 60))), squares((60, 60)))
    pairs = [pair._replace(name=f"{n}" + "d8W" * 21) for n in range(3)]
    write_mosaic(tmp_path / "a.png", pairs, title="t", predicted=False)
    picture = imread(tmp_path / "a.png")
    for after in (1, 2):
        gap = mosaic.MARGIN + after * (SIDE + mosaic.GAP) - mosaic.GAP
        between = picture[mosaic.HEAD : mosaic.HEAD + 14, gap + 1 : gap + mosaic.GAP - 1]
        assert (between == mosaic.DARK).all()

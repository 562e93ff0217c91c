"""Parts, contacts, backgrounds and run orders, against scikit-image and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label

from cellflow.numeric.labels import instances_from_labels, labels_from_instances
from cellflow.numeric.mask_checks import (
    map_facts,
    order_of_rles,
    part_facts,
    split_parts,
    without_repeats,
)
from cellflow.numeric.rle import instances_from_rles, rles_from_labels
from cellflow.synthetic import synthetic_image
from cellflow.types import Instances

Labels = NDArray[np.int32]

MAPS = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3)
)


def discs(shape: tuple[int, int] = (96, 128), radius: int = 7) -> Labels:
    """Twelve separate discs, numbered."""
    marks = np.zeros(shape, np.int32)
    ys = np.linspace(14, shape[0] - 14, 3).astype(int)
    xs = np.linspace(14, shape[1] - 14, 4).astype(int)
    marks[np.ix_(ys, xs)] = 1
    y, x = np.nonzero(marks)
    marks[y, x] = np.arange(1, 13)
    near = ndimage.distance_transform_edt(marks == 0, return_indices=True)
    return np.where(near[0] <= radius, marks[tuple(near[1])], 0).astype(np.int32)


@settings(deadline=None)
@given(MAPS)
def test_parts_are_those_of_scikit_image(labels: Labels) -> None:
    wanted = label(labels, connectivity=2, background=0, return_num=True)
    assert part_facts(instances_from_labels(labels)).n_parts == wanted[1]
    pieces = split_parts(instances_from_labels(labels))
    assert len(pieces) == wanted[1]
    assert label(labels_from_instances(pieces), connectivity=2, return_num=True)[1] <= wanted[1]
    found = {frozenset(pixels_of(pieces, index)) for index in range(len(pieces))}
    truth = {frozenset(np.flatnonzero(wanted[0] == number)) for number in range(1, wanted[1] + 1)}
    assert found == truth


def pixels_of(instances: Instances, index: int) -> list[int]:
    starts, lengths = instances.runs(index)
    return [p for start, n in zip(starts, lengths, strict=True) for p in range(start, start + n)]


def test_runs_over_the_ends_of_rows_and_runs_that_touch_are_one_part() -> None:
    cells = instances_from_rles(["3 7", "1 2 3 2"], (4, 5))
    facts = part_facts(cells)
    assert (facts.n_cells, facts.n_parts) == (2, 2)


def test_foreground_and_classes_hold_many_cells_in_one() -> None:
    cells = discs()
    binary = (cells > 0).astype(np.int32)
    classes = np.where(cells > 6, 2, binary)
    assert not part_facts(instances_from_labels(cells)).holds_many_cells_in_one
    assert part_facts(instances_from_labels(binary)).holds_many_cells_in_one
    assert part_facts(instances_from_labels(classes)).holds_many_cells_in_one
    assert not part_facts(split_parts(instances_from_labels(binary))).holds_many_cells_in_one


def test_numbers_used_twice_are_found_and_a_cell_of_two_parts_is_fine() -> None:
    twice = np.concatenate([discs(), np.where(discs(), discs() + 12, 0), discs()], axis=1)
    twice = np.concatenate([twice, twice], axis=0)
    assert part_facts(instances_from_labels(twice)).holds_many_cells_in_one
    pair = np.isin(discs(), (1, 2)).astype(np.int32)
    facts = part_facts(instances_from_labels(pair))
    assert (facts.n_split, facts.holds_many_cells_in_one) == (1, False)


def test_specks_around_a_cell_are_no_cells() -> None:
    cell = (discs() == 6).astype(np.int32)
    cell[::10, ::10] = 1
    facts = part_facts(instances_from_labels(cell))
    assert facts.n_parts > 50
    assert not facts.holds_many_cells_in_one


@pytest.mark.parametrize("cell_type", ["round", "spindle", "spread"])
def test_photographs_are_pictures_and_their_labels_are_not(cell_type: str) -> None:
    image, labels = synthetic_image(cell_type, shape=(128, 128))
    assert map_facts(image).is_picture
    assert map_facts(image.astype(np.int64) * 257).is_picture
    assert not map_facts(labels).is_picture


def test_smoothed_labels_are_pictures_and_dense_ones_are_not() -> None:
    for scale, order in ((1.5, 1), (0.5, 1), (0.7, 3)):
        smooth = ndimage.zoom((discs() * 20).astype(np.uint8), scale, order=order)
        assert map_facts(smooth).is_picture
    large = np.kron(discs() * 20, np.ones((8, 8), np.int32)).astype(np.uint8)
    assert map_facts(ndimage.zoom(large, 0.7, order=1)).is_picture
    rows, columns = np.indices((60, 60)) // 4
    assert not map_facts(1 + rows * 15 + columns).is_picture, "small cells without a gap"


def test_background_that_is_not_0() -> None:
    cells = discs()
    for value in (1, 255, 65535):
        shifted = np.where(cells, cells + 1, value)
        facts = map_facts(shifted)
        assert facts.background == value
        assert facts.background_share == pytest.approx(np.mean(cells == 0))
    assert map_facts(np.where(cells, 0, 255)).background == 255, "inverted"
    assert map_facts(cells).background == 0
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(256, 256)), 4)
    assert map_facts((noise > 0.06).astype(int)).background == 0, "three corners by chance"
    large = np.hypot(*(np.indices((64, 64)) - 32)) < 40
    assert map_facts(large.astype(int)).background == 0, "one large cell touches all sides"


def test_order_is_told_by_compactness() -> None:
    cells = discs()
    for order in ("C", "F"):
        image = rles_from_labels(cells, order), cells.shape  # type: ignore[arg-type]
        assert order_of_rles([(["1 999999"], (9, 5)), ([""], (9, 5)), image]) == order  # type: ignore[list-item]
    assert order_of_rles([]) == "C"
    assert order_of_rles([(["1 3"], (2**40, 2**30))]) == "C", "no image has a size like that"
    square = rles_from_labels(discs((128, 128)), "F"), (128, 128)
    assert order_of_rles([square]) == "C", "a square image says nothing"


def test_repeats_are_left_out() -> None:
    rles = ["1 2 7 2", "4 1", "7 2 1 2", "4 1", "4 2"]
    assert len(without_repeats(instances_from_rles(rles, (3, 6)))) == 3
    cells = instances_from_labels(discs())
    assert without_repeats(cells) is cells


def test_small_cells_are_no_picture() -> None:
    """Each is a speck or two, but has a number of its own."""
    small = discs((512, 512))[::8, ::8]
    assert len(np.unique(small)) > 10
    assert not map_facts(small).is_picture

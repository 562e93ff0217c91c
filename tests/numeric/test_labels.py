from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracle import Oracle

from cellflow.errors import DataError
from cellflow.numeric.labels import (
    bounded,
    check_labels,
    compact,
    instances_from_labels,
    labels_from_instances,
    measure_areas,
    median_diameter,
    outlines,
)
from cellflow.numeric.rle import instances_from_rles

LABELS = hnp.arrays(
    st.sampled_from([np.uint8, np.int64, np.uint16, np.int32]),
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=10),
    elements=st.sampled_from([0, 0, 1, 2, 5, 120]),
)


@settings(max_examples=60, deadline=None)
@given(labels=LABELS)
def test_renumber_and_areas(labels):
    numbers, counts = np.unique(labels[labels > 0], return_counts=True)
    got, count = compact(labels)
    assert count == len(numbers)
    assert got.dtype == np.int32
    assert np.array_equal(got, np.searchsorted(numbers, labels) * (labels > 0) + (labels > 0))
    areas = measure_areas(*bounded(labels))
    assert areas[areas > 0].tolist() == counts.tolist()
    assert instances_from_labels(labels).areas.tolist() == counts.tolist()


def test_huge_numbers():
    assert compact(np.array([[2**62, 7]]))[0].tolist() == [[2, 1]]
    assert compact(np.array([[0, 2**40]], dtype=np.uint64))[0].tolist() == [[0, 1]]


@settings(max_examples=60, deadline=None)
@given(labels=LABELS)
def test_outlines(labels):
    padded = np.pad(labels.astype(np.int64), 1, constant_values=-1)
    slow = np.zeros(labels.shape, dtype=bool)
    for y, x in np.argwhere(labels > 0):
        around = [padded[y, x + 1], padded[y + 2, x + 1], padded[y + 1, x], padded[y + 1, x + 2]]
        slow[y, x] = any(value != labels[y, x] for value in around)
    assert np.array_equal(outlines(labels), slow)


def test_disputed_pixels():
    small_wins = instances_from_rles(["1 6", "2 2"], (2, 4))
    assert labels_from_instances(small_wins).tolist() == [[1, 2, 2, 1], [1, 1, 0, 0]]
    later_wins = instances_from_rles(["1 3", "2 3"], (1, 5))
    assert labels_from_instances(later_wins).tolist() == [[1, 2, 2, 2, 0]]
    vanishes = instances_from_rles(["1 2", "1 1", "2 1", "4 1"], (1, 4))
    assert labels_from_instances(vanishes).tolist() == [[1, 2, 0, 3]]


def test_median_diameter_is_that_of_cellpose():
    diameters = Oracle("utils").diameters

    labels = np.random.default_rng(0).integers(0, 7, (40, 40))
    assert median_diameter(labels) == pytest.approx(diameters(labels)[0])
    assert median_diameter(np.zeros((3, 3), int)) == 0.0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((2, 3, 4), int), r"found shape \(2, 3, 4\)"),
        (np.zeros((2, 3)), "float64"),
        (np.array([[0, 1], [-4, 0]]), "found -4 at row 1, column 0"),
        (np.array([["a"]]), "dtype"),
    ],
)
def test_bad_labels(labels, message):
    with pytest.raises(DataError, match=message):
        check_labels(labels)


def test_bool_empty_and_read_only_labels():
    assert instances_from_labels(np.ones((2, 2), bool)).areas.tolist() == [4]
    assert len(instances_from_labels(np.zeros((0, 4), int))) == 0
    frozen = np.ones((3, 3), np.int32)
    frozen.flags.writeable = False
    assert instances_from_labels(frozen).areas.tolist() == [9]

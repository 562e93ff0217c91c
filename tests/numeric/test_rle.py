from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellflow.errors import RleError
from cellflow.numeric.labels import compact, instances_from_labels, labels_from_instances
from cellflow.numeric.rle import (
    instances_from_rles,
    rle_decode,
    rle_encode,
    rles_from_instances,
    rles_from_labels,
)

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
MASKS = hnp.arrays(bool, SHAPES)
LABELS = hnp.arrays(np.int32, SHAPES, elements=st.integers(0, 5))


def slow_encode(mask, order):
    runs, begin = [], None
    for i, value in enumerate([*mask.ravel(order=order).tolist(), False]):
        if value and begin is None:
            begin = i
        elif not value and begin is not None:
            runs += [begin + 1, i - begin]
            begin = None
    return " ".join(map(str, runs))


@settings(max_examples=60, deadline=None)
@given(mask=MASKS, order=st.sampled_from("CF"))
def test_one_mask_there_and_back(mask, order):
    text = rle_encode(mask, order)
    assert text == slow_encode(mask, order)
    assert np.array_equal(rle_decode(text, mask.shape, order), mask)


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, order=st.sampled_from("CF"))
def test_labels_there_and_back(labels, order):
    rles = rles_from_labels(labels, order)
    numbers = [n for n in np.unique(labels) if n]
    assert rles == [slow_encode(labels == n, order) for n in numbers]
    instances = instances_from_rles(rles, labels.shape, order)
    assert np.array_equal(labels_from_instances(instances), compact(labels)[0])
    assert rles_from_instances(instances) == rles_from_labels(labels)


def test_known_strings():
    mask = np.array([[0, 1, 1], [1, 0, 0]], dtype=bool)
    assert rle_encode(mask) == "2 3"
    assert rle_encode(mask, "F") == "2 2 5 1"
    assert rle_encode(np.zeros((4, 4), dtype=bool)) == ""
    assert not rle_decode("", (4, 4)).any()
    assert len(instances_from_rles(["", "1 1"], (2, 2))) == 2
    assert len(instances_from_rles([], (2, 2))) == 0


def test_runs_in_any_order_and_touching():
    assert np.array_equal(rle_decode(" 5 2\n1 2  3 1 ", (2, 4)), rle_decode("1 3 5 2", (2, 4)))


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ("1 2 3", "found 3 numbers"),
        ("1 x", "'x' as number 2"),
        ("1 2.5", "2.5"),
        ("0 2", r"run 1 \(0 2\) starts before pixel 1"),
        ("-3 2", "starts before pixel 1"),
        ("1 2 5 0", r"run 2 \(5 0\) has a length below 1"),
        ("19 3", "past the end of the image of 4 x 5 = 20 pixels"),
        ("1 9223372036854775807", "past the end"),
        ("1 99999999999999999999", "too long"),
        ("1 4 3 2", r"run 2 \(3 2\) overlaps run 1 \(1 4\)"),
        (float("nan"), "found nan"),
        (None, "found None"),
    ],
)
def test_bad_strings(rle, message):
    with pytest.raises(RleError, match=message):
        rle_decode(rle, (4, 5))
    with pytest.raises(RleError, match=f"string 1 of 2: .*{message}"):
        instances_from_rles(["1 1", rle], (4, 5))


def test_bad_order_and_single_string():
    with pytest.raises(RleError, match="row-major"):
        rle_encode(np.ones((2, 2), bool), "K")
    with pytest.raises(RleError, match="list of strings"):
        instances_from_rles("1 2", (2, 2))


def test_seventy_thousand_labels():
    labels = np.arange(70_000, dtype=np.int32).reshape(250, 280)
    rles = rles_from_labels(labels)
    assert len(rles) == 69_999
    assert rles[-1] == "70000 1"
    assert len(instances_from_labels(labels)) == 69_999

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracle import Oracle

from cellflow.errors import DataError
from cellflow.numeric.labels import instances_from_labels
from cellflow.numeric.matching import match
from cellflow.numeric.rle import instances_from_rles, rle_encode
from cellflow.numeric.score import (
    COMPETITION_THRESHOLDS,
    average_precision,
    competition_score,
)

LABELS = hnp.arrays(np.int32, (6, 7), elements=st.integers(0, 4))
MASKS = st.lists(hnp.arrays(bool, (6, 7)), max_size=4)


def as_instances(masks):
    return instances_from_rles([rle_encode(mask) for mask in masks], (6, 7))


def slow_counts(truths, predictions, threshold):
    hit = np.zeros((len(truths), len(predictions)), dtype=bool)
    for i, truth in enumerate(truths):
        for j, prediction in enumerate(predictions):
            union = int((truth | prediction).sum())
            shared = int((truth & prediction).sum())
            hit[i, j] = union > 0 and Fraction(shared, union) > threshold
    return (
        int((hit.sum(axis=1) == 1).sum()),
        int((hit.sum(axis=0) == 0).sum()),
        int((hit.sum(axis=1) == 0).sum()),
    )


@settings(max_examples=80, deadline=None)
@given(truths=MASKS, predictions=MASKS)
def test_counts_of_overlapping_cells(truths, predictions):
    # also below one half, where a truth can be hit twice and is then neither TP nor FN
    thresholds = [0.0, 0.1, 0.3, *COMPETITION_THRESHOLDS]
    score = average_precision(as_instances(truths), as_instances(predictions), thresholds)
    for t, threshold in enumerate(thresholds):
        exact = Fraction(round(threshold * 20), 20)
        expected = slow_counts(truths, predictions, exact)
        assert (score.tp[0, t], score.fp[0, t], score.fn[0, t]) == expected


@settings(max_examples=60, deadline=None)
@given(first=MASKS, second=LABELS)
def test_overlaps(first, second):
    i, j, shared = match(as_instances(first), second)[:3]
    numbers = [n for n in np.unique(second) if n]
    slow = [
        (a, b, int((mask & (second == n)).sum()))
        for a, mask in enumerate(first)
        for b, n in enumerate(numbers)
        if (mask & (second == n)).any()
    ]
    assert list(zip(i.tolist(), j.tolist(), shared.tolist(), strict=True)) == slow


@settings(max_examples=40, deadline=None)
@given(truth=LABELS, prediction=LABELS, seed=st.integers(0, 99))
def test_order_of_labels_does_not_matter(truth, prediction, seed):
    table = np.concatenate([[0], np.random.default_rng(seed).permutation(4) * 3 + 1])
    first = competition_score(truth, prediction)
    second = competition_score(truth, table[prediction])
    assert first.mean == second.mean


def test_exactly_at_a_threshold_is_no_hit():
    truth = np.zeros((1, 40), int)
    truth[0, :20] = 1
    prediction = np.zeros((1, 40), int)
    prediction[0, :11] = 1  # IoU is 11 / 20 = 0.55, which float arithmetic puts on either side
    score = competition_score(truth, prediction)
    assert score.tp[0].tolist() == [1] + [0] * 9


def test_empty_images():
    nothing, cell = np.zeros((5, 5), int), np.ones((5, 5), int)
    scores = competition_score([nothing, cell, nothing, cell], [nothing, nothing, cell, cell])
    assert scores.per_image.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert scores.mean == 0.5


def test_lists_are_images():
    rng = np.random.default_rng(0)
    truths = [rng.integers(0, 4, (9, 9)) for _ in range(3)]
    predictions = [rng.integers(0, 4, (9, 9)) for _ in range(3)]
    together = competition_score(truths, predictions)
    single = [competition_score(t, p) for t, p in zip(truths, predictions, strict=True)]
    assert np.array_equal(np.concatenate([score.tp for score in single]), together.tp)
    assert average_precision(truths, predictions).per_threshold.shape == (3,)


def test_agrees_with_cellpose_where_the_definitions_agree():
    upstream = Oracle("metrics").average_precision

    rng = np.random.default_rng(1)
    truth = np.kron(np.arange(1, 26).reshape(5, 5), np.ones((9, 9), int))
    prediction = np.roll(truth, rng.integers(0, 3), axis=1)
    _, tp, fp, fn = upstream(truth, prediction, threshold=[0.51, 0.72, 0.9])
    score = average_precision(truth, prediction, [0.51, 0.72, 0.9])
    assert score.tp[0].tolist() == tp.tolist()
    assert score.fp[0].tolist() == fp.tolist()
    assert score.fn[0].tolist() == fn.tolist()


def test_many_cells_stay_sparse():
    truth = np.arange(1, 70_001).reshape(250, 280)
    score = competition_score(truth, np.roll(truth, 1))
    assert score.mean == 1.0
    i, _, shared = match(truth, truth.max() + 1 - truth)[:3]
    assert len(i) == 70_000
    assert set(shared.tolist()) == {1}


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((3, 3), int), np.zeros((3, 4), int), r"found \(3, 3\) and \(3, 4\)"),
        ([np.zeros((3, 3), int)], [], "found 0 and 1"),
        (np.zeros((2, 3, 3), int), np.zeros((2, 3, 3), int), "list of them"),
        ([np.zeros((3, 3), int)] * 2, [np.zeros((3, 3), int), np.zeros((3, 3))], "image 1 of 2"),
    ],
)
def test_bad_input(truth, prediction, message):
    with pytest.raises(DataError, match=message):
        competition_score(truth, prediction)


def test_bad_thresholds():
    labels = np.zeros((3, 3), int)
    for thresholds in ([], [1.0], [-0.1], [float("nan")]):
        with pytest.raises(DataError, match="thresholds"):
            average_precision(labels, labels, thresholds)
    assert instances_from_labels(labels).areas.tolist() == []

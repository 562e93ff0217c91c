"""Which cells are found, missed and false, and the rates made of their counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cellflow.errors import DataError
from cellflow.numeric.labels import instances_from_labels
from cellflow.numeric.rle import instances_from_rles
from cellflow.numeric.score import competition_score, detection_rates, hit_cells


def random_labels(seed: int, n: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = np.zeros((40, 50), np.int32)
    for number in range(1, n + 1):
        y, x = rng.integers(0, 34), rng.integers(0, 44)
        labels[y : y + 6, x : x + 6] = number
    return labels


@pytest.mark.parametrize("seed", range(5))
def test_hits_are_those_that_the_score_counts(seed: int) -> None:
    truth = random_labels(seed)
    moved = np.roll(truth, 1, axis=1)
    prediction = np.where(moved % 3 == 0, 0, moved)
    score = competition_score(truth, prediction)
    for cells in (truth, instances_from_labels(truth)):
        found, right = hit_cells(cells, prediction)
        assert np.count_nonzero(~found) == score.fn[0, 0]
        assert np.count_nonzero(~right) == score.fp[0, 0]
        assert np.count_nonzero(found) == score.tp[0, 0]


def test_cells_that_overlap_are_told_apart() -> None:
    truth = instances_from_rles(["1 6", "4 6"], (1, 10))
    found, right = hit_cells(truth, np.array([[1] * 6 + [2] * 3 + [0]]))
    assert found.tolist() == [True, False]  # the second is met with an IoU of just one half
    assert right.tolist() == [True, False]


def test_images_without_cells() -> None:
    found, right = hit_cells(np.zeros((3, 4), int), np.zeros((3, 4), int))
    assert len(found) == len(right) == 0
    with pytest.raises(DataError, match="expected one image size"):
        hit_cells(np.zeros((3, 4), int), np.zeros((4, 3), int))


def test_rates() -> None:
    assert detection_rates(6, 2, 4) == pytest.approx((0.75, 0.6, 2 / 3))
    assert detection_rates(0, 0, 0) == (1.0, 1.0, 1.0)
    assert detection_rates(0, 0, 5) == detection_rates(0, 5, 0) == (0.0, 0.0, 0.0)
    assert all(math.isnan(rate) for rate in detection_rates(math.nan, 1, 1))

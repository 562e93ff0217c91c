"""Classes of cells against a twin that looks at every pair of pixel sets, and against the counts of the score."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellflow.errors import DataError
from cellflow.numeric.cell_errors import ERRORS, KINDS, cell_errors
from cellflow.numeric.labels import instances_from_masks
from cellflow.numeric.score import competition_score


def twin(truth: list[set[int]], prediction: list[set[int]]) -> tuple[list[str], list[str]]:
    """The definition, word by word, on sets of pixels."""
    true_kinds, found_kinds = ["missed"] * len(truth), ["false"] * len(prediction)

    def most(cell: set[int], others: list[set[int]], allowed: list[int]) -> int | None:
        over = [
            (len(cell & others[k]), -k) for k in allowed if 2 * len(cell & others[k]) > len(cell)
        ]
        return -max(over)[1] if over else None

    everything = list(range(len(prediction)))
    covered_by = [most(cell, prediction, everything) for cell in truth]
    for j in everything:
        below = [i for i, by in enumerate(covered_by) if by == j]
        if len(below) > 1:
            found_kinds[j] = "merged"
            for i in below:
                true_kinds[i] = "merged"
    whole = [i for i, kind in enumerate(true_kinds) if kind == "missed"]
    lies_in = [
        most(cell, truth, whole) if found_kinds[j] == "false" else None
        for j, cell in enumerate(prediction)
    ]
    for i in whole:
        pieces = [j for j, of in enumerate(lies_in) if of == i]
        if len(pieces) > 1:
            true_kinds[i] = "split"
            for j in pieces:
                found_kinds[j] = "split"
    pairs = []
    for i, cell in enumerate(truth):
        for j, other in enumerate(prediction):
            if true_kinds[i] == "missed" and found_kinds[j] == "false" and cell & other:
                iou = Fraction(len(cell & other), len(cell | other))
                one_in_other = 2 * len(cell & other) > min(len(cell), len(other))
                if iou > Fraction(1, 10) and one_in_other:
                    pairs.append((-iou, i, j))
    for iou, i, j in sorted(pairs):
        if true_kinds[i] == "missed" and found_kinds[j] == "false":
            true_kinds[i] = found_kinds[j] = "correct" if -iou > Fraction(3, 4) else "poor"
    return true_kinds, found_kinds


def pixel_sets(labels: np.ndarray) -> list[set[int]]:
    flat = labels.ravel()
    return [set(np.flatnonzero(flat == number).tolist()) for number in np.unique(flat[flat > 0])]


def names(kinds: np.ndarray) -> list[str]:
    return [KINDS[kind] for kind in kinds]


maps = arrays(np.int32, (4, 6), elements=st.integers(0, 4))
masks = st.lists(arrays(np.bool_, (4, 6)), max_size=4)


@settings(deadline=None)  # the first call compiles
@given(maps, maps)
def test_every_cell_is_what_the_definition_says(truth, prediction):
    found = cell_errors(truth, prediction)
    assert (names(found.truth), names(found.prediction)) == twin(
        pixel_sets(truth), pixel_sets(prediction)
    )


@settings(deadline=None)  # the first call compiles
@given(masks, maps)
def test_true_cells_may_overlap(truth, prediction):
    truth = [mask for mask in truth if mask.any()]
    instances = instances_from_masks(truth, (4, 6))
    found = cell_errors(instances, prediction)
    sets = [set(np.flatnonzero(mask).tolist()) for mask in truth]
    assert (names(found.truth), names(found.prediction)) == twin(sets, pixel_sets(prediction))


@settings(deadline=None)  # the first call compiles
@given(maps, maps)
def test_they_add_up_to_what_the_score_counts(truth, prediction):
    found, score = cell_errors(truth, prediction), competition_score(truth, prediction)
    assert np.count_nonzero(~found.truth_hit) == score.fn[0, 0]
    assert np.count_nonzero(~found.prediction_hit) == score.fp[0, 0]
    assert np.count_nonzero(found.truth_hit) == score.tp[0, 0]
    # what is missed or false outright never hits, and what is correct always does
    assert not found.truth_hit[found.truth == KINDS.index("missed")].any()
    assert not found.prediction_hit[found.prediction == KINDS.index("false")].any()
    assert found.truth_hit[found.truth == KINDS.index("correct")].all()
    assert "false" not in names(found.truth)
    assert "missed" not in names(found.prediction)


@settings(deadline=None)  # the first call compiles
@given(maps, maps)
def test_every_cell_with_an_error_is_in_exactly_one(truth, prediction):
    found = cell_errors(truth, prediction)
    for side, kinds in (("truth", found.truth), ("prediction", found.prediction)):
        listed = sorted(cell for error in found.errors for cell in getattr(error, side))
        assert listed == np.flatnonzero(kinds != KINDS.index("correct")).tolist()
    for kind, true, predicted in found.errors:
        assert {names(found.truth)[i] for i in true} <= {kind}
        assert {names(found.prediction)[j] for j in predicted} <= {kind}
        sizes = {"missed": "1 0", "false": "0 1", "poor": "1 1"}
        if kind in sizes:
            assert f"{len(true)} {len(predicted)}" == sizes[kind]
        else:
            assert (len(true) == 1, len(predicted) >= 2) == (kind == "split", kind == "split")
            assert (len(true) >= 2, len(predicted) == 1) == (kind == "merged", kind == "merged")
    assert sum(found.counts.values()) == len(found.errors)


def test_errors_turn_around_with_the_sides():
    """What is merged one way is split the other way, where neither has both."""
    truth = np.array([[1, 1, 1, 1, 0, 2, 2, 0, 3, 3, 3, 3]])
    prediction = np.array([[1, 1, 2, 2, 0, 0, 0, 0, 3, 3, 3, 0]])
    assert names(cell_errors(truth, prediction).truth) == ["split", "missed", "poor"]
    assert names(cell_errors(prediction, truth).prediction) == ["merged", "false", "poor"]


def test_a_neighbour_that_laps_over_is_no_piece():
    """Caicedo's rule (an IoU above 0.1 with two) would see a split here."""
    truth = np.array([[1] * 8 + [2] * 8])
    prediction = np.array([[1] * 6 + [2] * 10])
    found = cell_errors(truth, prediction)
    assert names(found.truth) == ["poor", "correct"]
    assert found.truth_iou == pytest.approx([0.75, 0.8])


def test_an_outline_too_far_off_to_count_is_poor_and_not_missed():
    truth = np.array([[1] * 10])
    prediction = np.array([[0] * 6 + [1] * 4])
    found = cell_errors(truth, prediction)
    assert found.counts == {**dict.fromkeys(ERRORS, 0), "poor": 1}
    assert not found.truth_hit.any()  # the score counts it as missed and false
    assert found.truth_iou == pytest.approx([0.4])


def test_nothing_at_all_and_sizes_that_differ():
    nothing = np.zeros((3, 4), np.int32)
    assert cell_errors(nothing, nothing).errors == []
    assert cell_errors(nothing, nothing + 1).counts["false"] == 1
    assert cell_errors(nothing + 1, nothing).counts["missed"] == 1
    with pytest.raises(DataError, match="one image size"):
        cell_errors(nothing, np.zeros((4, 3), np.int32))

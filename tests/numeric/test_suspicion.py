"""Wrong annotations of every kind come out on top, with the right kind and cells."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellflow import FLOW_SCALE, flows_to_labels, labels_to_flows
from cellflow.numeric.audit_facts import audit_facts
from cellflow.numeric.labels import instances_from_labels, instances_from_masks
from cellflow.numeric.suspicion import KINDS, suspect, usual_iou


def disk(y, x, radius=7, shape=(64, 96)):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


CENTRES = [(12, 12), (12, 27), (12, 60), (40, 20), (40, 60), (52, 84)]
"""The first two touch."""
TRUE = [disk(y, x) for y, x in CENTRES]


def model(masks):
    """Flows, logits and labels of a model that sees exactly these cells."""
    labels = np.zeros(masks[0].shape, dtype=np.int32)
    for number, mask in enumerate(masks, 1):
        labels[mask & (labels == 0)] = number
    flow = FLOW_SCALE * labels_to_flows(labels)
    cellprob = np.where(labels > 0, 5.0, -5.0)
    return flow, cellprob, flows_to_labels(flow, cellprob)


def audited(annotated, seen=TRUE, flows=True):
    flow, cellprob, predicted = model(seen)
    cells = instances_from_masks(annotated, seen[0].shape)
    facts = audit_facts(cells, predicted, *((flow, cellprob) if flows else ()))
    return suspect(facts, usual_iou([facts]))


def hollow(mask):
    ys, xs = np.nonzero(mask)
    return mask & ~disk(ys.mean(), xs.mean(), 4)


def halves(mask):
    columns = np.nonzero(mask)[1]
    left = np.arange(mask.shape[1]) < np.median(columns)
    return mask & left, mask & ~left


A, B, C, D, E, F = TRUE
CASES = {
    "missing": ([A, B, C, D, F], ()),
    "unseen": ([*TRUE, disk(14, 84, 6)], (6,)),
    "merged": ([A | B, C, D, E, F], (0,)),
    "split": ([A, B, C, D, *halves(E), F], (4, 5)),
    "outline": ([A, B, C, D, np.roll(E, (3, -6), (0, 1)), F], (4,)),
    "hollow": ([A, B, C, D, hollow(E), F], (4,)),
    "in parts": ([A, B, C, D | disk(40, 40, 5), E, F], (3,)),
}


@pytest.mark.parametrize("flows", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_fault_of_each_kind_is_first(kind, flows):
    annotated, cells = CASES[kind]
    first, *others = audited(annotated, flows=flows)
    assert (first.kind, set(first.cells)) == (kind, set(cells))
    assert first.suspicion > 0.7
    assert all(item.suspicion < 0.2 for item in others)


@pytest.mark.parametrize("flows", [True, False])
def test_right_annotations_are_not_suspected(flows):
    assert audited(TRUE, flows=flows) == []


def test_a_model_that_is_not_sure_accuses_less():
    flow, cellprob, predicted = model(TRUE)
    cells = instances_from_masks(TRUE[:5], TRUE[0].shape)
    doubtful = np.where(cellprob > 0, 0.3, cellprob)
    pointless = flow * np.where(predicted == 6, -1, 1)  # the flows of the last cell lead nowhere
    sure, unsure, lost = (
        [item.suspicion for item in suspect(audit_facts(cells, predicted, *fields), 1.0)]
        for fields in ((flow, cellprob), (flow, doubtful), (pointless, cellprob))
    )
    assert sure[0] > 0.9
    assert 0.4 < unsure[0] < 0.6
    assert lost == []


def test_what_the_model_half_sees_is_less_suspect_than_what_it_does_not():
    flow, cellprob, predicted = model(TRUE[:5])
    cells = instances_from_masks(TRUE, TRUE[0].shape)
    half = np.where(F, -0.2, cellprob)
    full, less = (suspect(audit_facts(cells, predicted, flow, c), 1.0)[0] for c in (cellprob, half))
    assert full.kind == less.kind == "unseen"
    assert less.suspicion < 0.6 < 0.9 < full.suspicion


def test_a_cell_is_suspected_once_of_the_strongest():
    found = audited([A | B, C, D, *halves(E), np.roll(F, -5, 1)])
    named = [cell for item in found for cell in item.cells]
    assert len(named) == len(set(named))
    assert {item.kind for item in found} == {"merged", "split", "outline"}


def test_cells_may_overlap_and_images_may_be_empty():
    assert audited([*TRUE, E], flows=False)[0].kind == "split"  # one cell annotated twice
    nothing = np.zeros((20, 30), dtype=np.int32)
    facts = audit_facts(instances_from_labels(nothing), nothing)
    assert suspect(facts, usual_iou([facts])) == []
    assert usual_iou([]) == 1.0
    only = audited([], flows=True)
    assert [item.kind for item in only] == ["missing"] * 6


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_suspicions_lie_between_0_and_1_and_name_cells_that_are_there(seed):
    rng = np.random.default_rng(seed)
    maps = [rng.integers(0, 4, (6, 7)).repeat(3, 0).repeat(3, 1) for _ in range(2)]
    cells = instances_from_labels(maps[0])
    predicted = np.unique(maps[1], return_inverse=True)[1].reshape(maps[1].shape).astype(np.int32)
    predicted -= maps[1].min() > 0
    flow, cellprob = rng.normal(0, 5, (2, 18, 21)), rng.normal(0, 4, (18, 21))
    facts = audit_facts(cells, predicted, flow, cellprob)
    for item in suspect(facts, usual_iou([facts])):
        assert 0 < item.suspicion <= 1
        assert item.kind in KINDS
        assert set(item.cells) <= set(range(len(cells)))
        assert set(item.predicted) <= set(range(predicted.max()))
        assert item.cells or item.predicted

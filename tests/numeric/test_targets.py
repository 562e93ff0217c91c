from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracle import Oracle

from cellflow.errors import DataError
from cellflow.numeric.dynamics import flows_to_labels
from cellflow.numeric.targets import labels_to_flows

LABELS = hnp.arrays(np.int32, (9, 10), elements=st.sampled_from([0, 1, 1, 2, 4]))


def slow_heat(inside):
    """Heat of one cell on its own, over the whole image, in float64; the centre as in cellpose."""
    y, x = np.nonzero(inside)
    nearest = np.argmin((x - x.mean()) ** 2 + (y - y.mean()) ** 2)
    n = 2 * (np.ptp(y) + 3 + np.ptp(x) + 3)
    heat = np.zeros(np.add(inside.shape, 2))
    for _ in range(n):
        heat[y[nearest] + 1, x[nearest] + 1] += 1
        total = sum(
            heat[1 + dy : heat.shape[0] - 1 + dy, 1 + dx : heat.shape[1] - 1 + dx]
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        )
        heat[1:-1, 1:-1] = total / 9 * inside
    return heat


def slow_flows(labels):
    out = np.zeros((2, *labels.shape))
    for number in np.unique(labels[labels > 0]):
        inside = labels == number
        heat = slow_heat(inside)
        slope = np.stack([heat[2:, 1:-1] - heat[:-2, 1:-1], heat[1:-1, 2:] - heat[1:-1, :-2]])
        slope[np.abs(slope) < 1e-9 * heat.max()] = 0  # rounding, where the heat is symmetric
        length = np.hypot(*slope)
        out[:, inside] = (slope / np.where(length > 0, length, 1))[:, inside]
    return out


def angles(first, second):
    both = (np.hypot(*first) > 0.5) & (np.hypot(*second) > 0.5)
    cosine = (first * second).sum(axis=0)[both]
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


@settings(max_examples=40, deadline=None)
@given(labels=LABELS)
def test_equals_the_slow_twin(labels):
    flow, wanted = labels_to_flows(labels), slow_flows(labels)
    assert flow.dtype == np.float32
    assert not flow[:, labels == 0].any()
    # where the slope is nearly zero its direction is rounding, in both
    assert np.mean(np.abs(flow - wanted).max(axis=0) > 0.01) < 0.03


@pytest.mark.parametrize("slope", [-1.5, -0.4, 0.4, 1.5])
@pytest.mark.parametrize("width", [3, 9])
def test_slanting_cells_whose_rows_are_packed_equal_the_slow_twin(slope, width):
    y, x = np.mgrid[:30, :40]
    middle = 20 + slope * (y - 15)
    labels = (np.abs(x - middle) <= width / 2).astype(np.int32)
    labels[:5], labels[25:] = 0, 0  # farther from the centre the twin rounds to 0
    flow, wanted = labels_to_flows(labels), slow_flows(labels)
    assert not flow[:, labels == 0].any()
    assert np.mean(np.abs(flow - wanted).max(axis=0)[labels > 0] > 0.01) < 0.03


@settings(max_examples=30, deadline=None)
@given(labels=LABELS)
def test_a_cell_does_not_see_its_neighbours(labels):
    together = labels_to_flows(labels)
    for number in np.unique(labels[labels > 0]):
        alone = labels_to_flows(np.where(labels == number, 1, 0))
        assert np.array_equal(together[:, labels == number], alone[:, labels == number])


def test_angles_against_cellpose(cells):
    import torch

    masks_to_flows = Oracle("dynamics").masks_to_flows

    theirs = masks_to_flows(cells.labels, device=torch.device("cpu"))
    ours = labels_to_flows(cells.labels)
    assert np.percentile(angles(ours, theirs), 99.9) < 0.5
    missing = (np.hypot(*theirs) > 0.5) & (np.hypot(*ours) < 0.5)
    assert missing.sum() <= cells.labels.max()  # centres of symmetric cells: rounding there


def test_gaps_in_the_numbering(cells):
    gaps = np.where(cells.labels > 0, cells.labels.astype(np.int64) * 1000 + 7, 0)
    assert np.array_equal(labels_to_flows(gaps), labels_to_flows(cells.labels))


def test_parts_and_single_pixels():
    labels = np.zeros((40, 40), int)
    labels[2:12, 2:12] = 1
    labels[30:33, 30:33] = 1  # a second part, too far for heat
    labels[20, 20] = 2
    length = np.hypot(*labels_to_flows(labels))
    assert length[2:12, 2:12].mean() > 0.9
    assert not length[30:33, 30:33].any()
    assert length[20, 20] == 0


def test_long_thin_cells_keep_their_flow_to_the_ends():
    labels = np.zeros((5, 250), int)
    labels[2:4, 2:248] = 1
    flow = labels_to_flows(labels)
    assert (flow[1, 2:4, 2:118] > 0).all()
    assert (flow[1, 2:4, 132:248] < 0).all()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (1, 9), (9, 1)])
def test_small_images(shape):
    for value in (0, 1):
        flow = labels_to_flows(np.full(shape, value))
        assert flow.shape == (2, *shape)
        assert np.isfinite(flow).all()


def test_bad_labels():
    with pytest.raises(DataError, match="found -1"):
        labels_to_flows(np.array([[-1]]))
    with pytest.raises(DataError, match="float64"):
        labels_to_flows(np.zeros((2, 2)))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(6, 12), st.integers(6, 12)), min_size=4, max_size=4),
    st.sampled_from(["basin", "trace"]),
)
def test_convex_cells_come_back_from_their_flows(radii, method):
    labels = np.zeros((60, 60), int)
    y, x = np.mgrid[:60, :60]
    for index, (ry, rx) in enumerate(radii):
        cy, cx = 15 + 30 * (index // 2), 15 + 30 * (index % 2)
        labels[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1] = index + 1
    found = flows_to_labels(
        5 * labels_to_flows(labels), np.where(labels > 0, 3.0, -3.0), method=method
    )
    assert found.max() == 4
    for number in range(1, 5):
        inside = labels == number
        mine = found == np.bincount(found[inside]).argmax()
        assert (inside & mine).sum() > 0.97 * (inside | mine).sum()


def test_flow_errors_of_the_true_flow_are_nearly_zero(cells, flow_errors):
    errors = flow_errors(cells.labels, 5 * labels_to_flows(cells.labels))
    assert errors.dtype == np.float32
    assert errors.shape == (cells.labels.max(),)
    assert errors.max() < 1e-4


def test_flow_errors_equal_cellpose(cells, flow_errors):
    import torch

    flow_error = Oracle("metrics").flow_error

    half = cells.flow.astype(np.float16).astype(np.float32)
    theirs, _ = flow_error(cells.labels, half, device=torch.device("cpu"))
    assert np.allclose(flow_errors(cells.labels, cells.flow), theirs, atol=0.01)
    assert np.median(np.abs(flow_errors(cells.labels, cells.flow) - theirs)) < 1e-5

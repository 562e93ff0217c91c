"""Flows that lead nowhere: the short cut makes no cells where every single step leads to none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellflow.numeric import stops
from cellflow.numeric._regions import MIN_SEED
from cellflow.numeric.dynamics import flows_to_labels
from cellflow.numeric.sweep import sweep


def smooth(rng, shape, sigma):
    noise = ndimage.gaussian_filter(rng.normal(size=shape), [0, sigma, sigma][-len(shape) :])
    return (noise / noise.std()).astype(np.float32)


def valley(drift, *, turned=False):
    """Flow onto a line, and hardly any along it: away from the middle, to two sinks far apart."""
    y, x = np.mgrid[:90, :120].astype(np.float32)
    onto = 3 * np.tanh((45 - y) / 4)
    along = np.clip(drift * (x - 60), -0.7, 0.7) * (abs(x - 60) < 45)
    flow, cellprob = np.stack([onto, along]), np.where(abs(y - 45) < 9, 3, -3).astype(np.float32)
    if turned:
        return np.ascontiguousarray(flow[::-1].swapaxes(1, 2)), np.ascontiguousarray(cellprob.T)
    return flow, cellprob


def noise(rng):
    return smooth(rng, (2, 200, 200), rng.uniform(2, 12)) * rng.uniform(0.3, 4)


def valleys(rng):
    y, x = np.mgrid[:200, :200]
    onto = -rng.uniform(1, 5) * np.sin(2 * np.pi * y / rng.uniform(15, 70))
    along = rng.uniform(0.02, 1) * np.sin(2 * np.pi * x / rng.uniform(40, 400))
    return np.stack([onto, along]) + 0.2 * smooth(rng, (2, 200, 200), 4)


def curls(rng):
    dy, dx = np.gradient(smooth(rng, (200, 200), rng.uniform(5, 20)))
    flow = np.stack([dx + 0.2 * dy, -dy + 0.2 * dx])
    return flow / flow.std() * rng.uniform(0.3, 4)


def towards_a_border(rng):
    away = rng.normal(size=2)[:, None, None] * rng.uniform(0.5, 3)
    return away + rng.uniform(0, 1) * smooth(rng, (2, 200, 200), 6)


def of_nothing(labels, other):
    """Labels less than a tenth of which the other map labels as well."""
    parts = (other[labels == number] > 0 for number in range(1, labels.max() + 1))
    return sum(part.mean() < 0.1 for part in parts)


def test_a_crop_of_real_flows_in_which_there_is_no_cell(shared):
    path = shared / "cases" / "basin_strips.npz"
    if not path.is_file():
        pytest.skip(f"needs {path}, which is not there")
    with np.load(path) as file:
        flow, cellprob = file["flow"], file["cellprob"]
    assert flows_to_labels(flow, cellprob, method="trace").max() == 0
    assert flows_to_labels(flow, cellprob).max() == 0


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("drift", [0.04, 0.05, 0.06])
def test_a_valley_is_not_cut_into_strips(drift, turned):
    flow, cellprob = valley(drift, turned=turned)
    assert flows_to_labels(flow, cellprob, method="trace").max() == 0
    assert flows_to_labels(flow, cellprob).max() == 0
    nothing = np.zeros(cellprob.shape, np.int32)
    counts = sweep(
        flow, cellprob, nothing, cellprob_thresholds=[0], flow_thresholds=[0.4], min_sizes=[15]
    )
    assert not counts.fp.any()


@pytest.mark.parametrize("kind", [noise, valleys, curls, towards_a_border])
def test_no_cells_of_nothing(kind):
    """Twelve fields of each kind; by jumps alone 43 to 186 were of nothing and 16 to 57 lost."""
    made = found = lost = 0
    for seed in range(12):
        rng = np.random.default_rng([seed, 13])
        flow = kind(rng).astype(np.float32)
        cellprob = 4 * smooth(rng, (200, 200), rng.uniform(6, 20)) + 2
        trace = flows_to_labels(flow, cellprob, method="trace", check_scale=False)
        basin = flows_to_labels(flow, cellprob, check_scale=False)
        made += of_nothing(basin, trace)
        lost += of_nothing(trace, basin)
        found += trace.max()
    assert found > 10
    assert made <= 2
    assert lost <= 5


def test_with_every_end_in_doubt_the_short_cut_is_none(cells, monkeypatch):
    weak = 0.3 * cells.flow, cells.cellprob
    options = {"flow_threshold": 0, "min_size": 0, "check_scale": False}
    trace = flows_to_labels(*weak, method="trace", **options)
    assert not np.array_equal(flows_to_labels(*weak, **options), trace)
    monkeypatch.setattr(stops, "FEW", 10**9)
    assert np.array_equal(flows_to_labels(*weak, **options), trace)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), niter=st.integers(0, 120), few=st.sampled_from([0, 20, 150]))
def test_counts_are_those_of_the_places(seed, niter, few):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 90, 2))
    field = np.ascontiguousarray(np.moveaxis(smooth(rng, (2, *shape), 3), 0, -1)) * np.float32(0.7)
    inside = (smooth(rng, shape, 4) > -0.5).astype(np.uint8)
    field[inside == 0] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stops, "FEW", few)
        for take in (stops.take_all_steps, stops.take_jumps):
            final, counts, crowded = take(field, inside, niter, 16)
            assert np.array_equal(final >= 0, inside > 0)
            wanted = np.bincount(final[final >= 0], minlength=final.size)
            assert np.array_equal(counts.ravel(), wanted)
            assert sorted(crowded) == np.flatnonzero(wanted > MIN_SEED).tolist()

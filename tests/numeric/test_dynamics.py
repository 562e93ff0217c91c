from __future__ import annotations

import numpy as np
import pytest
from oracle import Oracle
from scipy import ndimage

from cellflow.errors import DataError
from cellflow.numeric._follow import round_to_half
from cellflow.numeric.dynamics import FLOW_SCALE, _first_above, flows_to_labels
from cellflow.numeric.labels import compact
from cellflow.numeric.score import average_precision, competition_score
from cellflow.numeric.targets import labels_to_flows


def slow_trace(flow, cellprob, threshold=0.0, niter=200, max_size_fraction=0.4):
    """Labels before the filters that follow the maximum size, step by step and in float64."""
    flow = flow.astype(np.float16).astype(np.float64)
    inside = cellprob.astype(np.float16) > threshold
    field = flow * inside / FLOW_SCALE
    y, x = (axis.astype(float) for axis in np.nonzero(inside))
    for _ in range(niter):
        dy, dx = (ndimage.map_coordinates(part, [y, x], order=1, mode="nearest") for part in field)
        y = np.clip(y + dy, 0, inside.shape[0] - 1)
        x = np.clip(x + dx, 0, inside.shape[1] - 1)
    ends = y.astype(int), x.astype(int)
    counts = np.zeros(inside.shape, int)
    np.add.at(counts, ends, 1)
    peaks = (counts == ndimage.maximum_filter(counts, 5, mode="constant")) & (counts > 10)
    seeds = np.argwhere(peaks)
    owner = np.zeros(inside.shape, int)
    for number, k in enumerate(np.argsort(counts[peaks], kind="stable"), start=1):
        grown = np.zeros(inside.shape, bool)
        grown[tuple(seeds[k])] = True
        for _ in range(5):
            grown = ndimage.binary_dilation(grown, np.ones((3, 3))) & (counts > 2)
        owner[grown] = number
    labels = np.zeros(inside.shape, int)
    labels[inside] = owner[ends]
    for number in range(1, len(seeds) + 1):
        if (labels == number).sum() > max_size_fraction * labels.size:
            labels[labels == number] = 0
    return labels


def by_first_pixel(labels):
    numbers, first = np.unique(labels, return_index=True)
    order = numbers[np.argsort(first)]
    table = np.zeros(labels.max() + 1, int)
    table[order[order > 0]] = np.arange(1, (order > 0).sum() + 1)
    return table[labels]


RAW = {"flow_threshold": 0, "min_size": 0}


def test_trace_equals_the_slow_twin(cells):
    ours = flows_to_labels(cells.flow, cells.cellprob, method="trace", **RAW)
    twin = by_first_pixel(slow_trace(cells.flow, cells.cellprob))
    closed = ours.copy()
    closed[twin == 0] = 0  # holes are filled in ours
    assert ours.max() == twin.max()
    assert (closed != twin).mean() < 1e-3


def test_trace_equals_cellpose(cells):
    resize_and_compute_masks = Oracle("dynamics").resize_and_compute_masks

    half = [a.astype(np.float16).astype(np.float32) for a in (cells.flow, cells.cellprob)]
    theirs = by_first_pixel(resize_and_compute_masks(*half, niter=200).astype(int))
    ours = flows_to_labels(cells.flow, cells.cellprob, method="trace")
    assert ours.max() == theirs.max()
    assert (ours != theirs).mean() < 2e-4


def test_basin_against_trace(cells):
    trace = flows_to_labels(cells.flow, cells.cellprob, method="trace")
    basin = flows_to_labels(cells.flow, cells.cellprob)
    assert average_precision(trace, basin, [0.9]).mean >= 0.97
    gap = competition_score(cells.labels, basin).mean - competition_score(cells.labels, trace).mean
    assert abs(gap) < 0.01


@pytest.mark.parametrize("niter", [0, 1, 5, 14, 15, 40])
def test_both_methods_honour_niter(cells, niter):
    twin = by_first_pixel(slow_trace(cells.flow, cells.cellprob, niter=niter))
    trace = flows_to_labels(cells.flow, cells.cellprob, method="trace", niter=niter, **RAW)
    assert trace.max() == twin.max()
    basin = flows_to_labels(cells.flow, cells.cellprob, niter=niter, **RAW)
    if niter <= 14:  # too short for a jump: exact
        assert np.array_equal(basin, trace)


def test_filters_in_their_order(cells, flow_errors):
    raw = flows_to_labels(cells.flow, cells.cellprob, **RAW)
    errors = flow_errors(raw, cells.flow)
    areas = np.bincount(raw.ravel())[1:]
    middle, small = float(np.median(errors)), int(np.median(areas))
    for options, keep in [
        ({"flow_threshold": middle, "min_size": 0}, errors <= np.float32(middle)),
        ({"flow_threshold": None, "min_size": small}, areas >= small),
        ({"flow_threshold": 0, "min_size": -5}, areas > 0),
        ({**RAW, "max_size_fraction": small / raw.size}, areas <= small),
    ]:
        found = flows_to_labels(cells.flow, cells.cellprob, **options)
        # raw has holes filled already, which can move an area by a few pixels
        assert abs(found.max() - keep.sum()) <= 2
        assert set(np.unique(found)) == set(range(found.max() + 1))


def test_labels_are_numbered_by_their_first_pixels(cells):
    found = flows_to_labels(cells.flow, cells.cellprob)
    assert found.dtype == np.int32
    assert np.array_equal(found, by_first_pixel(found))


def test_holes_are_filled_over_background_only():
    from cellflow.numeric._measure import close_holes

    labels = np.zeros((20, 20), np.int32)
    labels[2:18, 2:18] = 1
    labels[4:14, 4:14] = 0
    labels[6:12, 6:12] = 2
    labels[8, 8] = 0
    labels[16:, 10] = 0  # a notch, no hole
    boxes = np.array([[2, 18, 2, 18], [6, 12, 6, 12]], np.int32)
    wanted = labels.copy()
    wanted[4:14, 4:14] = 1
    wanted[6:12, 6:12] = 2
    nested = close_holes(labels, boxes)
    assert np.array_equal(labels, wanted)
    assert nested.tolist() == [False, False, True]


def test_holes_equal_the_slow_twin():
    from cellflow.numeric._measure import close_holes

    rng = np.random.default_rng(0)
    for _ in range(30):
        labels = by_first_pixel(np.kron(rng.integers(0, 4, (7, 7)), np.ones((2, 2), int)))
        labels = labels.astype(np.int32)
        wanted = labels.copy()
        for number in range(labels.max(), 0, -1):
            wanted[ndimage.binary_fill_holes(wanted == number) & (wanted == 0)] = number
        boxes = [
            [
                s
                for part in ndimage.find_objects((labels == n).astype(int))[0]
                for s in (part.start, part.stop)
            ]
            for n in range(1, labels.max() + 1)
        ]
        close_holes(labels, np.array(boxes, np.int32).reshape(-1, 4))
        assert np.array_equal(labels, wanted)


def test_float16_rounding_is_numpys():
    rng = np.random.default_rng(0)
    values = (rng.normal(size=4000) * 10.0 ** rng.integers(-9, 5, 4000)).astype(np.float32)
    values = np.concatenate([values, np.arange(2049, 2060, 0.5), [0, 6e-8, 65504, 65519]])
    values = np.concatenate([values, -values]).astype(np.float32)
    ours = np.array([round_to_half(v) for v in values], np.float32)
    assert np.array_equal(ours, values.astype(np.float16).astype(np.float32))
    for threshold in (0.0, -0.0, 0.4, -1.3, 0.5, 1e-9, -6.123, 100.03):
        cut = _first_above(threshold)
        near = np.float32(threshold) + np.linspace(-1, 1, 20001, dtype=np.float32) * np.float32(
            max(abs(threshold), 1e-3) * 2e-3
        )
        wanted = near.astype(np.float16).astype(np.float64) > threshold
        assert np.array_equal(near >= cut, wanted)


def test_stored_and_live_flows_give_the_same_labels(cells):
    stored = cells.flow.astype(np.float16), cells.cellprob.astype(np.float16)
    live = flows_to_labels(cells.flow, cells.cellprob, cellprob_threshold=0.3)
    assert np.array_equal(live, flows_to_labels(*stored, cellprob_threshold=0.3))


def test_input_is_not_changed_and_may_be_read_only(cells):
    flow, cellprob = cells.flow.copy(), np.asfortranarray(cells.cellprob)
    flow.flags.writeable = cellprob.flags.writeable = False
    found = flows_to_labels(flow, cellprob)
    assert np.array_equal(found, flows_to_labels(cells.flow, cells.cellprob))
    assert np.array_equal(flow, cells.flow)


def test_unit_flows_are_refused(cells):
    unit = labels_to_flows(cells.labels)
    logit = np.where(cells.labels > 0, 4.0, -4.0)
    with pytest.raises(DataError, match="unit flow: multiply it by FLOW_SCALE"):
        flows_to_labels(unit, logit)
    assert flows_to_labels(unit, logit, check_scale=False).shape == unit.shape[1:]
    assert flows_to_labels(5 * unit, logit).max() >= cells.labels.max() - 5  # bits at the border go
    assert flows_to_labels(unit, logit - 9).max() == 0  # no foreground, nothing to judge


@pytest.mark.parametrize("shape", [(0, 0), (0, 7), (7, 0), (1, 1), (1, 300), (300, 1), (2, 3)])
@pytest.mark.parametrize("method", ["basin", "trace"])
def test_small_images(shape, method):
    flow = np.full((2, *shape), 7.0, np.float32)
    options = {"flow_threshold": 0, "max_size_fraction": 1}
    found = flows_to_labels(flow, np.ones(shape, np.float32), method=method, **options)
    assert found.shape == shape
    assert found.max(initial=0) == (300 in shape)


@pytest.mark.parametrize(
    ("flow", "cellprob", "options", "message"),
    [
        (np.full((2, 4, 4), np.nan), np.ones((4, 4)), {}, "finite"),
        (np.full((2, 4, 4), np.inf), -np.ones((4, 4)), {}, "finite"),
        (np.full((2, 4, 4), 7e4), np.ones((4, 4)), {}, "finite"),
        (np.ones((2, 4, 4)), np.full((4, 4), np.nan), {}, "finite"),
        (np.ones((2, 4, 5)), np.ones((4, 4)), {}, r"expected shape \(2, 4, 4\)"),
        (np.ones((4, 4, 2)), np.ones((4, 4)), {}, "expected shape"),
        (np.ones((2, 4, 4)), np.ones((1, 4, 4)), {}, "cellprob: expected shape"),
        (np.ones((2, 4, 4), int), np.ones((4, 4)), {}, "int64"),
        (np.ones((2, 4, 4), complex), np.ones((4, 4)), {}, "complex128"),
        (np.ones((2, 4, 4)), np.ones((4, 4)), {"method": "fast"}, "method"),
        (np.ones((2, 4, 4)), np.ones((4, 4)), {"niter": -1}, "niter"),
        (np.ones((2, 4, 4)), np.ones((4, 4)), {"cellprob_threshold": np.nan}, "threshold"),
    ],
)
def test_bad_input(flow, cellprob, options, message):
    with pytest.raises(DataError, match=message):
        flows_to_labels(flow, cellprob, **options)


def test_flow_errors_of_labels_with_gaps(flow_errors):
    assert flow_errors(np.zeros((3, 3), int), np.zeros((2, 3, 3))).shape == (0,)
    gaps = np.kron([[0, 5], [9, 900]], np.ones((8, 8), int))
    flow = np.random.default_rng(0).normal(size=(2, 16, 16))
    assert np.array_equal(flow_errors(gaps, flow), flow_errors(compact(gaps)[0], flow))


def test_seventy_thousand_labels(flow_errors):
    labels = np.kron(np.arange(1, 70_001).reshape(250, 280), np.ones((4, 4), int))
    labels[::4] = labels[:, ::4] = 0
    unit = labels_to_flows(labels)
    assert flow_errors(labels, 5 * unit).shape == (70_000,)
    found = flows_to_labels(
        np.zeros_like(unit), np.ones(labels.shape), min_size=0, check_scale=False
    )
    assert found.max() == 0  # nothing moves, no pixel gathers others


@pytest.mark.slow
def test_real_flows_basin_against_trace(shared):
    imread = Oracle("io").imread
    CellposeModel = Oracle("models").CellposeModel

    model = CellposeModel(gpu=False, pretrained_model=str(shared / "models" / "usiigaci_unet"))
    image = imread(str(shared / "data" / "usiigaci" / "images" / "set01.png"))[:520, :704]
    _, flows, _ = model.eval(image, channels=[0, 0], compute_masks=False)
    flow, cellprob = np.asarray(flows[1]), np.asarray(flows[2])
    trace = flows_to_labels(flow, cellprob, method="trace")
    assert trace.max() > 5
    assert average_precision(trace, flows_to_labels(flow, cellprob), [0.95]).mean >= 0.9


def test_score_per_pixel_drops_what_is_improbable(cells):
    """Against a slow twin, which looks at every label before holes are filled."""
    plain = flows_to_labels(cells.flow, cells.cellprob, fill_holes=False, **RAW)
    probability = 1 / (1 + np.exp(-cells.cellprob.astype(np.float16).astype(np.float64)))
    means = [probability[plain == number].mean() for number in range(1, plain.max() + 1)]
    for limit in (0.0, float(np.median(means)), 0.999999):
        found = flows_to_labels(
            cells.flow, cells.cellprob, fill_holes=False, score_per_pixel=limit, **RAW
        )
        dropped = [number for number, mean in enumerate(means, 1) if mean < limit]
        expected = compact(np.where(np.isin(plain, dropped), 0, plain))[0]
        np.testing.assert_array_equal(found, expected)


def test_holes_stay_when_they_are_to(cells):
    cellprob = cells.cellprob.copy()
    labels = flows_to_labels(cells.flow, cellprob, **RAW)
    place = np.argwhere(ndimage.binary_erosion(labels == 1, iterations=3))[0]
    cellprob[tuple(place)] = -9.0
    filled = flows_to_labels(cells.flow, cellprob, **RAW)
    hollow = flows_to_labels(cells.flow, cellprob, fill_holes=False, **RAW)
    assert filled[tuple(place)] > 0
    assert hollow[tuple(place)] == 0
    changed = filled != hollow
    assert changed[tuple(place)]
    assert (hollow[changed] == 0).all()

from __future__ import annotations

import numpy as np
import pytest

from cellflow.errors import DataError
from cellflow.numeric.dynamics import flows_to_labels
from cellflow.numeric.metrics.counts import count_cells
from cellflow.numeric.metrics.segmentation import segmentation_metrics
from cellflow.numeric.metrics.selection import SELECT_METRICS, SelectCounts
from cellflow.numeric.rle import instances_from_rles, rle_encode
from cellflow.numeric.score import competition_score
from cellflow.numeric.sweep import MaskFilter, score_filters, sweep
from cellflow.numeric.targets import labels_to_flows

GRID = {  # in no order, one value twice
    "cellprob_thresholds": [0.0, -2.0, 1.5],
    "flow_thresholds": [0.05, None, 0.4, 0.1],
    "min_sizes": [200, 0, 15, 330, 15],
}


def compare(flow, cellprob, truth, **options):
    counts = sweep(flow, cellprob, truth, **GRID, **options)
    for c, cellprob_threshold in enumerate(GRID["cellprob_thresholds"]):
        for f, flow_threshold in enumerate(GRID["flow_thresholds"]):
            for m, min_size in enumerate(GRID["min_sizes"]):
                found = flows_to_labels(
                    flow,
                    cellprob,
                    cellprob_threshold=cellprob_threshold,
                    flow_threshold=flow_threshold,
                    min_size=min_size,
                    check_scale=False,
                    **options,
                )
                single = competition_score(truth, found)
                assert np.array_equal(counts.tp[c, f, m], single.tp[0])
                assert np.array_equal(counts.fp[c, f, m], single.fp[0])
                assert np.array_equal(counts.fn[c, f, m], single.fn[0])
                assert counts.scores[c, f, m] == single.mean == counts.at(c, f, m).mean
                alone = SelectCounts.of(count_cells(truth, found))
                assert counts.n_prediction[c, f, m] == alone.n_prediction
                assert counts.pairs[c, f, m].tolist() == alone.pairs.tolist()
                for name in SELECT_METRICS:
                    value = counts.value(name)[c, f, m]
                    assert value == pytest.approx(float(alone.value(name)), abs=1e-12), name
    return counts


@pytest.mark.parametrize("method", ["basin", "trace"])
def test_equals_single_calls(cells, method):
    counts = compare(cells.flow, cells.cellprob, cells.labels, method=method, niter=100)
    assert np.ptp(counts.scores) > 0.1


def test_truths_that_overlap(cells):
    masks = [cells.labels == n for n in range(1, 20)]
    masks += [masks[0] | masks[1], masks[3]]
    truth = instances_from_rles([rle_encode(mask) for mask in masks], cells.labels.shape)
    compare(cells.flow, cells.cellprob, truth)


def test_small_cells_in_the_holes_of_others():
    labels = np.zeros((90, 90), int)
    y, x = np.mgrid[:90, :90]
    distance = np.hypot(y - 45, x - 45)
    labels[distance < 40] = 1
    labels[distance < 9] = 2
    labels[distance < 2] = 0
    flow = 5 * labels_to_flows(labels)
    # the ring flows to one side, so it is one cell around the other
    ring = labels == 1
    flow[0][ring] = 5 * np.sign(np.where(np.abs(y - 45) < 1, 1, 45 - y))[ring] * 0.1
    flow[1][ring] = 4.5
    cellprob = np.where(labels > 0, 3.0, -3.0)
    compare(flow, cellprob, labels, max_size_fraction=1.0)


def test_large_images_take_one_threshold_after_the_other(cells, monkeypatch):
    monkeypatch.setattr("cellflow.numeric.sweep._SMALL", 0)
    compare(cells.flow, cells.cellprob, cells.labels)


def test_bad_values_are_found_whichever_thread_meets_them(cells):
    flow = cells.flow.copy()
    flow[0, 3, 3] = np.nan
    with pytest.raises(DataError, match="1 pixels with NaN"):
        sweep(flow, cells.cellprob, cells.labels, **GRID)


def test_nothing_to_find(cells):
    empty = np.zeros_like(cells.labels)
    counts = sweep(cells.flow, cells.cellprob - 99, empty, **GRID)
    assert (counts.scores == 1).all()
    assert not counts.tp.any()


def test_another_size_is_refused(cells):
    with pytest.raises(DataError, match="size of cellprob"):
        sweep(cells.flow, cells.cellprob, cells.labels[1:], **GRID)


def test_filters_equal_single_calls(cells):
    filters = [
        MaskFilter(size, score, fill)
        for size in (1.0, 0.4, 0.02)
        for score in (0.0, 0.9, 0.99)
        for fill in (True, False)
    ]
    setting = {"cellprob_threshold": -0.5, "flow_threshold": 0.6, "min_size": 20}
    found = score_filters(cells.flow, cells.cellprob, cells.labels, filters, **setting)
    for counts, item in zip(found, filters, strict=True):
        labels = flows_to_labels(
            cells.flow, cells.cellprob, check_scale=False, **setting, **item._asdict()
        )
        assert counts.value("competition") == competition_score(cells.labels, labels).mean
        pq = segmentation_metrics(cells.labels, labels, metrics=["pq"]).mean["pq"]
        assert counts.value("pq") == pq


@pytest.mark.parametrize("name", sorted(GRID))
def test_a_grid_without_values(name):
    field = np.zeros((2, 8, 9), np.float32)
    with pytest.raises(DataError, match=f"{name}: expected at least one value"):
        sweep(field, field[0], np.zeros((8, 9), np.int32), **GRID | {name: []})

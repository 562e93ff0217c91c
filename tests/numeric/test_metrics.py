from __future__ import annotations

import time
from fractions import Fraction

import metric_oracles as others
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellflow import Instances, competition_score, segmentation_metrics
from cellflow.errors import DataError
from cellflow.io.images import read_labels
from cellflow.numeric.matching import match
from cellflow.numeric.metrics.assignment import best_pairs
from cellflow.numeric.metrics.counts import count_cells, pool
from cellflow.numeric.metrics.selection import SELECT_METRICS, SelectCounts
from cellflow.numeric.metrics.table import METRICS
from cellflow.numeric.rle import instances_from_rles, rle_encode

SHAPE = (7, 8)
LABELS = hnp.arrays(np.int32, SHAPE, elements=st.sampled_from([0, 0, 1, 2, 3, 9]))
MASKS = st.lists(hnp.arrays(bool, SHAPE).filter(np.any), min_size=1, max_size=4)
COUNT_ERRORS = [name for name in METRICS if name.startswith("count_error")]


def as_instances(masks):
    return instances_from_rles([rle_encode(mask) for mask in masks], masks[0].shape)


@pytest.fixture(scope="session")
def pairs(shared, cells):
    """Truth and prediction: generated cells that touch, and real nuclei and cells."""
    files = sorted((shared / "data" / "dsb2018" / "masks").iterdir())[::45]
    files += sorted((shared / "data" / "usiigaci" / "masks").iterdir())[:1]
    maps = [cells.labels, *map(read_labels, files)]
    return [(labels, others.spoiled(labels, seed)) for seed, labels in enumerate(maps)]


def slow_metrics(truths, predictions):
    """Metrics of an image with cells on both sides, from all pairs of masks."""
    shared, union = others.tables(truths, predictions)
    n, m = shared.shape
    expected = {}
    for level in (50, 75):
        pairs, iou = others.stardist(shared, union, Fraction(level, 100), good_only=True)
        expected[f"precision_{level}"], expected[f"recall_{level}"] = pairs / m, pairs / n
        expected[f"f1_{level}"] = 2 * pairs / (n + m)
        if level == 50:
            expected["rq"], expected["sq"] = 2 * pairs / (n + m), iou / pairs if pairs else 0
    expected["pq"] = expected["sq"] * expected["rq"]
    expected["aji"] = others.aji(truths, predictions, shared, union)
    expected["aji_plus"] = others.aji_plus(truths, predictions, shared, union)
    most = 2 * shared > np.array([mask.sum() for mask in truths])[:, None]
    expected["seg"] = np.where(most, shared / union, 0).max(axis=1).mean()
    splits = np.maximum(most.sum(axis=0) - 1, 0).sum()
    missed, false = (~most.any(axis=1)).sum(), (~most.any(axis=0)).sum()
    expected["det"] = 1 - min(10 * missed + 5 * splits + false, 10 * n) / (10 * n)
    true, found = np.any(truths, axis=0), np.any(predictions, axis=0)
    expected["dice"] = 2 * (true & found).sum() / (true.sum() + found.sum())
    expected["count_error"] = m - n
    expected["count_error_absolute"] = abs(m - n)
    expected["count_error_relative"] = abs(m - n) / n
    expected["coco_ap"], expected["coco_ap50"], expected["coco_ap75"] = coco_of(
        others.coco([truths], [predictions])
    )
    return expected


def coco_of(precision):
    return precision.mean(), precision[0], precision[5]


def check(truth, prediction):
    """Every metric against the slow ones; where both sides have cells."""
    truths, predictions = others.masks_of(truth), others.masks_of(prediction)
    found = segmentation_metrics(truth, prediction).mean
    expected = slow_metrics(truths, predictions)
    assert set(found) == {*expected, "competition"}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert found["competition"] == competition_score(truth, prediction).mean


@settings(max_examples=60, deadline=None)
@given(truth=LABELS.filter(np.any), prediction=LABELS.filter(np.any))
def test_label_maps_with_gaps_in_their_numbers(truth, prediction):
    check(truth, prediction)
    pairs, iou = others.stardist(
        *others.tables(others.masks_of(truth), others.masks_of(prediction)), Fraction(1, 2)
    )
    hits = count_cells(truth, prediction).at_50
    assert (hits.pairs, hits.iou) == (pairs, pytest.approx(iou))


@settings(max_examples=60, deadline=None)
@given(truth=MASKS, prediction=LABELS.filter(np.any))
def test_true_cells_that_overlap(truth, prediction):
    check(as_instances(truth), prediction)


@settings(max_examples=40, deadline=None)
@given(truth=MASKS, prediction=MASKS)
@example(truth=[np.ones(SHAPE, bool)], prediction=[np.ones(SHAPE, bool)] * 2)
def test_cells_that_overlap_on_both_sides(truth, prediction):
    check(as_instances(truth), as_instances(prediction))


def test_single_pixels():
    truth = np.zeros(SHAPE, np.int32)
    truth[3, 4] = 7
    check(truth, truth)
    check(truth, np.roll(truth, 1))
    assert segmentation_metrics(truth, truth, metrics=["pq"]).mean == {"pq": 1.0}


def test_real_cells_against_the_slow_twins(pairs):
    for truth, prediction in pairs:
        if len(np.unique(truth)) < 60:  # all pairs of masks: minutes for more
            check(truth, prediction)


def test_nothing_to_find_or_nothing_found():
    cell, empty = np.ones(SHAPE, np.int32), np.zeros(SHAPE, np.int32)
    nothing = Instances(SHAPE, *(np.zeros(n, np.int64) for n in (0, 0, 1)))
    found = segmentation_metrics([empty, empty, cell, nothing], [empty, cell, empty, nothing])
    for name, values in found.per_image.items():
        if name not in COUNT_ERRORS:
            assert values.tolist() == [1, 0, 0, 1], name
    errors = [found.per_image[name].tolist() for name in COUNT_ERRORS]
    assert errors == [[0, 1, -1, 0], [0, 1, 1, 0], [0, 1, 1, 0]]
    # of all cells together: one true one, one predicted one elsewhere
    assert found.pooled["pq"] == found.pooled["dice"] == found.pooled["aji"] == 0
    assert found.pooled["count_error"] == 0 and found.pooled["count_error_absolute"] == 2


def test_pooled_is_the_value_of_all_cells_in_one_large_image(pairs):
    """But for COCO's limit of predictions per image, and the sizes of images, a mosaic is the same."""
    parts = [(a[:180, :180], b[:180, :180]) for a, b in pairs if min(a.shape) >= 180]
    sides = [[], []]
    for number, part in enumerate(parts):
        for side, labels in zip(sides, part, strict=True):
            side.append(np.where(labels > 0, labels + 20000 * number, 0))
    mosaic = [np.concatenate(side) for side in sides]
    whole = segmentation_metrics(*mosaic, max_dets=10**6).mean
    pooled = segmentation_metrics(*sides, max_dets=10**6).pooled
    for name in set(METRICS) - {"count_error_absolute", "count_error_relative"}:
        assert pooled[name] == pytest.approx(whole[name], abs=1e-12), name


@pytest.fixture
def panoptica():
    try:
        import panoptica  # noqa: F401
    except (
        ImportError,
        NameError,
    ) as error:  # without plotly its own import fails with a NameError
        pytest.skip(f"panoptica cannot be imported: {error}")
    return others.panoptica


def test_pairs_of_panoptica(pairs, panoptica):
    for truth, prediction in pairs:
        expected = panoptica(truth, prediction)
        found = segmentation_metrics(truth, prediction).mean
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_what_panoptica_says_of_nothing(panoptica):
    """It has no number where there are no cells at all; we have 1, as the competition score."""
    empty, cell = np.zeros((20, 20), int), np.pad(np.ones((6, 6), int), 7)
    for truth, prediction in ((empty, cell), (cell, empty)):
        assert set(panoptica(truth, prediction).values()) == {0.0}
        assert segmentation_metrics(truth, prediction).mean["pq"] == 0.0
    assert np.isnan(panoptica(empty, empty)["pq"])
    assert segmentation_metrics(empty, empty).mean["pq"] == 1.0


def test_what_others_say_of_empty_truth(tmp_path):
    """COCO says -1 and py-ctcmetrics fails where there are no true cells; we say 0, or 1 where nothing was found."""
    pytest.importorskip("pycocotools")
    pytest.importorskip("ctc_metrics")
    empty, cell = np.zeros((20, 20), int), np.pad(np.ones((6, 6), int), 7)
    assert (others.coco([[]], [others.masks_of(cell)]) == -1).all()
    with pytest.raises(ValueError, match="zero-size array"):
        others.cell_tracking([(empty, cell)], tmp_path)
    found = segmentation_metrics(empty, cell).mean
    assert found["coco_ap"] == found["seg"] == found["det"] == 0.0
    assert others.cell_tracking([(cell, empty)], tmp_path) == {"seg": 0.0, "det": 0.0}


def test_frames_of_py_ctcmetrics(pairs, tmp_path):
    pytest.importorskip("ctc_metrics")
    for pair in pairs:
        expected = others.cell_tracking([pair], tmp_path)
        found = segmentation_metrics(*pair).mean
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    # of several frames it pools, as we do
    expected = others.cell_tracking(pairs, tmp_path)
    found = segmentation_metrics(*zip(*pairs, strict=True)).pooled
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("max_dets", [100, 10, 1000])
def test_precision_of_pycocotools(pairs, max_dets):
    pytest.importorskip("pycocotools")
    rng = np.random.default_rng(3)
    truths, predictions = zip(*pairs, strict=True)
    scores = [rng.integers(1, 30, len(np.unique(p)) - 1) / 30 for p in predictions]  # with ties
    found = segmentation_metrics(truths, predictions, scores=scores, max_dets=max_dets)
    masks = [[others.masks_of(cells) for cells in side] for side in (truths, predictions)]
    for index, sure in enumerate(scores):
        expected = others.coco([masks[0][index]], [masks[1][index]], [sure], max_dets)
        values = [found.per_image[name][index] for name in ("coco_ap", "coco_ap50", "coco_ap75")]
        assert values == pytest.approx(coco_of(expected), abs=1e-12)
    expected = others.coco(*masks, scores, max_dets)
    values = [found.pooled[name] for name in ("coco_ap", "coco_ap50", "coco_ap75")]
    assert values == pytest.approx(coco_of(expected), abs=1e-12)


def test_cells_exactly_at_a_threshold():
    """An IoU of one half is a pair to COCO, which takes >=, and none to the others, which take >."""
    truth, prediction = np.zeros((1, 40), int), np.zeros((1, 40), int)
    truth[0, :20], prediction[0, :10] = 1, 1
    found = segmentation_metrics(truth, prediction).mean
    assert (found["f1_50"], found["pq"], found["competition"], found["seg"]) == (0, 0, 0, 0)
    assert found["coco_ap50"] == pytest.approx(1.0) and found["coco_ap75"] == 0


def test_confidence_decides_only_cocos_precision():
    truth, prediction = np.zeros((4, 40), int), np.zeros((4, 40), int)
    truth[:, :10] = 1
    prediction[:, :10], prediction[:, 20:30] = 1, 2
    right = segmentation_metrics(truth, prediction, scores=[0.9, 0.1]).mean
    wrong = segmentation_metrics(truth, prediction, scores=[0.1, 0.9]).mean
    assert right.pop("coco_ap50") == pytest.approx(1) and wrong.pop("coco_ap50") == pytest.approx(
        0.5
    )
    for name in ("coco_ap", "coco_ap75"):
        assert right.pop(name) > wrong.pop(name)
    assert right == wrong
    with pytest.raises(DataError, match=r"one finite number for each of 2 predicted cells"):
        segmentation_metrics(truth, prediction, scores=[0.5])


@settings(max_examples=100, deadline=None)
@given(table=hnp.arrays(np.int64, (4, 5), elements=st.integers(0, 9)))
def test_assignment_is_the_best_of_all(table):
    from scipy.optimize import linear_sum_assignment

    rows, columns = np.nonzero(table)
    gain = table[rows, columns] / 10
    taken = best_pairs(rows, columns, gain)
    assert len(set(rows[taken])) == len(set(columns[taken])) == len(taken)
    best = table[linear_sum_assignment(-table)].sum() / 10
    assert gain[taken].sum() == pytest.approx(best)


@settings(max_examples=60, deadline=None)
@given(cells=MASKS, region=hnp.arrays(bool, SHAPE))
def test_what_does_not_count_is_left_out(cells, region):
    """Instances and a label map of the same cells, and masks one by one."""
    apart = [mask & ~np.any(cells[:n], axis=0) for n, mask in enumerate(cells)]
    apart = [mask for mask in apart if mask.any()] or [cells[0]]
    labels = np.zeros(SHAPE, np.int32)
    for number, mask in enumerate(apart, start=1):
        labels[mask] = 3 * number
    wanted = [m & ~region for m in apart if 2 * (m & region).sum() <= m.sum()]
    inner = np.zeros(SHAPE, bool)
    inner[2:-2, 2:-2] = True
    for options, masks in (
        ({"ignore": region}, wanted),
        ({"border": "drop"}, [m for m in apart if not (m & ~inner).any()]),
    ):
        expected = segmentation_metrics(
            [as_instances(masks) if masks else np.zeros(SHAPE, int)], [labels]
        )
        for side in (labels, as_instances(apart)):
            counted = count_cells(
                side, side, ignore=options.get("ignore"), border="border" in options
            )
            assert counted.n_truth == counted.n_prediction == len(masks)
            assert counted.foreground.union == sum(m.sum() for m in masks)
        assert expected.mean["count_error"] == len(apart) - len(masks)


def neurips_evaluator(truth, prediction):
    """F1 at 0.5 as compute_metric.py of NeurIPS 2022 says: cells of the outer 2 pixels go, pairs at 0.5 count."""
    kept = []
    for labels in (truth, prediction):
        frame = np.ones(labels.shape, bool)
        frame[2:-2, 2:-2] = False
        kept.append(others.masks_of(np.where(np.isin(labels, labels[frame]), 0, labels)))
    shared, union = others.tables(*kept)
    pairs = others.stardist(shared, union, Fraction(1, 2))[0]
    return 2 * pairs / sum(map(len, kept))


def test_border_cells_go_as_in_neurips_2022(pairs):
    changed = 0
    for truth, prediction in pairs[:4]:
        found = segmentation_metrics(truth, prediction, border="drop", metrics=["f1_50"]).mean
        assert found["f1_50"] == pytest.approx(neurips_evaluator(truth, prediction))
        kept = segmentation_metrics(truth, prediction, metrics=["f1_50"]).mean
        changed += kept != found
    assert changed > 1


def test_scores_follow_the_cells_that_are_left():
    truth, prediction = np.zeros((20, 60), int), np.zeros((20, 60), int)
    truth[5:15, 10:20] = truth[5:15, 40:50] = 0
    truth[5:15, 10:20], prediction[5:15, 10:20] = 1, 5
    prediction[0:9, 30:38], prediction[5:15, 40:50] = 3, 8  # the first is at the border
    ranks = [1.0, 0.9, 0.1]  # of 3, 5 and 8
    found = segmentation_metrics(truth, prediction, scores=ranks, border="drop").mean
    assert found["coco_ap"] == pytest.approx(1) and found["count_error"] == 1


def test_regions_of_another_size_are_refused():
    with pytest.raises(
        DataError, match=r"expected the size of the image, \(7, 8\), found \(8, 7\)"
    ):
        segmentation_metrics(np.ones(SHAPE, int), np.ones(SHAPE, int), ignore=np.ones((8, 7)))
    with pytest.raises(DataError, match=r"expected names of competition, .* found ap"):
        segmentation_metrics(np.ones(SHAPE, int), np.ones(SHAPE, int), metrics=["ap"])
    with pytest.raises(DataError, match="expected at least one image, found none"):
        segmentation_metrics([], [])
    with pytest.raises(DataError, match="expected as many predictions as truths, found 1 and 2"):
        segmentation_metrics([np.ones(SHAPE, int)] * 2, [np.ones(SHAPE, int)])


@settings(max_examples=60, deadline=None)
@given(truth=LABELS, prediction=LABELS)
def test_what_selects_is_what_is_reported(truth, prediction):
    counts = SelectCounts.of(count_cells(truth, prediction))
    found = segmentation_metrics(truth, prediction).mean
    precision = competition_score(truth, prediction).precision[0]
    expected = found | {"ap50": precision[0], "ap75": precision[5]}
    for name in SELECT_METRICS:
        assert counts.value(name) == pytest.approx(expected[name], abs=1e-12), name


def test_two_thousand_cells_take_milliseconds():
    """All metrics together of an image with 2,000 cells stay far within 50 ms each beyond the match."""
    labels = np.kron(np.arange(1, 2026).reshape(45, 45), np.ones((22, 22), int))
    labels[::22] = labels[:, ::22] = 0
    prediction = others.spoiled(labels, 0)
    count_cells(labels, prediction)  # compiled
    seconds = []
    for _ in range(3):
        started = time.process_time()
        match(labels, prediction)
        matched = time.process_time()
        counts = count_cells(labels, prediction)
        for metric in METRICS.values():
            metric.value(counts)
        seconds.append(time.process_time() - matched - (matched - started))
    assert min(seconds) < 0.1, seconds
    assert pool([counts, counts]).n_truth == 2 * counts.n_truth

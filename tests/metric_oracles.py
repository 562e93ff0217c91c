"""Metrics as others compute them: libraries, and slow twins written from the definitions."""

from __future__ import annotations

import contextlib
import io
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from cellflow.numeric.labels import instances_from_labels
from cellflow.types import Instances


def masks_of(cells) -> list[np.ndarray]:
    """Cells as masks, one by one."""
    instances = cells if isinstance(cells, Instances) else instances_from_labels(cells)
    masks = []
    for starts, lengths in instances:
        flat = np.zeros(instances.shape[0] * instances.shape[1], dtype=bool)
        for start, length in zip(starts, lengths, strict=True):
            flat[start : start + length] = True
        masks.append(flat.reshape(instances.shape))
    return masks


def spoiled(labels, seed):
    """A prediction as it might be: moved, cells lost, merged and cut, crumbs added."""
    rng = np.random.default_rng(seed)
    found = np.roll(labels, rng.integers(-2, 3, 2), (0, 1)).copy()
    numbers = np.unique(found)[1:]
    rng.shuffle(numbers)
    lost, merged, cut = np.array_split(numbers, [len(numbers) // 8, len(numbers) // 4])
    found[np.isin(found, lost)] = 0
    for number in merged:
        found[found == number] = numbers[0]
    for number in cut[: len(cut) // 4]:
        rows = np.nonzero(found == number)[0]
        half = found[: int(np.median(rows)) + 1]
        half[half == number] = number + 5000
    found[rng.random(found.shape) < 0.0005] = 9999
    return found


def tables(truths, predictions) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in both and in either of all pairs of masks, ``(n, m)``."""
    shape = len(truths), len(predictions)
    shared, union = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for i, truth in enumerate(truths):
        for j, prediction in enumerate(predictions):
            shared[i, j] = (truth & prediction).sum()
            union[i, j] = (truth | prediction).sum()
    return shared, union


def stardist(shared, union, threshold: Fraction, *, good_only: bool = False) -> tuple[int, float]:
    """Matched cells and their summed IoU as StarDist's matching has them, but for IoU above the threshold.

    Weigert et al., "Star-convex polyhedra for 3D object detection", 2020, and its ``matching.py``: an assignment
    with costs of -1 for a pair that is good enough, and half an IoU over the number of pairs for ties. There
    the IoU of pairs that are not good enough weighs in too, so where true cells overlap, and a prediction could
    be a pair with several, it need not take the closest of them. With `good_only` it does.
    """
    if not shared.size:
        return 0, 0.0
    iou = shared / union
    good = shared * threshold.denominator > threshold.numerator * union
    weight = iou * good if good_only else iou
    costs = -good.astype(float) - weight / (2 * min(iou.shape))
    pairs = linear_sum_assignment(costs)
    taken = good[pairs]
    return int(taken.sum()), float(iou[pairs][taken].sum())


def aji(truths, predictions, shared, union) -> float:
    """Kumar et al., "A dataset and a technique for generalized nuclear segmentation", 2017, algorithm 1."""
    both = either = 0
    used = set()
    for i, truth in enumerate(truths):
        best, closest = Fraction(0), None
        for j in range(len(predictions)):
            iou = Fraction(int(shared[i, j]), int(union[i, j]))
            if iou > best:
                best, closest = iou, j
        if closest is None:
            either += truth.sum()
            continue
        both += shared[i, closest]
        either += union[i, closest]
        used.add(closest)
    either += sum(mask.sum() for j, mask in enumerate(predictions) if j not in used)
    return both / either


def aji_plus(truths, predictions, shared, union) -> float:
    """Graham et al., "HoVer-Net", 2019: AJI with the one-to-one pairs of the largest summed IoU."""
    pairs = [
        (i, j)
        for i, j in zip(*linear_sum_assignment(-shared / union), strict=True)
        if shared[i, j] > 0
    ]
    lone = [m.sum() for i, m in enumerate(truths) if i not in {i for i, _ in pairs}]
    lone += [m.sum() for j, m in enumerate(predictions) if j not in {j for _, j in pairs}]
    both = sum(shared[pair] for pair in pairs)
    return both / (sum(union[pair] for pair in pairs) + sum(lone))


def coco(truths, predictions, scores=None, max_dets=100) -> np.ndarray:
    """AP of lists of images, each a list of masks, per IoU threshold, ``(10,)``, from pycocotools."""
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rle(mask):
        return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))

    annotations, results = [], []
    for image, (true, found) in enumerate(zip(truths, predictions, strict=True), start=1):
        for mask in true:
            number = len(annotations) + 1
            area = float(mask.sum())
            facts = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "area": area}
            annotations.append({**facts, "segmentation": rle(mask)})
        for place, mask in enumerate(found):
            score = 1.0 if scores is None else float(scores[image - 1][place])
            facts = {"image_id": image, "category_id": 1, "score": score}
            results.append({**facts, "segmentation": rle(mask)})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": n + 1, "height": 1, "width": 1} for n in range(len(truths))],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "cell"}],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.params.maxDets = [max_dets]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, 0, 0, 0].mean(axis=1)


def panoptica(truth, prediction) -> dict[str, float]:
    """PQ, SQ, RQ and Dice of two label maps, from panoptica, with pairs above and not at IoU 0.5."""
    from panoptica import InputType, NaiveThresholdMatching, Panoptica_Evaluator
    from panoptica.metrics import Metric
    from panoptica.utils.citation_reminder import disable_citation_reminder

    disable_citation_reminder()
    evaluator = Panoptica_Evaluator(
        expected_input=InputType.UNMATCHED_INSTANCE,
        instance_matcher=NaiveThresholdMatching(strict_threshold=True),
        instance_metrics=[Metric.IOU],
        global_metrics=[Metric.DSC],
        decision_metric=None,
        decision_threshold=None,
    )
    found = evaluator.evaluate(
        prediction.astype(np.uint32), truth.astype(np.uint32), verbose=False
    )["ungrouped"]
    return {"pq": found.pq, "sq": found.sq, "rq": found.rq, "dice": found.global_bin_dsc}


def cell_tracking(pairs, folder: Path) -> dict[str, float]:
    """SEG and DET of frames, from py-ctcmetrics; frames go through files."""
    import tifffile
    from ctc_metrics.metrics.technical.det import det
    from ctc_metrics.metrics.technical.seg import seg
    from ctc_metrics.utils.representations import (
        count_acyclic_graph_correction_operations,
    )
    from ctc_metrics.utils.representations import match as ctc_match

    frames = []
    for number, (truth, prediction) in enumerate(pairs):
        paths = [folder / f"{side}{number}.tif" for side in ("truth", "found")]
        for path, labels in zip(paths, (truth, prediction), strict=True):
            tifffile.imwrite(path, labels.astype(np.int32))
        frames.append(ctc_match(*map(str, paths)))
    labels_ref, labels_comp, mapped_ref, mapped_comp, ious = map(list, zip(*frames, strict=True))
    counts = count_acyclic_graph_correction_operations(
        None, None, labels_ref, labels_comp, mapped_ref, mapped_comp
    )
    return {"seg": seg(labels_ref, ious), "det": det(**counts)}

"""What is known of the annotations and the prediction of an image, for `suspect`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from cellflow.numeric import _diffusion
from cellflow.numeric._measure import AREA, BOX, measure
from cellflow.numeric._runs import owner_of_runs, pixels_of_runs
from cellflow.numeric.cell_faults import CellFacts, cell_facts, fill_holes, largest_parts
from cellflow.numeric.dynamics import FLOW_SCALE
from cellflow.numeric.labels import instances_from_labels
from cellflow.numeric.matching import Matches, match
from cellflow.types import Instances

__all__ = ["AuditFacts", "audit_facts", "cell_pixels"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class AuditFacts:
    """What is known of the annotations (A) and the predicted cells (P) of an image.

    Attributes
    ----------
    pairs : Matches
        Pixels that they share; annotations are the truth.
    sure : (P,) float64 ndarray
        How sure the model is of a predicted cell, 0 to 1: the mean probability of its pixels,
        ``sigmoid(cellprob)``, times 1 minus its flow error (at most 1); 1 where there are no flows.
    seen : (A,) float64 ndarray
        Mean probability of an annotation's pixels; nan where there are no flows.
    errors, predicted_errors : float64 ndarray
        Flow error of every annotation, ``(A,)``, and predicted cell, ``(P,)``: mean squared difference of the
        model's unit flow from that of the shape, 0 to 4; nan where there are no flows.
    covered : (A,) float64 ndarray
        Part of an annotation that lies on predicted cells.
    annotated : (P,) float64 ndarray
        Part of a predicted cell that lies on annotations.
    centres, predicted_centres : (n, 2) float64 ndarray
        Y and X in pixels.
    faults : CellFacts
        Of the annotations.
    seen_in_holes : mapping of int to float
        Of hollow annotations: mean probability of what they enclose, without flows the part of it that is
        predicted.
    rest_apart : mapping of int to float
        Of annotations in parts: share of what is not the largest part that is not on its predicted cell.
    """

    pairs: Matches
    sure: Floats
    seen: Floats
    errors: Floats
    predicted_errors: Floats
    covered: Floats
    annotated: Floats
    centres: Floats
    predicted_centres: Floats
    faults: CellFacts
    seen_in_holes: Mapping[int, float]
    rest_apart: Mapping[int, float]


def audit_facts(
    annotations: Instances, predicted: NDArray[np.int32], flow: Any = None, cellprob: Any = None
) -> AuditFacts:
    """Look at the annotations and the prediction of an image.

    Parameters
    ----------
    annotations : Instances
        May overlap.
    predicted : (H, W) int32 ndarray
        Labels 1..n without gaps, by a model that did not see the annotations.
    flow : (2, H, W) float ndarray, optional
        5 times the unit flow that `predicted` was made of; without it only the masks speak.
    cellprob : (H, W) float ndarray, optional
        Logit; comes with `flow`.
    """
    cells = instances_from_labels(predicted)
    pairs = match(annotations, predicted)
    owner, place = cell_pixels(annotations)
    others, other_place = cell_pixels(cells)
    probability = None if cellprob is None else expit(np.asarray(cellprob, np.float64)).reshape(-1)
    sure, seen = np.ones(len(cells)), np.full(len(annotations), np.nan)
    errors, predicted_errors = np.full(len(annotations), np.nan), np.full(len(cells), np.nan)
    if probability is not None:
        seen = _means(owner, probability[place], annotations.areas)
        errors = _flow_errors(_numbered(annotations, owner, place), len(annotations), flow)
        predicted_errors = _flow_errors(predicted, len(cells), flow)
        sure = _means(others, probability[other_place], cells.areas)
        sure *= 1 - np.minimum(1, predicted_errors)
    likely = (predicted.reshape(-1) > 0).astype(np.float64) if probability is None else probability
    covers = np.bincount(place, minlength=predicted.size)[other_place] > 0
    faults = cell_facts(annotations)
    return AuditFacts(
        pairs, sure, seen, errors, predicted_errors,
        _means(owner, predicted.reshape(-1)[place] > 0, annotations.areas),
        _means(others, covers, cells.areas),
        _centres(owner, place, annotations), _centres(others, other_place, cells), faults,
        _seen_in_holes(annotations, faults, likely), _rest_apart(annotations, faults, predicted),
    )  # fmt: skip


def cell_pixels(cells: Instances) -> tuple[Ints, Ints]:
    """All pixels of all cells: which cell, and the place in the flattened image."""
    return np.repeat(owner_of_runs(cells), cells.lengths), pixels_of_runs(
        cells.starts, cells.lengths
    )


def _means(owner: Ints, values: Any, areas: Ints) -> Floats:
    sums = np.bincount(owner, np.asarray(values, np.float64), len(areas))
    return np.asarray(sums / np.maximum(areas, 1), dtype=np.float64)


def _centres(owner: Ints, place: Ints, cells: Instances) -> Floats:
    y, x = np.divmod(place, cells.shape[1])
    return np.stack([_means(owner, axis, cells.areas) for axis in (y, x)], axis=1)


def _numbered(cells: Instances, owner: Ints, place: Ints) -> NDArray[np.int32]:
    """Label map that keeps the numbers, from 1; a disputed pixel goes to the smaller cell."""
    flat = np.zeros(cells.shape[0] * cells.shape[1], dtype=np.int32)
    order = np.argsort(-cells.areas[owner], kind="stable")  # of repeated places the last counts
    flat[place[order]] = owner[order] + 1
    return flat.reshape(cells.shape)


def _flow_errors(labels: NDArray[np.int32], top: int, flow: Any) -> Floats:
    """Flow error of labels 1..top; nan for one without pixels."""
    errors = np.full(top, np.nan, dtype=np.float32)
    stats = measure(np.ascontiguousarray(labels), top)
    numbers = np.flatnonzero(stats[1:, AREA]).astype(np.int32) + np.int32(1)
    if len(numbers):
        boxes = np.ascontiguousarray(stats[numbers, BOX])
        unit = np.ascontiguousarray(np.moveaxis(np.asarray(flow, np.float32) / FLOW_SCALE, 0, -1))
        found = np.empty(len(numbers), dtype=np.float32)
        _diffusion.check_cells(labels, numbers, boxes, 0, len(numbers), unit, found)
        errors[numbers - 1] = found
    return errors.astype(np.float64)


def _seen_in_holes(annotations: Instances, faults: CellFacts, likely: Floats) -> dict[int, float]:
    hollow = np.flatnonzero(faults.holes)
    if not len(hollow):
        return {}
    before, after = (_places(cells, hollow) for cells in (annotations, fill_holes(annotations)))
    return {cell: float(likely[np.setdiff1d(after[cell], before[cell])].mean()) for cell in before}


def _rest_apart(
    annotations: Instances, faults: CellFacts, predicted: NDArray[np.int32]
) -> dict[int, float]:
    several = np.flatnonzero(faults.parts > 1)
    if not len(several):
        return {}
    flat, found = predicted.reshape(-1), dict[int, float]()
    every, largest = (
        _places(cells, several) for cells in (annotations, largest_parts(annotations))
    )
    for cell, places in every.items():
        numbers = np.bincount(flat[largest[cell]])
        main = int(numbers[1:].argmax()) + 1 if numbers[1:].any() else -1
        rest = np.setdiff1d(places, largest[cell])
        found[cell] = float((flat[rest] != main).mean())
    return found


def _places(cells: Instances, which: Ints) -> dict[int, Ints]:
    """Places of the pixels of some cells."""
    return {cell: pixels_of_runs(*cells.runs(cell)) for cell in which.tolist()}

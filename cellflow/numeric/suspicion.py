"""Annotations that are probably wrong, by what a model that never saw them predicts.

`audit_facts` reads the pixels of each image once; `suspect` compares its cells, and knows how well outlines
usually agree (`usual_iou`), which takes all images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric.audit_facts import AuditFacts
from cellflow.numeric.matching import Matches

__all__ = ["KINDS", "Suspicion", "suspect", "usual_iou"]

KINDS = ("missing", "unseen", "merged", "split", "outline", "hollow", "in parts")
"""Of suspicions. missing: a predicted cell without annotation. unseen: an annotation without predicted cell.
merged: one annotation over several predicted cells. split: several annotations over one. outline: an
annotation whose predicted cell lies elsewhere or has another size. hollow, in parts: as `cell_facts` has them."""

MOST = 0.5
"""A cell belongs to one of the other side that has this part of its pixels."""
LEAST = 0.1
"""Less of a cell, or a smaller IoU, is no piece of it and no partner."""
WHOLE_SHARE = 0.25
"""From this part of a cell on, a second piece, a hole or a second part counts in full."""
WRONG_SHARE = 0.05
"""Of annotations, taken for wrong before anything is known: what a model misses more often says little."""
FAR_IOU = 0.35
"""An outline is as wrong as can be where its IoU is this much below the usual one."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Suspicion:
    """Why an annotation is probably wrong.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    cells : tuple of int
        Annotations, from 0 in their order; none where one is missing.
    predicted : tuple of int
        Predicted cells that speak against them, from 0 in the order of their numbers, the largest first.
    suspicion : float
        0 to 1.
    facts : mapping of str to float
        What it was made of.
    """

    kind: str
    cells: tuple[int, ...]
    predicted: tuple[int, ...]
    suspicion: float
    facts: Mapping[str, float] = field(default_factory=dict)


def usual_iou(images: Iterable[AuditFacts]) -> float:
    """Median IoU of annotations and predicted cells that are each other's partners, over all images; 1 for none."""
    ious = [facts_iou[mutual] for facts_iou, mutual in map(_mutual, (f.pairs for f in images))]
    joined = np.concatenate([np.zeros(0), *ious])
    joined = joined[joined >= MOST]
    return float(np.median(joined)) if len(joined) else 1.0


def suspect(facts: AuditFacts, usual: float) -> list[Suspicion]:
    """Suspicions of an image, the strongest first.

    An annotation, and a predicted cell without annotation, is suspected once: of what is the strongest.

    Parameters
    ----------
    facts : AuditFacts
        The image.
    usual : float
        What `usual_iou` gives for all images.

    Notes
    -----
    Every suspicion is a product of how sure the model is and how clearly the annotation differs, each from 0 to
    1, so that kinds can be compared. With ``sure`` and ``seen`` as in `AuditFacts`, and ``part = min(1, 4 x)``
    for the share x of the second largest piece, of the smaller parts or of a hole:

    ========  =================================================================================
    missing   sure, times the part of the predicted cell that no annotation has
    unseen    1 - seen, times the part of the annotation that no predicted cell has, times 0.05 / (0.05 +
              share of the image's other annotations without partner): a model that misses many says little
    merged    sure of the two largest pieces (the smaller), times part, times what the pieces cover
    split     sure of the predicted cell, times part, times what the annotations cover of it, times gain
    outline   sure of the predicted cell, times (usual IoU - IoU) / 0.35, at most 1, times gain
    hollow    part, times the mean probability in the hole (without flows: what of it is predicted)
    in parts  part, times 1 - half of what of the smaller parts the same predicted cell has
    ========  =================================================================================

    ``gain`` is how much better the predicted cell explains the model's flows than the annotations do: the largest
    flow error of the annotations minus that of the predicted cell, 0 to 1; 1 without flows.
    """
    merged, split = list(_merged(facts)), list(_split(facts))
    in_groups = {cell for item in (*merged, *split) for cell in item.cells}
    of_groups = {cell for item in (*merged, *split) for cell in item.predicted}
    partners = dict(_partners(facts, in_groups, of_groups))
    found = [
        *_faulty(facts),  # of two as strong, what needs no model comes first
        *merged,
        *split,
        *_outlines(facts, partners, usual),
        *_unseen(facts, in_groups | partners.keys()),
        *_missing(facts, of_groups | {pair[0] for pair in partners.values()}),
    ]
    kept, seen = list[Suspicion](), set[int]()
    for item in sorted(found, key=lambda one: -one.suspicion):
        if item.suspicion > 0 and not seen & set(item.cells):
            kept.append(item)
            seen |= set(item.cells)
    return kept


def _merged(facts: AuditFacts) -> Iterator[Suspicion]:
    """Annotations over several predicted cells."""
    pairs = facts.pairs
    of_cell, of_predicted = _shares(pairs)
    pieces = (of_predicted >= MOST) & (of_cell >= LEAST)
    for cell, rows in _groups(pairs.truth, pieces):
        order = rows[np.argsort(-of_cell[rows], kind="stable")]
        predicted = pairs.prediction[order]
        sure = float(facts.sure[predicted[:2]].min())
        part = _part(of_cell[order[1]])
        covered = float(of_cell[order].sum())
        yield Suspicion(
            "merged", (cell,), tuple(predicted.tolist()), sure * part * min(1.0, covered),
            {"sure": sure, "pieces": len(order), "second": float(of_cell[order[1]])},
        )  # fmt: skip


def _split(facts: AuditFacts) -> Iterator[Suspicion]:
    """Several annotations over one predicted cell."""
    pairs = facts.pairs
    of_cell, of_predicted = _shares(pairs)
    pieces = (of_cell >= MOST) & (of_predicted >= LEAST)
    for predicted, rows in _groups(pairs.prediction, pieces):
        order = rows[np.argsort(-of_predicted[rows], kind="stable")]
        sure, part = float(facts.sure[predicted]), _part(of_predicted[order[1]])
        covered = min(1.0, float(of_predicted[order].sum()))
        gain = _gain(facts, pairs.truth[order], predicted)
        yield Suspicion(
            "split", tuple(pairs.truth[order].tolist()), (predicted,), sure * part * covered * gain,
            {"sure": sure, "pieces": len(order), "second": float(of_predicted[order[1]])},
        )  # fmt: skip


def _partners(
    facts: AuditFacts, cells: set[int], predicted: set[int]
) -> Iterator[tuple[int, tuple[int, float]]]:
    """Annotations with the predicted cell that is theirs as they are its, and the IoU; none of those given."""
    pairs = facts.pairs
    iou, mutual = _mutual(pairs)
    for row in np.flatnonzero(mutual & (iou >= LEAST)):
        cell, other = int(pairs.truth[row]), int(pairs.prediction[row])
        if cell not in cells and other not in predicted:
            yield cell, (other, float(iou[row]))


def _outlines(
    facts: AuditFacts, partners: Mapping[int, tuple[int, float]], usual: float
) -> Iterator[Suspicion]:
    areas = facts.pairs.truth_areas, facts.pairs.prediction_areas
    for cell, (other, iou) in partners.items():
        sure = float(facts.sure[other])
        unlike = float(np.clip((usual - iou) / FAR_IOU, 0, 1))
        moved = facts.predicted_centres[other] - facts.centres[cell]
        yield Suspicion(
            "outline", (cell,), (other,), sure * unlike * _gain(facts, np.array([cell]), other),
            {
                "sure": sure, "iou": iou, "usual": usual, "dy": float(moved[0]), "dx": float(moved[1]),
                "area": float(areas[0][cell]), "predicted_area": float(areas[1][other]),
            },
        )  # fmt: skip


def _unseen(facts: AuditFacts, others: set[int]) -> Iterator[Suspicion]:
    lonely = set(range(len(facts.seen))) - others
    missed = (len(lonely) - 1) / max(1, len(facts.seen) - 1)
    trust = WRONG_SHARE / (WRONG_SHARE + max(0.0, missed))
    for cell in lonely:
        seen, free = float(facts.seen[cell]), 1 - float(facts.covered[cell])
        unlikely = 1.0 if np.isnan(seen) else 1 - seen
        yield Suspicion(
            "unseen", (cell,), (), unlikely * free * trust, {"seen": seen, "free": free}
        )


def _missing(facts: AuditFacts, others: set[int]) -> Iterator[Suspicion]:
    for other in set(range(len(facts.sure))) - others:
        sure, free = float(facts.sure[other]), 1 - float(facts.annotated[other])
        if free >= MOST:
            yield Suspicion("missing", (), (other,), sure * free, {"sure": sure, "free": free})


def _faulty(facts: AuditFacts) -> Iterator[Suspicion]:
    """Hollow annotations and those in parts: what is wrong with them shows without a model."""
    faults = facts.faults
    for cell, seen in facts.seen_in_holes.items():
        part = _part(faults.holes[cell] / (faults.areas[cell] + faults.holes[cell]))
        yield Suspicion("hollow", (cell,), (), part * seen, {"holes": float(faults.holes[cell])})
    of_cell, of_predicted = _shares(facts.pairs)
    belongs = (of_cell >= MOST) | (of_predicted >= MOST)
    for cell, apart in facts.rest_apart.items():
        rest = faults.areas[cell] - faults.largest_part[cell]
        own = facts.pairs.prediction[(facts.pairs.truth == cell) & belongs]
        yield Suspicion(
            "in parts", (cell,), tuple(own.tolist()),
            _part(rest / faults.areas[cell]) * (1 + apart) / 2,
            {"parts": float(faults.parts[cell]), "rest": float(rest)},
        )  # fmt: skip


def _gain(facts: AuditFacts, cells: Ints, other: int) -> float:
    """How much better a predicted cell explains the flows than annotations; 1 where there are none."""
    errors = facts.errors[cells]
    if np.isnan(errors).all():
        return 1.0
    return float(np.clip(np.nanmax(errors) - facts.predicted_errors[other], 0, 1))


def _shares(pairs: Matches) -> tuple[Floats, Floats]:
    """Part of each annotation, and of each predicted cell, that the other of a pair has."""
    return (
        pairs.shared / pairs.truth_areas[pairs.truth],
        pairs.shared / pairs.prediction_areas[pairs.prediction],
    )


def _mutual(pairs: Matches) -> tuple[Floats, NDArray[np.bool_]]:
    """IoU of all pairs, and whether each is the best of both its cells."""
    iou = pairs.shared / np.maximum(pairs.union, 1)
    best = [np.zeros(len(areas)) for areas in (pairs.truth_areas, pairs.prediction_areas)]
    for top, index in zip(best, (pairs.truth, pairs.prediction), strict=True):
        np.maximum.at(top, index, iou)
    return iou, (iou == best[0][pairs.truth]) & (iou == best[1][pairs.prediction])


def _groups(keys: Ints, chosen: NDArray[np.bool_]) -> Iterator[tuple[int, Ints]]:
    """Keys that were chosen more than once, with their rows."""
    rows = np.flatnonzero(chosen)
    for key in np.unique(keys[rows]):
        own = rows[keys[rows] == key]
        if len(own) > 1:
            yield int(key), own


def _part(share: Any) -> float:
    return float(min(1.0, float(share) / WHOLE_SHARE))

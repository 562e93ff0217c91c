"""What is wrong with each cell of a prediction: missed, false, in pieces, merged with others, or of a poor outline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric.matching import Matches, match
from cellflow.types import one_line

__all__ = ["ERRORS", "KINDS", "POOR_BELOW", "CellError", "CellErrors", "cell_errors"]

Kind = Literal["correct", "poor", "missed", "false", "split", "merged"]
Ints = NDArray[np.int64]

KINDS: tuple[Kind, ...] = ("correct", "poor", "missed", "false", "split", "merged")
"""What a cell can be; `CellErrors` has their places here."""
ERRORS: tuple[Kind, ...] = ("missed", "false", "split", "merged", "poor")
"""Those that are errors, the worst first."""
CORRECT, POOR, MISSED, FALSE, SPLIT, MERGED = range(len(KINDS))
POOR_BELOW = 0.75
"""An outline is good where the IoU is above this, one of the thresholds of the competition."""
_GOOD, _NEAR = (3, 4), (1, 10)
"""IoU above which an outline is good, and above which it is that of the same cell, as fractions."""


class CellError(NamedTuple):
    """One error, as a person sees one.

    Attributes
    ----------
    kind : str
        Of `ERRORS`.
    truth, prediction : tuple of int
        Places of the cells that take part: of a split one true cell and its pieces, of a merge one prediction
        and the true cells below it, of a poor outline one of either.
    """

    kind: Kind
    truth: tuple[int, ...]
    prediction: tuple[int, ...]


@one_line
@dataclass(frozen=True, eq=False)
class CellErrors:
    """What each cell of an image is; each is one thing only.

    Attributes
    ----------
    truth, prediction : (n,), (m,) int64 ndarray
        Of every true and every predicted cell its place in `KINDS`.
    truth_partner, prediction_partner : (n,), (m,) int64 ndarray
        The cell of the other side that it belongs to: its pair, the prediction that merges a true cell, the true
        cell whose piece a prediction is. -1 where there is none or more than one.
    truth_iou, prediction_iou : (n,), (m,) float64 ndarray
        Largest IoU with any cell of the other side; 0 where it touches none.
    truth_hit, prediction_hit : (n,), (m,) bool ndarray
        Whether it hits a cell of the other side with an IoU above 0.5, as the competition score counts: true
        cells that do not are `n_missed` of the tables, predictions that do not are `n_false`.
    """

    truth: Ints
    prediction: Ints
    truth_partner: Ints
    prediction_partner: Ints
    truth_iou: NDArray[np.float64]
    prediction_iou: NDArray[np.float64]
    truth_hit: NDArray[np.bool_]
    prediction_hit: NDArray[np.bool_]

    @property
    def errors(self) -> list[CellError]:
        """All errors, by kind in the order of `ERRORS`."""
        found = [CellError("missed", (i,), ()) for i in _places(self.truth, MISSED)]
        found += [CellError("false", (), (j,)) for j in _places(self.prediction, FALSE)]
        for i in _places(self.truth, SPLIT):
            pieces = (self.prediction == SPLIT) & (self.prediction_partner == i)
            found.append(CellError("split", (i,), tuple(np.flatnonzero(pieces).tolist())))
        for j in _places(self.prediction, MERGED):
            below = (self.truth == MERGED) & (self.truth_partner == j)
            found.append(CellError("merged", tuple(np.flatnonzero(below).tolist()), (j,)))
        poor = _places(self.truth, POOR)
        return found + [CellError("poor", (i,), (int(self.truth_partner[i]),)) for i in poor]

    @property
    def counts(self) -> dict[str, int]:
        """Errors of each of `ERRORS`."""
        kinds = [error.kind for error in self.errors]
        return {kind: kinds.count(kind) for kind in ERRORS}


def cell_errors(truth: Any, prediction: Any) -> CellErrors:
    """Say of every true and every predicted cell of an image what it is.

    A prediction *covers* a true cell where it has more than half of its pixels, and *lies in* one where more
    than half of its own pixels are there; of several that with the most counts. Then, one after the other:

    merged
        One prediction covers two or more true cells: it, and these.
    split
        Two or more predictions lie in one true cell: it, and these.
    correct, poor
        Pairs of what is left, the largest IoU first, in which one covers or lies in the other and the IoU is
        above 0.1. The outline is correct where the IoU is above 0.75 (`POOR_BELOW`), else poor.
    missed, false
        True and predicted cells that are left.

    The competition score knows nothing but an IoU above 0.5; of which kinds the cells are that it counts as
    missed and as false is told by `truth_hit` and `prediction_hit`.

    Parameters
    ----------
    truth, prediction : Instances or (H, W) integer ndarray
        Cells of one image, which may overlap when given as Instances. Of a label map only the labels that are
        present count, in the order of their numbers.

    Raises
    ------
    DataError
        If the two are not of the same image size.

    Notes
    -----
    Missed and false objects, splits and merges are the errors by which Caicedo et al., "Nucleus segmentation
    across imaging experiments: the 2018 Data Science Bowl", Nature Methods 16, 2019, and "Evaluation of deep
    learning strategies for nucleus segmentation in fluorescence images", Cytometry A 95, 2019, compare methods;
    there an IoU above 0.1 with two objects makes a split or a merge, which two neighbours that touch also have.
    "More than half" is the rule of the Cell Tracking Challenge: Matula et al., "Cell tracking accuracy
    measurement based on comparison of acyclic oriented graphs", PLoS ONE 10, 2015. An outline of the same cell
    that is too far off to hit, with an IoU above 0.1, is an error of its own kind, and not a missed and a false
    one, in Bolya et al., "TIDE: a general toolbox for identifying object detection errors", ECCV 2020.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.array([[1, 1, 2, 2, 0, 3, 3, 3, 3, 0, 4, 0]])
    >>> prediction = np.array([[1, 1, 1, 1, 0, 2, 2, 3, 3, 0, 0, 4]])
    >>> found = cell_errors(truth, prediction)
    >>> [KINDS[kind] for kind in found.truth], [KINDS[kind] for kind in found.prediction]
    (['merged', 'merged', 'split', 'missed'], ['merged', 'split', 'split', 'false'])
    >>> found.counts
    {'missed': 1, 'false': 1, 'split': 1, 'merged': 1, 'poor': 0}
    """
    pairs = match(truth, prediction)
    sides = _Sides.free(len(pairs.truth_areas), len(pairs.prediction_areas))
    _merge(sides, pairs)
    _split(sides, pairs)
    _pair(sides, pairs)
    hits = 2 * pairs.shared > pairs.union
    iou = pairs.shared / np.maximum(pairs.union, 1)
    best = [np.zeros(len(side)) for side in (sides.truth, sides.prediction)]
    hit = [np.zeros(len(side), dtype=np.bool_) for side in best]
    for side, cells in enumerate((pairs.truth, pairs.prediction)):
        np.maximum.at(best[side], cells, iou)
        hit[side][cells[hits]] = True
    return CellErrors(*sides, best[0], best[1], hit[0], hit[1])


class _Sides(NamedTuple):
    """Kinds and partners of the cells, as far as they are known."""

    truth: Ints
    prediction: Ints
    truth_partner: Ints
    prediction_partner: Ints

    @classmethod
    def free(cls, n_truth: int, n_prediction: int) -> _Sides:
        """What a cell is that nothing else is found for."""
        return cls(
            np.full(n_truth, MISSED, dtype=np.int64),
            np.full(n_prediction, FALSE, dtype=np.int64),
            np.full(n_truth, -1, dtype=np.int64),
            np.full(n_prediction, -1, dtype=np.int64),
        )

    def unknown(self, pairs: Matches) -> NDArray[np.bool_]:
        """Pairs of which both cells are free."""
        free = (self.truth[pairs.truth] == MISSED) & (self.prediction[pairs.prediction] == FALSE)
        return np.asarray(free)


def _merge(sides: _Sides, pairs: Matches) -> None:
    covers = 2 * pairs.shared > pairs.truth_areas[pairs.truth]
    true, by = _most(pairs.truth, pairs.prediction, pairs.shared, covers)
    several = np.bincount(by, minlength=len(sides.prediction)) > 1
    true, by = true[several[by]], by[several[by]]
    sides.truth[true], sides.truth_partner[true] = MERGED, by
    sides.prediction[by] = MERGED


def _split(sides: _Sides, pairs: Matches) -> None:
    lies_in = 2 * pairs.shared > pairs.prediction_areas[pairs.prediction]
    lies_in &= sides.unknown(pairs)
    piece, of = _most(pairs.prediction, pairs.truth, pairs.shared, lies_in)
    several = np.bincount(of, minlength=len(sides.truth)) > 1
    piece, of = piece[several[of]], of[several[of]]
    sides.prediction[piece], sides.prediction_partner[piece] = SPLIT, of
    sides.truth[of] = SPLIT


def _pair(sides: _Sides, pairs: Matches) -> None:
    """Join free cells one to one."""
    smaller = np.minimum(pairs.truth_areas[pairs.truth], pairs.prediction_areas[pairs.prediction])
    near = (_NEAR[1] * pairs.shared > _NEAR[0] * pairs.union) & (2 * pairs.shared > smaller)
    places = np.flatnonzero(near & sides.unknown(pairs))
    iou = pairs.shared[places] / pairs.union[places]
    for place in places[np.argsort(-iou, kind="stable")]:
        i, j = pairs.truth[place], pairs.prediction[place]
        if sides.truth[i] == MISSED and sides.prediction[j] == FALSE:
            good = _GOOD[1] * pairs.shared[place] > _GOOD[0] * pairs.union[place]
            sides.truth[i] = sides.prediction[j] = CORRECT if good else POOR
            sides.truth_partner[i], sides.prediction_partner[j] = j, i


def _most(cells: Ints, others: Ints, shared: Ints, chosen: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Each cell of the chosen pairs once, with the other that has the most pixels of it, the first of several."""
    cells, others, shared = cells[chosen], others[chosen], shared[chosen]
    order = np.lexsort((others, -shared, cells))
    first = np.unique(cells[order], return_index=True)[1]
    return cells[order][first], others[order][first]


def _places(kinds: Ints, kind: int) -> list[int]:
    return [int(place) for place in np.flatnonzero(kinds == kind)]

"""Which images without annotation would teach a network most: what is in doubt, and a choice that is spread.

An image in doubt is one on which networks of other training images see other cells (query by committee:
Seung, Opper and Sompolinsky, COLT 1992). Those alone would be twenty of one kind, and odd ones at that. So images
are chosen that stand for the others as well: each image that there is something to learn of is to be like one
that is annotated or chosen, and what is taken of one type counts less each time (coverage and diversity as in Lin
and Bilmes, ACL 2011). Both grow by less with each choice, so taking the best one each time comes to at least 63 %
of the best choice there is (Nemhauser, Wolsey and Fisher, 1978).
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from cellflow.numeric.score import competition_score

__all__ = [
    "Choice",
    "choose_images",
    "disagreement_of_labels",
    "distances_to_nearest",
    "doubt_of_flows",
    "likeness",
    "shares_below",
]

Floats = NDArray[np.float64]

_MAYBE = 0.1
"""Cell probability from which on a pixel may be of a cell."""
_UNIT = 5.0  # as dynamics.FLOW_SCALE, which would bring numba along
_TYPES = 0.25
"""How much it counts that types are spread, against that images are covered."""
_FARTHEST = 2.0
"""Distance of opposite points of the sphere of radius 1."""
_DIGITS = 9
"""Gains that are the same to so many digits are the same, whatever the order of sums."""
_BLOCK = 512


class Choice(NamedTuple):
    """An image that was chosen.

    Attributes
    ----------
    place : int
        Of the image among the candidates.
    stands_for : float
        Part of all there is to cover that it covers, 0 to 1: how much more the images that would teach something
        are like an annotated one once this is one.
    of_type : float
        What it adds for its type, 0 to 1.
    nearer : int
        Other candidates that are more like it than like any annotated or earlier one.
    """

    place: int
    stands_for: float
    of_type: float
    nearer: int


def disagreement_of_labels(labels: Sequence[Any]) -> float:
    """How far the masks of several networks are apart: 1 less the mean competition score of their pairs.

    Parameters
    ----------
    labels : sequence of (H, W) integer ndarray
        The label map of each network, two at least.

    Returns
    -------
    float
        0 where all see the same cells, or none; 1 where no two agree on any.

    Notes
    -----
    In the measure that the networks are judged by: a cell that only some see, one that some split and an
    outline that differs all count as they would against the truth, which a mean over pixels hardly notices.
    """
    scores = [competition_score(*pair).mean for pair in combinations(labels, 2)]
    return float(1 - np.mean(scores))


def doubt_of_flows(flow: NDArray[Any], cellprob: NDArray[Any]) -> float:
    """How unsure a single network is of an image, where there may be cells.

    Parameters
    ----------
    flow : (2, H, W) ndarray
        5 times the unit flow.
    cellprob : (H, W) ndarray
        Logit.

    Returns
    -------
    float
        0 to 1: 1 less the mean of ``|2 p - 1| * min(1, |flow| / 5)`` over the pixels whose probability p is
        above 0.1. The first factor is 0 where cell and background are as likely, the second where the network
        cannot tell to which cell a pixel belongs. 0 where there are no such pixels.
    """
    probability = 1 / (1 + np.exp(-np.clip(np.asarray(cellprob, np.float64), -80, 80)))
    maybe = probability > _MAYBE
    if not maybe.any():
        return 0.0
    length = np.hypot(*np.asarray(flow, np.float64)[:, maybe]) / _UNIT
    sure = np.abs(2 * probability[maybe] - 1) * np.minimum(length, 1)
    return float(1 - sure.mean())


def shares_below(values: Any) -> Floats:
    """Place of each value among all, from 0 for the lowest to 1 for the highest, as the part that lies below it.

    Values that are the same share the mean of their places. Values of different units can be put together
    that way.
    """
    return np.asarray((rankdata(values) - 1) / max(len(values) - 1, 1), dtype=np.float64)


def distances_to_nearest(points: Any, others: Any) -> tuple[Floats, NDArray[np.int64]]:
    """Euclidean distance of each point to the nearest of others, and which that is.

    Parameters
    ----------
    points : (N, D) array_like
    others : (M, D) array_like
        At least one.
    """
    here, there = np.asarray(points, np.float64), np.asarray(others, np.float64)
    distance, which = np.zeros(len(here)), np.zeros(len(here), np.int64)
    for start in range(0, len(here), _BLOCK):
        rows = slice(start, start + _BLOCK)
        found = _distances(here[rows], there)
        which[rows] = found.argmin(axis=1)
        distance[rows] = found.min(axis=1)
    return distance, which


def likeness(distance: Any) -> Floats:
    """How alike images are whose styles, of length 1, have this distance: 1 for the same, 0 for opposite ones.

    It is ``1 - sqrt(distance / 2)``: twice as far is not twice as unlike, so that a few odd images do not
    outweigh all differences among the others.
    """
    far = np.clip(np.asarray(distance, np.float64) / _FARTHEST, 0, 1)
    return np.asarray(1 - np.sqrt(far))


def choose_images(
    styles: Any,
    weights: Any,
    *,
    known: Any,
    types: Sequence[str],
    copies: Collection[tuple[int, int]] = (),
    count: int,
) -> list[Choice]:
    """Choose images one after the other, each that which adds most to what was chosen before it.

    Parameters
    ----------
    styles : (N, D) array_like
        Of the candidates, of length 1: images that are alike lie close.
    weights : (N,) array_like
        0 or more: how much there is to learn of each.
    known : (M, D) array_like
        Styles of the images that are annotated already; there may be none.
    types : sequence of str
        Type of each candidate.
    copies : collection of (int, int)
        Pairs of candidates that are forms of one image: once one is chosen the other is out.
    count : int
        How many, at most.

    Returns
    -------
    list of Choice
        In the order of choice; fewer than `count` where there are no more. The first n of a longer list are
        the list of n. Of images that add the same, that of the larger weight is taken, then the first.

    Notes
    -----
    With l the `likeness` of candidate i to the known or chosen image that it is most like (0 without any), what
    is maximised is ``sum(w_i * l_i)``, and a quarter as much the sum over types of the root of the chosen weights,
    both as parts of what choosing all would give.
    """
    job = _Choosing(styles, weights, known, types)
    others: dict[int, set[int]] = {}
    for one, other in copies:
        others.setdefault(one, set()).add(other)
        others.setdefault(other, set()).add(one)
    # Gains only fall, so one that is looked at again and still leads is the largest (Minoux, 1978).
    heap = [(*job.rank(place), place, 0) for place in range(len(job.weights))]
    heapq.heapify(heap)
    chosen: list[Choice] = []
    out: set[int] = set()
    while heap and len(chosen) < count:
        *_, place, seen = heapq.heappop(heap)
        if place in out:
            continue
        if seen < len(chosen):
            heapq.heappush(heap, (*job.rank(place), place, len(chosen)))
            continue
        chosen.append(Choice(place, *job.take(place)))
        out |= others.get(place, set())
    return chosen


class _Choosing:
    """What is covered so far."""

    def __init__(self, styles: Any, weights: Any, known: Any, types: Sequence[str]) -> None:
        self.styles, self.weights = np.asarray(styles, np.float64), np.asarray(weights, np.float64)
        self.covered = np.zeros(len(self.styles))
        if len(self.styles) and len(known):
            self.covered = likeness(distances_to_nearest(self.styles, known)[0])
        self.types = np.unique(np.array(list(types), dtype=str), return_inverse=True)[1]
        sums = np.bincount(self.types, weights=self.weights)
        self.taken = np.zeros(len(sums))
        self._to_cover = float(self.weights @ (1 - self.covered)) or 1.0
        self._all_types = float(np.sqrt(sums).sum()) or 1.0

    def gains(self, place: int) -> tuple[float, float]:
        """What a candidate adds to both parts."""
        more = np.maximum(self._like(place) - self.covered, 0)
        kind = self.types[place]
        root = np.sqrt(self.taken[kind] + self.weights[place]) - np.sqrt(self.taken[kind])
        return float(self.weights @ more) / self._to_cover, float(root) / self._all_types

    def rank(self, place: int) -> tuple[float, float]:
        """The largest gain, then the largest weight, come first."""
        covers, of_type = self.gains(place)
        return -round(covers + _TYPES * of_type, _DIGITS), -float(self.weights[place])

    def take(self, place: int) -> tuple[float, float, int]:
        """Choose a candidate: what it adds to both parts, and how many others it now stands for."""
        gains, like = self.gains(place), self._like(place)
        nearer = like > self.covered
        nearer[place] = False
        self.covered = np.maximum(self.covered, like)
        self.taken[self.types[place]] += self.weights[place]
        return *gains, int(nearer.sum())

    def _like(self, place: int) -> Floats:
        to_it = _distances(self.styles[place : place + 1], self.styles)[0]
        return likeness(to_it)


def _distances(here: Floats, there: Floats) -> Floats:
    """Euclidean distances, ``(N, M)``."""
    squares = (here**2).sum(axis=1)[:, None] + (there**2).sum(axis=1) - 2 * here @ there.T
    # of points that are the same, rounding leaves less than this
    squares[squares < 1e-12] = 0
    return np.asarray(np.sqrt(squares))

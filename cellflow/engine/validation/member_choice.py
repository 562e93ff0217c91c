"""Which members of an ensemble earn their place, and how much choosing them flatters its score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.engine.validation.selection_bias import optimism

__all__ = ["MIN_GAIN", "MemberChoice", "choose_members"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Subset = tuple[int, ...]

MIN_GAIN = 0.001
"""A member costs a pass over every image, so it must raise the score by this."""


@dataclass(frozen=True)
class MemberChoice:
    """Members that were kept, by their places, in the order in which they were taken.

    Attributes
    ----------
    kept : tuple of int
        At least one.
    scores : tuple of float
        Mean score with the first of them, the first two, and so on.
    every : float
        Mean score of all members.
    bias : float
        By how much choosing flatters the score; nan where there is one group only.
    """

    kept: Subset
    scores: tuple[float, ...]
    every: float
    bias: float

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain JSON types, with names for places."""
        return {
            "kept": [names[place] for place in self.kept],
            "scores": list(self.scores),
            "left_out": [name for place, name in enumerate(names) if place not in self.kept],
            "every": self.every,
            "selection_bias": None if np.isnan(self.bias) else self.bias,
        }


def choose_members(
    count: int,
    scores_of: Callable[[Subset], Floats],
    groups: Sequence[str],
    *,
    seed: int = 0,
    splits: int = 200,
) -> MemberChoice:
    """Greedy forward selection: the best member, then whichever raises the mean score most, while it does.

    Its optimism is measured as that of choosing an epoch: members chosen on half of the groups are scored on the
    other half, see `selection_bias`.

    Parameters
    ----------
    count : int
        Number of members.
    scores_of : callable
        Score of every image by the average of some members, whose places are given in order.
    groups : sequence of str
        Group of every image.
    seed, splits : int
        Of the random halves.
    """
    scores_of = cache(scores_of)

    def mean_over(rows: Bools) -> Callable[[Subset], float]:
        return lambda members: float(scores_of(members)[rows].mean())

    def scores_chosen_by(rows: Bools) -> Floats:
        return scores_of(tuple(sorted(_greedy(count, mean_over(rows))[0])))

    every = np.ones(len(groups), np.bool_)
    kept, scores = _greedy(count, mean_over(every))
    bias = optimism(groups, scores_chosen_by, seed=seed, splits=splits)
    whole = mean_over(every)(tuple(range(count)))
    return MemberChoice(kept, scores, whole, float(bias.mean()))


def _greedy(count: int, mean_of: Callable[[Subset], float]) -> tuple[Subset, tuple[float, ...]]:
    """Members in the order taken, and the mean after each; of equals the earlier is taken."""
    kept: Subset = ()
    means: tuple[float, ...] = ()
    while len(kept) < count:
        trials = {
            place: mean_of(tuple(sorted((*kept, place))))
            for place in range(count)
            if place not in kept
        }
        best = max(trials, key=lambda place: trials[place])
        if means and trials[best] < means[-1] + MIN_GAIN:
            break
        kept, means = (*kept, best), (*means, trials[best])
    return kept, means

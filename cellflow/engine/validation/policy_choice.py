"""Which diameter policy of several is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellflow.config.shared import Policy
from cellflow.numeric.bootstrap import bootstrap_mean

__all__ = ["Comparison", "choose_policy"]

MIN_POLICY_GAIN = 0.002
"""A diameter policy must score better by this than a simpler one."""

ORDER: tuple[Policy, ...] = ("dataset", "image", "type")
"""From the simplest to what can go wrong the most. The data set's mean asks nothing of the image. The image's
estimate is a number that is a little wrong where the style is a little unlike. A type is right or wrong: an image
that is taken for another type gets the diameter of other cells, and so does one of a type that is new."""


@dataclass(frozen=True)
class Comparison:
    """A policy beside a simpler one, on the same images.

    Attributes
    ----------
    policy, over : {"dataset", "type", "image"}
        The policy, and what it is compared with.
    gain, low, high : float or None
        Mean gain in score and the ends of its 95 % interval, whole groups drawn anew; None where one group
        tells nothing of that.
    groups : int
        Groups behind them.
    taken : bool
        Whether it is kept in place of the simpler one.
    """

    policy: Policy
    over: Policy
    gain: float
    low: float | None
    high: float | None
    groups: int
    taken: bool


def choose_policy(
    scores: Mapping[Policy, Sequence[float]], groups: Sequence[str]
) -> tuple[Policy, list[Comparison]]:
    """The diameter policy to keep, and the comparisons that led to it.

    One after the other, in the order of `ORDER`, a policy takes the place of the one kept so far where it gains
    more than `MIN_POLICY_GAIN` and more than its error: the 95 % interval of the paired gain, whole groups drawn
    anew, lies above 0. So of two that cannot be told apart the simpler stays. There is no least number of groups
    as for thresholds: a wrong diameter costs much more than a wrong threshold, whichever policy it comes from,
    and of few groups the interval asks that every one of them gains.

    Parameters
    ----------
    scores : mapping of str to sequence of float
        Of every policy, the scores of the same images in the same order.
    groups : sequence of str
        Group of every image.
    """
    kept, *others = [policy for policy in ORDER if policy in scores]
    comparisons = []
    for policy in others:
        gains = np.subtract(scores[policy], scores[kept])
        gain, low, high = bootstrap_mean(gains, groups)
        taken = gain > MIN_POLICY_GAIN and low > 0
        ends = (None, None) if np.isnan(low) else (low, high)
        comparisons.append(
            Comparison(policy, kept, gain, ends[0], ends[1], len(set(groups)), taken)
        )
        kept = policy if taken else kept
    return kept, comparisons


def choice_record(
    kept: Policy, comparisons: Sequence[Comparison], scores: Mapping[Policy, float]
) -> dict[str, Any]:
    """The choice as JSON types: what is kept, mean scores, comparisons."""
    return {
        "policy": kept,
        "scores": dict(scores),
        "comparisons": [dataclasses.asdict(item) for item in comparisons],
    }

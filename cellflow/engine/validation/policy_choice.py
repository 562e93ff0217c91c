"""Which diameter policy of several is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cellflow.config.shared import Policy

__all__ = ["best_policy", "kept_text"]

MIN_POLICY_GAIN = 0.002
"""A diameter policy that is less simple than that of the data set must score better by this."""


def best_policy(scores: Mapping[Policy, Sequence[float]]) -> Policy:
    """The diameter policy to keep: the best one, or a simpler or safer one where the gain is not worth it.

    "image" must beat "dataset" by `MIN_POLICY_GAIN`. So must "type"; and "image" by more than the standard
    error of the gain, because an image that is taken for another type gets the diameter of that type, and one of
    a type that no training image had gets a wrong one for certain.

    Parameters
    ----------
    scores : mapping of str to sequence of float
        Of every policy, the scores of the same images in the same order.
    """
    means = {policy: float(np.mean(values)) for policy, values in scores.items()}
    best = next(iter(means))
    if "image" in means and means["image"] > means[best] + MIN_POLICY_GAIN:
        best = "image"
    if "type" in means and best != "type":
        gain = np.subtract(scores["type"], scores[best])
        error = (
            float(gain.std(ddof=1)) / len(gain) ** 0.5 if best == "image" and len(gain) > 1 else 0.0
        )
        if gain.mean() > max(MIN_POLICY_GAIN, error):
            best = "type"
    return best


def kept_text(kept: Policy, means: Mapping[Policy, float]) -> str:
    """Which of several policies is kept, and why where another one has a higher mean score."""
    best = max(means, key=means.__getitem__)
    gain = means[best] - means[kept]
    if gain <= 0:
        return f"diameter policy {kept} is kept"
    why = "may be chance" if gain > MIN_POLICY_GAIN else "is too little"
    return f"diameter policy {kept} is kept: the gain of {best} ({gain:.4f}) {why}"

"""Which cells of a prediction, and which pixels around them, are sure enough to be trained on.

A cell is trusted when the network is sure of it and sees it again in flipped views, or when other networks see it:
what changes with the view is not in the image. Everything in doubt is ignored rather than called background, because a
network that is told that a missed cell is none unlearns it (Lee, "Pseudo-Label", ICML workshop 2013; Xie et al.,
"Self-training with Noisy Student", CVPR 2020, for thresholds on the confidence).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric.matching import match

__all__ = ["Trusted", "cell_agreement", "trust_cells"]

MAYBE = 0.25
"""Probability of a cell from which on a pixel outside of all cells may be one of a cell that was missed."""


class Trusted(NamedTuple):
    """Labels to train on: ``(H, W)`` int32 without gaps, and the pixels to be ignored, ``(H, W)`` bool."""

    labels: NDArray[np.int32]
    ignored: NDArray[np.bool_]


def cell_agreement(labels: Any, views: Sequence[Any]) -> NDArray[np.float64]:
    """How well each cell is seen again in other label maps of the same image.

    Parameters
    ----------
    labels : (H, W) integer ndarray
        Cells 1..n without gaps.
    views : sequence of (H, W) integer ndarray
        What each network or view sees, one at least.

    Returns
    -------
    (n,) float64 ndarray
        Mean over the views of the largest IoU with one of its cells; 0 to 1.
    """
    best = np.zeros((len(views), int(np.max(labels, initial=0))))
    for row, view in zip(best, views, strict=True):
        found = match(labels, view)
        np.maximum.at(row, found.truth, found.shared / found.union)
    return np.asarray(best.mean(axis=0))


def trust_cells(
    labels: NDArray[np.int32],
    trusted: NDArray[np.bool_],
    *,
    probability: NDArray[Any],
    disagreement: NDArray[Any],
    max_disagreement: float,
) -> Trusted:
    """Keep trusted cells, and ignore what is in doubt.

    Parameters
    ----------
    labels : (H, W) integer ndarray
        Cells 1..n without gaps.
    trusted : (n,) bool ndarray
        Whether each is trusted.
    probability : (H, W) ndarray
        Of a cell, 0 to 1.
    disagreement : (H, W) ndarray
        How far the flows of views and networks are apart, in unit flows; see `average_flows`.
    max_disagreement : float
        Pixels with more are ignored.

    Returns
    -------
    Trusted
        Ignored are the pixels of the other cells, those outside of all cells that may be one of a cell
        all the same (probability of 0.25 and more), and those of much disagreement.
    """
    numbers = np.zeros(len(trusted) + 1, dtype=np.int32)
    numbers[1:][trusted] = np.arange(1, int(trusted.sum()) + 1)
    kept = numbers[labels]
    dropped = (labels > 0) & (kept == 0)
    missed = (labels == 0) & (probability >= MAYBE)
    return Trusted(kept, dropped | missed | (disagreement > max_disagreement))

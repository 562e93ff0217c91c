"""The optimum of scores over a grid of settings, without falling for a lucky spike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cellflow.errors import DataError

__all__ = ["STEP_COST", "grid_optimum", "shrink"]

Floats = NDArray[np.float64]

STEP_COST = 0.0002
"""Score that a setting must gain for every grid step that it lies away from the default."""


def shrink(own: Any, count: float, prior: Any, strength: float) -> Floats:
    """Mean of own scores and those of a larger set, weighted as ``count`` to ``strength``.

    With few images of their own, scores follow the larger set; with many they are left alone.

    Parameters
    ----------
    own, prior : (...) float ndarray
        Mean scores per setting.
    count : float
        Images behind `own`.
    strength : float
        Images that `prior` counts for.

    Returns
    -------
    (...) float64 ndarray
    """
    own, prior = np.asarray(own, dtype=np.float64), np.asarray(prior, dtype=np.float64)
    return np.asarray((count * own + strength * prior) / (count + strength), dtype=np.float64)


def grid_optimum(
    scores: Any, default: tuple[int, ...], *, smoothing: float = 0.7
) -> tuple[int, ...]:
    """Place of the best setting of a grid.

    Scores are smoothed along every axis (a Gaussian, edges repeated), so that a setting counts with
    its neighbours, and every step away from the default costs `STEP_COST`, so that what gains nothing
    stays as it is.

    Parameters
    ----------
    scores : ndarray
        Mean scores, an axis per threshold, values in the order of the thresholds.
    default : tuple of int
        Place of the default setting.
    smoothing : float
        Standard deviation of the Gaussian in steps; 0 is none.
    """
    surface = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(surface).all():  # else the first of them would be taken for the best
        raise DataError("scores: expected finite values, found NaN or infinity")
    if smoothing > 0:
        surface = gaussian_filter(surface, smoothing, mode="nearest")
    grids = np.indices(surface.shape)
    steps = np.abs(grids - np.reshape(default, (-1, *[1] * surface.ndim))).sum(axis=0)
    place = np.unravel_index(int(np.argmax(surface - STEP_COST * steps)), surface.shape)
    return tuple(int(index) for index in place)

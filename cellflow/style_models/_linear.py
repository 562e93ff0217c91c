"""A linear model of styles: scikit-learn fits it, its coefficients are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SILENT = 1e-6
"""A feature that varies less than this is constant: what is left is the rounding of float32, which
scikit-learn's own scaler would blow up."""


def fit_linear(estimator: Any, styles: NDArray[Any], targets: Any) -> tuple[Floats, Floats]:
    """Fit a linear estimator on standardised styles; weights ``(K, F)`` and bias ``(K,)`` for plain ones."""
    styles = styles.astype(np.float64)
    mean, spread = styles.mean(axis=0), styles.std(axis=0)
    spread[spread <= _SILENT] = 1.0
    estimator.fit((styles - mean) / spread, targets)
    weights, bias = np.atleast_2d(estimator.coef_), np.atleast_1d(estimator.intercept_)
    if len(weights) < len(getattr(estimator, "classes_", ())):
        # of two classes scikit-learn keeps the logit of the second
        weights = np.concatenate([np.zeros_like(weights), weights])
        bias = np.concatenate([np.zeros_like(bias), bias])
    weights = np.ascontiguousarray(weights / spread)
    return weights, bias - weights @ mean


def apply_linear(weights: Floats, bias: Floats, styles: NDArray[Any]) -> Floats:
    """``weights @ style + bias`` of every style, ``(N, K)``.

    Row by row and not by a matrix product, whose last bits depend on how many rows there are: one
    image must get the same answer alone and among others.
    """
    rows = [(weights * style).sum(axis=1) + bias for style in styles.astype(np.float64)]
    return np.array(rows, dtype=np.float64).reshape(len(styles), len(bias))

"""Diameter from a style: ridge regression on the logarithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.style_models._linear import apply_linear, fit_linear

__all__ = ["DiameterModel"]

_MARGIN = 2**0.25
"""How far beyond the training diameters a prediction may go: a quarter of an octave."""
_ALPHAS = 10.0 ** np.arange(-2, 4.5, 0.5)
"""Penalties to choose from, per image. The largest gives nearly the mean, as no eigenvalue of 256
standardised features is above 256. Smaller ones than 0.01 never helped with real styles (phase contrast,
fluorescence, histology), and leaving one image out would choose them too often where a sample has several
images."""
_FEWEST = 3
"""Images with which a penalty can be chosen by leaving one out."""


@dataclass(frozen=True, eq=False)
class DiameterModel:
    """A linear model of the logarithm of the median cell diameter.

    Attributes
    ----------
    weights : (F,) float64 ndarray
        For plain styles: the standardisation is part of them.
    bias : float
        Natural logarithm of a diameter in pixels.
    smallest, largest : float
        Range of the predictions in pixels.
    """

    weights: NDArray[np.float64]
    bias: float
    smallest: float
    largest: float

    def __post_init__(self) -> None:
        if self.weights.ndim != 1 or not np.isfinite([*self.weights, self.bias]).all():
            raise ValueError("expected a list of finite weights and a finite bias of the diameter")
        if not 0 < self.smallest <= self.largest < np.inf:
            raise ValueError(
                f"expected diameters 0 < smallest <= largest, found {self.smallest}, {self.largest}"
            )

    @classmethod
    def fit(cls, styles: NDArray[Any], diameters: NDArray[Any] | Sequence[float]) -> DiameterModel:
        """Fit on the styles of images whose median diameter is known.

        Parameters
        ----------
        styles : (N, F) ndarray
            One network's styles of at least one image.
        diameters : (N,) sequence of float
            In pixels, above 0. Where they are all equal, or of fewer than 3 images, their geometric mean
            is what the model predicts.

        Notes
        -----
        Ridge regression on standardised styles; the penalty is the one whose leave-one-out error is
        smallest (``sklearn.linear_model.RidgeCV``). The logarithm, because the error that matters is
        the ratio. Predictions are held within a quarter of an octave (19 percent) of the training
        diameters: a style unlike all of them would give any number.
        """
        pixels = np.asarray(diameters, dtype=np.float64)
        targets, limits = np.log(pixels), (float(pixels.min()), float(pixels.max()))
        smallest, largest = limits[0] / _MARGIN, limits[1] * _MARGIN
        if len(pixels) < _FEWEST or limits[0] == limits[1]:
            return cls(np.zeros(styles.shape[1]), float(targets.mean()), smallest, largest)
        from sklearn.linear_model import RidgeCV  # slow to import, needed for fitting alone

        weights, bias = fit_linear(RidgeCV(alphas=_ALPHAS * len(targets)), styles, targets)
        return cls(weights[0], float(bias[0]), smallest, largest)

    def diameters(self, styles: NDArray[Any]) -> NDArray[np.float64]:
        """Median cell diameter in pixels, ``(N,)``, between `smallest` and `largest`.

        `styles` are ``(N, F)``, of the network that the model was fitted on.
        """
        logarithm = apply_linear(self.weights[None], np.array([self.bias]), styles)[:, 0]
        # Cut before exp, which would overflow, and to the bit after it.
        cut = np.clip(logarithm, np.log(self.smallest) - 1, np.log(self.largest) + 1)
        return np.asarray(np.clip(np.exp(cut), self.smallest, self.largest), dtype=np.float64)

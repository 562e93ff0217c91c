"""Diameter from a style: ridge regression on the logarithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import CheckpointError, DataError
from cellflow.style_models._arrays import (
    apply_linear,
    array_from_json,
    check_styles,
    entries_from_json,
    scale_of,
    unscaled,
)

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

    @classmethod
    def fit(cls, styles: NDArray[Any], diameters: NDArray[Any] | Sequence[float]) -> DiameterModel:
        """Fit on the styles of images whose median diameter is known.

        Parameters
        ----------
        styles : (N, F) ndarray
            One network's styles; F is 256 for Cellpose's.
        diameters : (N,) sequence of float
            In pixels. Where they are all equal, or of fewer than 3 images, their geometric mean is
            what the model predicts.

        Raises
        ------
        DataError
            If there are no images, not one diameter per style, a diameter that is not positive, or a
            style that is not finite.

        Notes
        -----
        Ridge regression on standardised styles; the penalty is the one whose leave-one-out error is
        smallest (``sklearn.linear_model.RidgeCV``). The logarithm, because the error that matters is
        the ratio. Predictions are held within a quarter of an octave (19 percent) of the training
        diameters: a style unlike all of them would give any number.
        """
        array, pixels = check_styles(styles), np.asarray(diameters, dtype=np.float64)
        if not len(array) or pixels.shape != (len(array),):
            raise DataError(
                f"expected one diameter per style and at least one, found {pixels.shape} diameters "
                f"and {len(array)} styles"
            )
        wrong = ~(np.isfinite(pixels) & (pixels > 0))
        if wrong.any():
            raise DataError(f"diameters: expected positive pixels, found {pixels[wrong][0]}")
        weights, bias = _fit_ridge(array, np.log(pixels))
        return cls(weights, bias, float(pixels.min() / _MARGIN), float(pixels.max() * _MARGIN))

    def diameters(self, styles: NDArray[Any]) -> NDArray[np.float64]:
        """Median cell diameter in pixels, ``(N,)`` float64, between `smallest` and `largest`.

        Parameters
        ----------
        styles : (N, F) ndarray
            Of the network that the model was fitted on.

        Raises
        ------
        DataError
            If they have another shape, or are not finite.
        """
        array = check_styles(styles, len(self.weights))
        logarithm = apply_linear(self.weights[None], np.array([self.bias]), array)[:, 0]
        # Cut before exp, which would overflow, and to the bit after it.
        cut = np.clip(logarithm, np.log(self.smallest) - 1, np.log(self.largest) + 1)
        return np.asarray(np.clip(np.exp(cut), self.smallest, self.largest), dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; `from_dict` gives the same model to the bit."""
        return {
            "weights": self.weights.tolist(),
            "bias": self.bias,
            "smallest": self.smallest,
            "largest": self.largest,
        }

    @classmethod
    def from_dict(cls, value: Any) -> DiameterModel:
        """The model that `to_dict` wrote.

        Raises
        ------
        CheckpointError
            If it is damaged.
        """
        entries = ("weights", "bias", "smallest", "largest")
        weights, *numbers = entries_from_json(value, "diameter model", entries)
        bias, smallest, largest = (
            float(array_from_json(number, f"{name} of the diameter model", ()))
            for name, number in zip(entries[1:], numbers, strict=True)
        )
        if not 0 < smallest <= largest:
            raise CheckpointError(
                f"diameter model: expected 0 < smallest <= largest, found {smallest} and {largest}."
            )
        model_weights = array_from_json(weights, "weights of the diameter model", (None,))
        return cls(model_weights, bias, smallest, largest)


def _fit_ridge(
    styles: NDArray[np.float64], targets: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Weights ``(F,)`` and bias for plain styles."""
    if len(targets) < _FEWEST or targets.min() == targets.max():
        return np.zeros(styles.shape[1]), float(targets.mean())
    from sklearn.linear_model import RidgeCV  # slow to import, needed for fitting alone

    mean, spread = scale = scale_of(styles)
    model = RidgeCV(alphas=_ALPHAS * len(targets)).fit((styles - mean) / spread, targets)
    weights, bias = unscaled(model.coef_[None], np.array([model.intercept_]), scale)
    return weights[0], float(bias[0])

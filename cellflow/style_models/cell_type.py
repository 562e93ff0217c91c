"""Cell type from a style: multinomial logistic regression, and what several networks say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.style_models._linear import apply_linear, fit_linear

__all__ = ["CellTypeModel", "average_probabilities", "choose_type"]

_MAX_ITERATIONS = 2000
_SURE = 0.6
"""Smaller probabilities of a cell type count as unsure; no two types can have this one."""


@dataclass(frozen=True, eq=False)
class CellTypeModel:
    """A linear classifier of styles.

    Attributes
    ----------
    classes : tuple of str
        Cell types, sorted.
    weights : (C, F) float64 ndarray
        Per class and style feature, for plain styles: the standardisation is part of them.
    bias : (C,) float64 ndarray
    """

    classes: tuple[str, ...]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = (len(self.classes),)
        if not self.classes or list(self.classes) != sorted({*map(str, self.classes)} - {""}):
            raise ValueError(f"expected sorted names of cell types, found {self.classes!r:.80}")
        if self.weights.ndim != 2 or self.weights.shape[:1] != shape or self.bias.shape != shape:
            raise ValueError(f"expected weights and a bias for each of {shape[0]} cell types")
        if not (np.isfinite(self.weights).all() and np.isfinite(self.bias).all()):
            raise ValueError("expected finite weights of cell types")

    @classmethod
    def fit(cls, styles: NDArray[Any], types: Sequence[str]) -> CellTypeModel:
        """Fit on the styles of images whose type is known.

        Parameters
        ----------
        styles : (N, F) ndarray
            One network's styles of at least one image.
        types : sequence of str
            Cell type per image. One type for all is fine, and so is a type with one image.

        Notes
        -----
        ``sklearn.linear_model.LogisticRegression`` (L2, C = 1) on standardised styles, with classes
        weighted by the inverse of their number of images, so that a rare type is not drowned.
        """
        classes = tuple(sorted(set(types)))
        if len(classes) == 1:
            return cls(classes, np.zeros((1, styles.shape[1])), np.zeros(1))
        from sklearn.linear_model import LogisticRegression  # slow to import, for fitting alone

        estimator = LogisticRegression(class_weight="balanced", max_iter=_MAX_ITERATIONS)
        return cls(classes, *fit_linear(estimator, styles, np.asarray(types, dtype=str)))

    def probabilities(self, styles: NDArray[Any]) -> NDArray[np.float64]:
        """Probability of every class, ``(N, C)`` in the order of `classes`.

        `styles` are ``(N, F)``, of the network that the model was fitted on.
        """
        logits = apply_linear(self.weights, self.bias, styles)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True), dtype=np.float64)


def average_probabilities(
    members: Sequence[tuple[CellTypeModel, NDArray[Any]]],
) -> dict[str, float]:
    """Mean over networks, per class.

    Parameters
    ----------
    members : sequence of (CellTypeModel, (C,) ndarray)
        Each network's model and what it says of the image.

    Returns
    -------
    dict
        Over the classes that any of them knows, sorted. A class that a network does not know counts 0
        there, so that the sum stays 1.
    """
    total = dict.fromkeys(sorted({name for model, _ in members for name in model.classes}), 0.0)
    for model, probabilities in members:
        for name, probability in zip(model.classes, probabilities, strict=True):
            total[name] += float(probability) / len(members)
    return total


def choose_type(probabilities: dict[str, float]) -> str:
    """The most probable cell type, or ``""`` where that is unsure and shared settings are to be used."""
    best = max(probabilities, key=lambda name: probabilities[name], default="")
    return best if probabilities.get(best, 0.0) >= _SURE else ""

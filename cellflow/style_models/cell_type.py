"""Cell type from a style: multinomial logistic regression, and what several networks say together."""

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

__all__ = ["CellTypeModel", "average_probabilities", "choose_type"]

_MAX_ITERATIONS = 2000


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

    @classmethod
    def fit(cls, styles: NDArray[Any], types: Sequence[str]) -> CellTypeModel:
        """Fit on the styles of images whose type is known.

        Parameters
        ----------
        styles : (N, F) ndarray
            One network's styles; F is 256 for Cellpose's.
        types : sequence of str
            Cell type per image. One type for all is fine, and so is a type with one image.

        Raises
        ------
        DataError
            If there are no images, not one type per style, an empty type, or a style that is not
            finite.

        Notes
        -----
        ``sklearn.linear_model.LogisticRegression`` (L2, C = 1) on standardised styles, with classes
        weighted by the inverse of their number of images, so that a rare type is not drowned.
        """
        array = check_styles(styles)
        if not len(array) or len(array) != len(types):
            raise DataError(
                f"expected one cell type per style and at least one, found {len(types)} types and "
                f"{len(array)} styles"
            )
        if not all(types):
            raise DataError(f"types: expected a name for each image, number {_empty(types)} is ''")
        classes = tuple(sorted(set(types)))
        if len(classes) == 1:
            return cls(classes, np.zeros((1, array.shape[1])), np.zeros(1))
        weights, bias = _fit_logistic(array, types)
        return cls(classes, weights, bias)

    def probabilities(self, styles: NDArray[Any]) -> NDArray[np.float64]:
        """Probability of every class, ``(N, C)`` float64 in the order of `classes`.

        Parameters
        ----------
        styles : (N, F) ndarray
            Of the network that the model was fitted on.

        Raises
        ------
        DataError
            If they have another shape, or are not finite.
        """
        array = check_styles(styles, self.weights.shape[1])
        logits = apply_linear(self.weights, self.bias, array)
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        return np.asarray(odds / odds.sum(axis=1, keepdims=True), dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; `from_dict` gives the same model to the bit."""
        return {
            "classes": list(self.classes),
            "weights": self.weights.tolist(),
            "bias": self.bias.tolist(),
        }

    @classmethod
    def from_dict(cls, value: Any) -> CellTypeModel:
        """The model that `to_dict` wrote.

        Raises
        ------
        CheckpointError
            If it is damaged.
        """
        entries = ("classes", "weights", "bias")
        classes, weights, bias = entries_from_json(value, "cell type model", entries)
        if not _are_classes(classes):
            raise CheckpointError(
                f"cell type model: expected a sorted list of different names, found {classes!r}."
            )
        count = len(classes)
        return cls(
            tuple(classes),
            array_from_json(weights, "weights of the cell type model", (count, None)),
            array_from_json(bias, "bias of the cell type model", (count,)),
        )


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

    Raises
    ------
    DataError
        If there are none, or not one probability per class.
    """
    if not members:
        raise DataError("members: expected at least one model with its probabilities, found none")
    total: dict[str, float] = {name: 0.0 for name in sorted(_union(members))}
    for model, probabilities in members:
        if np.shape(probabilities) != (len(model.classes),):
            raise DataError(
                f"probabilities: expected one for each of {', '.join(model.classes)}, found shape "
                f"{np.shape(probabilities)}"
            )
        for name, probability in zip(model.classes, probabilities, strict=True):
            total[name] += float(probability) / len(members)
    return total


def choose_type(probabilities: dict[str, float], minimum: float = 0.6) -> str:
    """The most probable cell type, or ``""`` where that is unsure and shared settings are to be used.

    Parameters
    ----------
    probabilities : dict
        Per cell type; of equal ones the first by name is taken.
    minimum : float
        Smaller probabilities count as unsure.
    """
    if not probabilities:
        return ""
    best = min(probabilities, key=lambda name: (-probabilities[name], name))
    return best if probabilities[best] >= minimum else ""


def _fit_logistic(
    styles: NDArray[np.float64], types: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights ``(C, F)`` and bias ``(C,)`` for a softmax over plain styles."""
    from sklearn.linear_model import LogisticRegression  # slow to import, needed for fitting alone

    mean, spread = scale = scale_of(styles)
    model = LogisticRegression(class_weight="balanced", max_iter=_MAX_ITERATIONS)
    model.fit((styles - mean) / spread, np.asarray(types, dtype=str))
    weights, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(weights) == 1:  # of two classes scikit-learn keeps the second one's logit
        weights = np.concatenate([np.zeros_like(weights), weights])
        bias = np.concatenate([np.zeros_like(bias), bias])
    return unscaled(weights, bias, scale)


def _union(members: Sequence[tuple[CellTypeModel, NDArray[Any]]]) -> set[str]:
    return {name for model, _ in members for name in model.classes}


def _empty(types: Sequence[str]) -> int:
    return next(place for place, name in enumerate(types) if not name)


def _are_classes(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(name, str) and name for name in value) and sorted(set(value)) == value

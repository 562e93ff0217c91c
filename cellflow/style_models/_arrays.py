"""What both models share: checked styles, a scale that ignores silent features, arrays from JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import CheckpointError, DataError

__all__ = [
    "apply_linear",
    "array_from_json",
    "check_styles",
    "entries_from_json",
    "scale_of",
    "unscaled",
]

Floats = NDArray[np.float64]

_SILENT = 1e-6
"""A feature that varies less than this is constant: what is left is the rounding of float32."""


def check_styles(styles: Any, features: int | None = None) -> Floats:
    """Styles as ``(N, F)`` float64.

    Parameters
    ----------
    styles : (N, F) ndarray
    features : int or None
        F of the model that is to use them.

    Raises
    ------
    DataError
        If they have another shape, or are not finite numbers.
    """
    array = np.asarray(styles)
    if array.ndim != 2 or features not in (None, array.shape[1]):
        wanted = "F" if features is None else features
        raise DataError(f"styles: expected shape (N, {wanted}), found {array.shape}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise DataError(f"styles: expected finite numbers, row {row} holds NaN or infinity")
    return array


def scale_of(styles: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of every feature, ``(F,)`` each; silent features keep their scale."""
    mean, spread = styles.mean(axis=0), styles.std(axis=0)
    return mean, np.where(spread > _SILENT, spread, 1.0)


def unscaled(weights: Floats, bias: Floats, scale: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Weights ``(K, F)`` and bias ``(K,)`` for standardised styles, turned into those for plain ones."""
    mean, spread = scale
    plain = np.ascontiguousarray(weights / spread)  # as after a round trip through JSON
    return plain, bias - plain @ mean


def apply_linear(weights: Floats, bias: Floats, styles: Floats) -> Floats:
    """``weights @ style + bias`` of every style, ``(N, K)``.

    Row by row and not by a matrix product, whose last bits depend on how many rows there are: one
    image must get the same answer alone and among others.
    """
    rows = [(weights * style).sum(axis=1) + bias for style in styles]
    return np.array(rows, dtype=np.float64).reshape(len(styles), len(bias))


def entries_from_json(value: Any, name: str, entries: tuple[str, ...]) -> list[Any]:
    """The named entries of a JSON object, in that order.

    Raises
    ------
    CheckpointError
        If it is no object or lacks one.
    """
    if not isinstance(value, dict):
        raise CheckpointError(f"{name}: expected an object, found {type(value).__name__}.")
    missing = [entry for entry in entries if entry not in value]
    if missing:
        raise CheckpointError(
            f"{name}: expected the entries {', '.join(entries)}; not found: {', '.join(missing)}."
        )
    return [value[entry] for entry in entries]


def array_from_json(value: Any, name: str, shape: tuple[int | None, ...]) -> Floats:
    """A float64 array from nested lists of numbers; None in `shape` stands for any length but 0.

    Raises
    ------
    CheckpointError
        If it has another shape, or holds something else than finite numbers.
    """
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "if" or not np.isfinite(array).all():
        raise CheckpointError(f"{name}: expected an array of finite numbers, found something else.")
    fits = len(array.shape) == len(shape) and all(
        found == wanted or (wanted is None and found)
        for found, wanted in zip(array.shape, shape, strict=False)
    )
    if not fits:
        wanted_text = " x ".join("n" if n is None else str(n) for n in shape) or "one number"
        raise CheckpointError(f"{name}: expected {wanted_text}, found shape {array.shape}.")
    return array.astype(np.float64)

"""Flows that were written in another order, told by comparing them with flows of the same image."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Layout", "likely_layout"]

_SURE = 0.5
"""Mean cosine at which flows of two networks are taken for those of the same cells."""
_MARGIN = 0.4
"""By how much a layout must agree better than flows as they stand."""
_FEWEST = 64
"""Pixels that can tell."""


class Layout(NamedTuple):
    """Another order that flows are in.

    Attributes
    ----------
    what : str
        In words.
    remedy : str
        What gives the right order, as Python.
    cosine, as_it_stands : float
        Mean cosine with the reference, in this order and without a change.
    """

    what: str
    remedy: str
    cosine: float
    as_it_stands: float


def likely_layout(
    flow: NDArray[Any],
    inside: NDArray[np.bool_],
    reference: NDArray[Any],
    reference_inside: NDArray[np.bool_],
) -> Layout | None:
    """The order that a flow is in, where that is clearly not the one of `reference`.

    Parameters
    ----------
    flow, reference : (2, H, W) ndarray
        Of the same image, of any length.
    inside, reference_inside : (H, W) bool ndarray
        Where each has cells.

    Returns
    -------
    Layout or None
        None where the flow agrees as it stands, or too little in any order.
    """
    away = "away from the centres"
    others = [
        ("dX comes before dY", "flow = flow[::-1]", flow[::-1], inside),
        (f"the flows point {away}", "flow = -flow", -flow, inside),
        (f"dX comes before dY, and both point {away}", "flow = -flow[::-1]", -flow[::-1], inside),
    ]
    if inside.shape[0] == inside.shape[1]:
        what, text = "rows and columns are exchanged", "cellprob = cellprob.T; flow = flow"
        turned = flow.swapaxes(1, 2)
        both, remedy = f"{what}, and dX comes before dY", f"{text}[::-1].swapaxes(1, 2)"
        others.append((what, f"{text}.swapaxes(1, 2)", turned, inside.T))
        others.append((both, remedy, turned[::-1], inside.T))
    here = _cosine(flow, reference, inside & reference_inside)
    best, what, remedy = max(
        (_cosine(item, reference, mask & reference_inside), what, text)
        for what, text, item, mask in others
    )
    if best < _SURE or best < here + _MARGIN:
        return None
    return Layout(what, remedy, best, here)


def _cosine(flow: NDArray[Any], reference: NDArray[Any], inside: NDArray[np.bool_]) -> float:
    """Mean cosine of the angle between two flows; 0 where there is too little to tell."""
    one, other = (field[:, inside].astype(np.float64) for field in (flow, reference))
    lengths = np.hypot(*one) * np.hypot(*other)
    known = lengths > 0
    if int(known.sum()) < _FEWEST:
        return 0.0
    return float(np.mean((one * other).sum(axis=0)[known] / lengths[known]))

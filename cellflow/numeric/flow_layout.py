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
    flow: NDArray[Any], reference: NDArray[Any], inside: NDArray[np.bool_]
) -> Layout | None:
    """The order that a flow is in, where that is clearly not the one of `reference`.

    Parameters
    ----------
    flow, reference : (2, H, W) ndarray
        Of the same image, of any length.
    inside : (H, W) bool ndarray
        Pixels to compare.

    Returns
    -------
    Layout or None
        None where the flow agrees as it stands, or too little in any order.
    """
    if int(inside.sum()) < _FEWEST:
        return None
    turned = flow.swapaxes(1, 2) if flow.shape[1] == flow.shape[2] else None
    others = [
        ("dX comes before dY", "flow = flow[::-1]", flow[::-1]),
        ("the flows point away from the centres", "flow = -flow", -flow),
        ("dX comes before dY, and both point away from the centres", "flow = -flow[::-1]", -flow[::-1]),
    ]  # fmt: skip
    if turned is not None:
        exchanged = "rows and columns are exchanged"
        text = "flow = flow.swapaxes(1, 2); cellprob = cellprob.T"
        others += [
            (exchanged, text, turned),
            (f"{exchanged}, and dX comes before dY", f"{text}; flow = flow[::-1]", turned[::-1]),
        ]
    here = _cosine(flow, reference, inside)
    found = [(_cosine(item, reference, inside), what, text) for what, text, item in others]
    best, what, text = max(found)
    if best < _SURE or best < here + _MARGIN:
        return None
    return Layout(what, text, best, here)


def _cosine(flow: NDArray[Any], reference: NDArray[Any], inside: NDArray[np.bool_]) -> float:
    one, other = (field[:, inside].astype(np.float64) for field in (flow, reference))
    lengths = np.hypot(*one) * np.hypot(*other)
    known = lengths > 0
    return float(np.mean((one * other).sum(axis=0)[known] / lengths[known])) if known.any() else 0.0

"""Flows in colour, as Cellpose shows them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError

__all__ = ["flow_picture"]

_LOWER, _UPPER = 1, 99
"""Percentiles of the length at which a colour is black and bright."""
_FLAT = 1e-3
"""A smaller range of lengths gives a black picture."""


def flow_picture(flow: Any) -> NDArray[np.uint8]:
    """Direction of a flow as hue, its length as brightness: ``cellpose.plot.dx_to_circ``.

    Parameters
    ----------
    flow : (2, ...) ndarray
        dY, dX of an image or of a stack; lengths of a stack are compared over all of it.

    Returns
    -------
    (..., 3) uint8 ndarray
        RGB.

    Raises
    ------
    DataError
        If there are not two components.
    """
    field = np.asarray(flow, np.float32)
    if not field.ndim or len(field) != 2:
        raise DataError(f"flow: expected shape (2, ...), found {field.shape}")
    length = np.sqrt(np.sum(field**2, axis=0))
    if not length.size:
        return np.zeros((*length.shape, 3), np.uint8)
    low, high = np.percentile(length, _LOWER), np.percentile(length, _UPPER)
    share = (length - low) / (high - low) if high - low > _FLAT else np.zeros_like(length)
    half = 127.5 * np.clip(share, 0, 1)
    angle = np.arctan2(field[1], field[0]) + np.pi
    colours = [half * (np.cos(angle + turn * np.pi / 3) + 1) for turn in (0, 2, 4)]
    return np.asarray(np.clip(np.stack(colours, axis=-1), 0, 255), np.uint8)

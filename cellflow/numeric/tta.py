"""Flipped views of an image, and flows turned back.

A view is named by the axes along which it is flipped: "" (none), "y" (upside down), "x" (left to
right), "yx" (both).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["VIEWS", "flip_image", "unflip_flow"]

Axes = Literal["", "y", "x", "yx"]
VIEWS: tuple[Axes, ...] = ("", "y", "x", "yx")


def flip_image(image: Any, axes: Axes) -> NDArray[Any]:
    """Flip an image.

    Parameters
    ----------
    image : (..., H, W) ndarray
    axes : {"", "y", "x", "yx"}

    Returns
    -------
    (..., H, W) ndarray
        C-contiguous; a copy unless nothing is flipped.
    """
    image = np.asarray(image)
    up, left = _steps(axes)
    return np.ascontiguousarray(image[..., ::up, ::left])


def unflip_flow(
    flow: Any, cellprob: Any, axes: Axes
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turn the network's output for a flipped image back to the image as it was.

    Parameters
    ----------
    flow : (2, H, W) ndarray
        dY and dX; dY changes sign under "y", dX under "x".
    cellprob : (H, W) ndarray
    axes : {"", "y", "x", "yx"}
        As given to `flip_image`.

    Returns
    -------
    flow : (2, H, W) float32 ndarray
    cellprob : (H, W) float32 ndarray
        Both copies.
    """
    flow, cellprob = np.asarray(flow), np.asarray(cellprob)
    up, left = _steps(axes)
    back = np.array(flow[:, ::up, ::left], dtype=np.float32, order="C")
    back[0] *= up
    back[1] *= left
    return back, np.array(cellprob[::up, ::left], dtype=np.float32, order="C")


def _steps(axes: str) -> tuple[int, int]:
    return (-1 if "y" in axes else 1), (-1 if "x" in axes else 1)

"""Random flip, rotation, scaling and crop of an image with its labels and flows.

The recipe of ``cellpose.transforms.random_rotate_and_resize``, as a pure function of numbers drawn
from a generator that the caller owns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Crop", "Warp", "draw_warp", "warp_sample"]


@dataclass(frozen=True)
class Warp:
    """One random transformation.

    Attributes
    ----------
    flip : bool
        Whether the image is mirrored left to right first.
    angle : float
        Rotation in radians.
    scale : float
        Pixels of the crop per pixel of the image.
    shift_xy : tuple of float
        Shift of the image centre in pixels of the crop, X then Y.
    """

    flip: bool
    angle: float
    scale: float
    shift_xy: tuple[float, float]


class Crop(NamedTuple):
    """A warped sample: image ``(C, S, S)``, unit flow ``(2, S, S)``, foreground ``(S, S)``, all float32."""

    image: NDArray[np.float32]
    unit_flow: NDArray[np.float32]
    foreground: NDArray[np.float32]


def draw_warp(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    rescale: float,
    scale_range: float = 0.5,
    size: int = 224,
) -> Warp:
    """Draw a transformation for an image.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the five numbers drawn.
    shape : tuple of int
        ``(H, W)`` of the image.
    rescale : float
        Scale that brings the image's cells to the network's diameter.
    scale_range : float
        A further factor is drawn evenly from ``1 - scale_range / 2`` to ``1 + scale_range / 2``.
    size : int
        Side of the crop in pixels.
    """
    flip, turn, factor, shift_x, shift_y = rng.random(5)
    scale = ((1 - scale_range / 2) + scale_range * factor) * rescale
    height, width = shape
    # Only an image larger than the crop is shifted, and never so far that the crop leaves it unrotated.
    room_x, room_y = max(0.0, width * scale - size), max(0.0, height * scale - size)
    shift = (shift_x - 0.5) * room_x, (shift_y - 0.5) * room_y
    return Warp(bool(flip > 0.5), float(turn * 2 * np.pi), float(scale), shift)


def warp_sample(
    image: NDArray[np.float32], target: NDArray[np.float32], warp: Warp, *, size: int = 224
) -> Crop:
    """Apply a transformation to an image and its targets.

    Parameters
    ----------
    image : (C, H, W) float32 ndarray
        Normalised image.
    target : (3, H, W) float32 ndarray
        Foreground (above 0 inside cells), then unit flow dY, dX.
    warp : Warp
        From `draw_warp`.
    size : int
        Side of the crop in pixels.

    Returns
    -------
    Crop
        Outside the image everything is 0. Flow vectors turn with the image, so that they still point
        to the cell centres; interpolation makes some shorter than 1, as in Cellpose.
    """
    matrix = _affine(image.shape[1:], warp, size)
    if warp.flip:
        image, target = image[..., ::-1], target[..., ::-1]
    linear = [_warp_plane(plane, matrix, size, cv2.INTER_LINEAR) for plane in (*image, *target[1:])]
    foreground = _warp_plane(target[0], matrix, size, cv2.INTER_NEAREST) > 0.5
    d_y, d_x = linear[-2:]
    if warp.flip:
        d_x = -d_x
    sine, cosine = np.float32(np.sin(warp.angle)), np.float32(np.cos(warp.angle))
    unit_flow = np.stack((d_x * sine + d_y * cosine, d_x * cosine - d_y * sine))
    return Crop(np.stack(linear[:-2]), unit_flow, foreground.astype(np.float32))


def _affine(shape: tuple[int, ...], warp: Warp, size: int) -> NDArray[np.float64]:
    """Matrix from (x, y) of the image to (x, y) of the crop, turning around the image centre."""
    centre = np.array([shape[1] / 2, shape[0] / 2])
    moved = np.array([size / 2, size / 2]) + np.asarray(warp.shift_xy)
    sine, cosine = warp.scale * np.sin(warp.angle), warp.scale * np.cos(warp.angle)
    corner = np.array([[0, 0], [1, 0], [0, 1]])
    turned = np.array([[0, 0], [cosine, sine], [-sine, cosine]])
    source, goal = (centre + corner).astype(np.float32), (moved + turned).astype(np.float32)
    return np.asarray(cv2.getAffineTransform(source, goal), dtype=np.float64)


def _warp_plane(
    plane: NDArray[Any], matrix: NDArray[np.float64], size: int, interpolation: int
) -> NDArray[np.float32]:
    plane = np.ascontiguousarray(plane)
    return np.asarray(cv2.warpAffine(plane, matrix, (size, size), flags=interpolation))

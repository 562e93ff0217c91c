"""Random flip, rotation, scaling and crop of an image with its targets, and random brightness.

`draw_warp` and `warp_sample` are the recipe of ``cellpose.transforms.random_rotate_and_resize``.
`recompute_sample` and `jitter_intensity` go beyond it. All are pure functions of numbers drawn from a
generator that the caller owns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cellflow.numeric.targets import labels_to_flows

__all__ = [
    "Crop",
    "Warp",
    "draw_warp",
    "inside_image",
    "jitter_intensity",
    "recompute_sample",
    "warp_labels",
    "warp_sample",
]

MARGIN_DIAMETERS = 2.0
"""Margin around a crop in which cells are still seen whole, in cell diameters of the crop."""
MIN_MARGIN = 16
"""Smallest margin in pixels."""

GAIN = 1.4
"""Contrast and gamma of strength 1 lie between 1 / GAIN and GAIN."""
BRIGHTNESS = 0.15
"""Largest shift of brightness at strength 1."""
BLUR_CHANCE, BLUR_SIGMA = 0.25, 1.0
"""How often a crop is blurred, and the largest sigma in pixels at strength 1."""
NOISE_CHANCE, NOISE_SD = 0.25, 0.05
"""How often a crop gets Gaussian noise, and its largest standard deviation at strength 1."""


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
    image: NDArray[np.float32],
    target: NDArray[np.float32],
    warp: Warp,
    *,
    size: int = 224,
    soft: bool = False,
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
    soft : bool
        Whether the foreground is a probability, which is interpolated.

    Returns
    -------
    Crop
        Outside the image everything is 0. Flow vectors turn with the image, so that they still point
        to the cell centres; interpolation makes some shorter than 1, as in Cellpose.
    """
    d_y, d_x = _warp_planes(target[1:], warp, size, cv2.INTER_LINEAR)
    if warp.flip:
        d_x = -d_x
    sine, cosine = np.float32(np.sin(warp.angle)), np.float32(np.cos(warp.angle))
    unit_flow = np.stack((d_x * sine + d_y * cosine, d_x * cosine - d_y * sine))
    if soft:
        foreground = _warp_planes(target[:1], warp, size, cv2.INTER_LINEAR)[0]
    else:
        foreground = warp_labels(target[0], warp, size=size) > 0.5
    pixels = _warp_planes(image, warp, size, cv2.INTER_LINEAR)
    return Crop(pixels, unit_flow, foreground.astype(np.float32))


def warp_labels(labels: NDArray[np.float32], warp: Warp, *, size: int = 224) -> NDArray[np.float32]:
    """Apply a transformation to labels ``(H, W)``: those of the crop, ``(size, size)``; 0 outside."""
    return np.asarray(_warp_planes(labels[np.newaxis], warp, size, cv2.INTER_NEAREST)[0])


def recompute_sample(
    image: NDArray[np.float32],
    labels: NDArray[np.float32],
    warp: Warp,
    *,
    diameter: float,
    size: int = 224,
) -> Crop:
    """Apply a transformation to an image and its labels, and compute the flows of the result.

    Labels are warped onto a canvas that is larger than the crop by two cell diameters on each side,
    but by no more than half the crop. A cell that the crop cuts keeps its true centre as long as it
    lies on the canvas.

    Parameters
    ----------
    image : (C, H, W) float32 ndarray
        Normalised image.
    labels : (H, W) float32 ndarray
        Whole numbers: 0 background, then cells.
    warp : Warp
        From `draw_warp`.
    diameter : float
        Cell diameter in pixels of the image.
    size : int
        Side of the crop in pixels.

    Returns
    -------
    Crop
        As `warp_sample` gives it, except that the flow has length 1 in cells (or 0, where
        `labels_to_flows` says so) and 0 in the background.
    """
    margin = _margin(diameter * warp.scale, size)
    middle = slice(margin, margin + size)
    warped = _warp_planes(labels[np.newaxis], warp, size + 2 * margin, cv2.INTER_NEAREST)
    canvas = warped[0].astype(np.int32)
    seen = np.zeros(int(canvas.max()) + 1, dtype=np.int32)
    seen[canvas[middle, middle]] = 1
    canvas *= seen[canvas]  # cells outside the crop would cost time and change nothing
    unit_flow = np.ascontiguousarray(labels_to_flows(canvas)[:, middle, middle])
    foreground = (canvas[middle, middle] > 0).astype(np.float32)
    pixels = _warp_planes(image, warp, size, cv2.INTER_LINEAR)
    return Crop(pixels, unit_flow, foreground)


def _margin(diameter: float, size: int) -> int:
    """Pixels around a crop in which cells are still seen whole."""
    return max(MIN_MARGIN, min(round(MARGIN_DIAMETERS * diameter), size // 2))


def inside_image(shape: tuple[int, int], warp: Warp, *, size: int = 224) -> NDArray[np.bool_]:
    """Which pixels of the crop come from the image, ``(S, S)``; the others are padding.

    Parameters
    ----------
    shape : tuple of int
        ``(H, W)`` of the image.
    warp : Warp
        From `draw_warp`.
    size : int
        Side of the crop in pixels.
    """
    ones = np.ones((1, *shape), dtype=np.uint8)
    return np.asarray(_warp_planes(ones, warp, size, cv2.INTER_NEAREST)[0], dtype=np.bool_)


def jitter_intensity(
    image: NDArray[np.float32],
    rng: np.random.Generator,
    *,
    strength: float,
    inside: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Change brightness, contrast and gamma of an image at random, and sometimes blur it or add noise.

    In this order: one crop in four is blurred, with a sigma of up to 1 pixel; each channel gets a gamma
    between 1 / 1.4 and 1.4 on its values from 0 to 1 (others stay), a contrast around its mean in the
    same range, and a shift of brightness of up to 0.15; one crop in four gets Gaussian noise with a
    standard deviation of up to 0.05. These are the limits at strength 1.

    Parameters
    ----------
    image : (C, S, S) float32 ndarray
        Normalised image: most values lie between 0 and 1.
    rng : numpy.random.Generator
        Source of all that is drawn; with a strength of 0 nothing is.
    strength : float
        Factor on every limit (for contrast and gamma on its logarithm); 0 returns the image itself.
    inside : (S, S) bool ndarray, optional
        Pixels that may change; without it all.

    Returns
    -------
    (C, S, S) float32 ndarray
        A new image. A channel that is 0 everywhere stays so.
    """
    if strength <= 0:
        return image
    jitter = _draw_jitter(rng, len(image), strength)
    everywhere = np.ones(image.shape[1:], dtype=np.bool_)
    touched = image.any(axis=(1, 2), keepdims=True) & (everywhere if inside is None else inside)
    changed = _blur(image, jitter.blur_sigma)
    middle = np.clip(changed, 0, 1)
    changed = changed - middle + middle**jitter.gamma
    count = touched.sum(axis=(1, 2), keepdims=True, dtype=np.float32)
    mean = np.sum(changed, axis=(1, 2), keepdims=True, where=touched) / np.maximum(count, 1)
    changed = (changed - mean) * jitter.contrast + (mean + jitter.brightness)
    if jitter.noise_sd > 0:
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        changed += np.float32(jitter.noise_sd) * noise
    return np.where(touched, changed, image)


class _Jitter(NamedTuple):
    """Numbers drawn for one crop; those of ``(C, 1, 1)`` are per channel, and 0 means no blur or noise."""

    contrast: NDArray[np.float32]
    gamma: NDArray[np.float32]
    brightness: NDArray[np.float32]
    blur_sigma: float
    noise_sd: float


def _draw_jitter(rng: np.random.Generator, channels: int, strength: float) -> _Jitter:
    drawn = strength * rng.uniform(-1, 1, (3, channels, 1, 1)).astype(np.float32)
    is_blurred, sigma, is_noisy, sd = rng.random(4)
    return _Jitter(
        contrast=np.float32(GAIN) ** drawn[0],
        gamma=np.float32(GAIN) ** drawn[1],
        brightness=np.float32(BRIGHTNESS) * drawn[2],
        blur_sigma=strength * BLUR_SIGMA * sigma if is_blurred < BLUR_CHANCE else 0.0,
        noise_sd=strength * NOISE_SD * sd if is_noisy < NOISE_CHANCE else 0.0,
    )


def _blur(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    if sigma <= 0:
        return image
    return np.stack([cv2.GaussianBlur(plane, (0, 0), sigma) for plane in image])


def _affine(shape: tuple[int, ...], warp: Warp, size: int) -> NDArray[np.float64]:
    """Matrix from (x, y) of the image to (x, y) of the crop, turning around the image centre."""
    centre = np.array([shape[1] / 2, shape[0] / 2])
    moved = np.array([size / 2, size / 2]) + np.asarray(warp.shift_xy)
    sine, cosine = warp.scale * np.sin(warp.angle), warp.scale * np.cos(warp.angle)
    corner = np.array([[0, 0], [1, 0], [0, 1]])
    turned = np.array([[0, 0], [cosine, sine], [-sine, cosine]])
    source, goal = (centre + corner).astype(np.float32), (moved + turned).astype(np.float32)
    return np.asarray(cv2.getAffineTransform(source, goal), dtype=np.float64)


def _warp_planes(planes: NDArray[Any], warp: Warp, size: int, interpolation: int) -> NDArray[Any]:
    """Warp planes ``(N, H, W)`` to ``(N, size, size)`` around the middle of the crop; 0 outside."""
    matrix = _affine(planes.shape[1:], warp, size)
    warped = []
    for plane in planes:
        source = cv2.flip(plane, 1) if warp.flip else np.ascontiguousarray(plane)
        warped.append(cv2.warpAffine(source, matrix, (size, size), flags=interpolation))
    return np.stack(warped)

"""What the microscope and the well add: halo, uneven light, debris, blur and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellflow.synthetic.cells import FloatImage, bump, grid, spots, windows

__all__ = ["Well", "add_halo", "debris", "expose", "make_well"]


@dataclass(frozen=True, eq=False)
class Well:
    """What the images of one group share."""

    light: FloatImage
    background: FloatImage
    contrast: float
    blur: float
    noise: float
    debris: float


def add_halo(
    light: FloatImage, labels: NDArray[np.int32], strength: float, width: float
) -> FloatImage:
    """Bright seam outside of every cell and between touching ones, shade-off inside large ones."""
    solid = (labels > 0).astype(np.float32)
    near = ndimage.gaussian_filter(solid, width)
    far = ndimage.gaussian_filter(solid, 4 * width)
    halo = 2.0 * near * (1 - solid) + 0.3 * (near - far) * (1 - 2 * solid)
    seam = np.zeros_like(solid)
    for here, there in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
        seam[here] += (labels[here] != labels[there]) & (labels[here] > 0) & (labels[there] > 0)
    halo += 0.55 * ndimage.gaussian_filter(np.minimum(seam, 1), 0.5)
    return np.asarray(light + strength * halo, dtype=np.float32)


def make_well(shape: tuple[int, int], rng: np.random.Generator) -> Well:
    """Light, dirt on the optics, focus and noise of one well."""
    y = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    tilt_y, tilt_x = rng.normal(0, 0.10, 2)
    middle_y, middle_x = rng.uniform(-0.6, 0.6, 2)
    vignette = rng.uniform(0.08, 0.28)
    light = 1 + tilt_y * y + tilt_x * x
    light = light - vignette * ((y - middle_y) ** 2 + (x - middle_x) ** 2) / 2
    sigma = min(shape) / 10
    clouds = spots(shape, 0.025, sigma, rng) + spots(shape, 0.015, 2.2, rng)
    return Well(
        light=(light * rng.uniform(0.85, 1.15)).astype(np.float32),
        background=clouds,
        contrast=rng.uniform(0.8, 1.15),
        blur=rng.uniform(0.6, 1.0),
        noise=rng.uniform(0.012, 0.026),
        debris=rng.uniform(0.5, 1.6),
    )


def debris(shape: tuple[int, int], amount: float, rng: np.random.Generator) -> FloatImage:
    """Bright specks with a dark ring, crumbs, and dirt that is out of focus; not labelled."""
    light = np.zeros(shape, np.float32)
    for _ in range(rng.poisson(14 * amount * light.size / 256**2)):
        radius = rng.uniform(0.9, 3.2)
        y, x = grid(3 * radius)
        r = np.hypot(y, x * rng.uniform(0.7, 1.0))
        strength = rng.uniform(0.25, 0.9) * rng.choice([1.0, 1.0, -0.6])
        speck = strength * (bump(r, radius) - 0.45 * bump(r - 1.9 * radius, 0.6 * radius))
        _add(light, speck, rng)
    for _ in range(rng.poisson(1.5 * amount * light.size / 256**2)):
        radius = rng.uniform(5, 14)
        y, x = grid(1.8 * radius)
        r = np.hypot(y, x)
        ring = rng.normal(0, 0.05) * bump(r - radius, 0.25 * radius) + 0.03 * bump(r, 0.6 * radius)
        _add(light, ring, rng)
    return light


def _add(light: FloatImage, patch: FloatImage, rng: np.random.Generator) -> None:
    centre = (rng.uniform(0, light.shape[0]), rng.uniform(0, light.shape[1]))
    there, here = windows(patch.shape, centre, light.shape)
    light[there] += patch[here]


def expose(light: FloatImage, well: Well, rng: np.random.Generator) -> NDArray[np.uint8]:
    """From relative brightness to grey values of a camera."""
    scene = ndimage.gaussian_filter(light * np.float32(well.contrast), well.blur)
    scene = (1 + scene + well.background) * well.light
    scene += np.float32(well.noise) * rng.standard_normal(scene.shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(118 * scene), 0, 255), dtype=np.uint8)

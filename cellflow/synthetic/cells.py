"""Single cells as phase contrast shows them, each in a small window of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["DRAW", "Box", "Cell", "FloatImage", "bump", "grid", "spots", "windows"]

FloatImage = NDArray[np.float32]
Box = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell in its own small window: where it is and how it changes the light."""

    inside: NDArray[np.bool_]
    light: FloatImage  # change of brightness, 0 outside
    angle: float
    reach: float  # half of its length along `angle`
    width: float  # half of its length across


def windows(
    window: tuple[int, ...], centre: tuple[float, float], shape: tuple[int, ...]
) -> tuple[Box, Box]:
    """Slices of an image and of a window put at `centre`, cut at the border of the image."""
    there, here = [], []
    for size, middle, limit in zip(window, centre, shape, strict=True):
        start = round(middle) - size // 2
        low, high = max(start, 0), max(min(start + size, limit), 0)
        there.append(slice(low, max(high, low)))
        here.append(slice(low - start, max(high, low) - start))
    return (there[0], there[1]), (here[0], here[1])


def grid(half: float) -> tuple[FloatImage, FloatImage]:
    """Coordinates (y, x) of a square window around 0."""
    axis = np.arange(-int(half) - 2, int(half) + 3, dtype=np.float32)
    return axis[:, None], axis[None, :]


def _outline(
    theta: FloatImage, wobble: float, orders: tuple[int, int], rng: np.random.Generator
) -> FloatImage:
    """Relative radius of an irregular outline as a function of the angle, about 1."""
    relative = np.ones_like(theta)
    for order in range(*orders):
        amount = np.float32(wobble * rng.normal() / order**0.5)
        relative += amount * np.cos(order * theta + np.float32(rng.uniform(0, 2 * np.pi)))
    return np.clip(relative, 0.55, 1.6)


def bump(distance: FloatImage, width: float) -> FloatImage:
    """A Gaussian bump of height 1 at distance 0."""
    return np.asarray(np.exp(-((distance / np.float32(width)) ** 2)), dtype=np.float32)


def _soft(r: FloatImage, rim: FloatImage) -> FloatImage:
    """Fade over the last pixel before the outline, so that edges are not jagged."""
    return np.asarray(np.clip((1 - r) * rim, 0, 1), dtype=np.float32)


def spots(
    shape: tuple[int, ...], amount: float, sigma: float, rng: np.random.Generator
) -> FloatImage:
    """Fine texture of unit strength times `amount`."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
    return np.asarray(noise * np.float32(amount / max(float(noise.std()), 1e-6)), dtype=np.float32)


def _draw_round(radius: float, direction: float, rng: np.random.Generator) -> Cell:
    """Compact, thick cell: bright core (it works as a lens), dark rim."""
    y, x = grid(1.5 * radius)
    stretch = rng.uniform(1.0, 1.3)
    angle = rng.uniform(0, np.pi)
    u = (x * np.cos(angle) + y * np.sin(angle)) / stretch**0.5
    v = (y * np.cos(angle) - x * np.sin(angle)) * stretch**0.5
    rim = radius * _outline(np.arctan2(v, u).astype(np.float32), 0.035, (2, 5), rng)
    r = (np.hypot(u, v) / rim).astype(np.float32)
    shift = np.hypot(u - 0.2 * radius * rng.normal(), v - 0.2 * radius * rng.normal()) / radius
    core = rng.choice([0.30, 0.45, 0.9]) * rng.uniform(0.8, 1.2)
    light = core * bump(shift.astype(np.float32), 0.55) - rng.uniform(0.42, 0.58) * bump(
        r - 0.9, 0.22
    )
    light += spots(light.shape, 0.06, 0.8, rng)
    return Cell(r < 1, light * _soft(r, rim), angle, radius * stretch**0.5, radius / stretch**0.5)


def _draw_spindle(radius: float, direction: float, rng: np.random.Generator) -> Cell:
    """Thin bent cell, dark along its sides, with an oval nucleus in the middle."""
    angle = direction + 0.35 * rng.normal()
    length = radius * rng.uniform(2.0, 2.9)
    width = 1.18 * radius**2 / length  # a parabola of this half width holds the area of the disc
    y, x = grid(length)
    u = x * np.cos(angle) + y * np.sin(angle)
    bend = rng.normal() * 0.22 / length
    v = y * np.cos(angle) - x * np.sin(angle) - bend * (u**2 - 0.3 * length**2)
    skew = 1 + 0.25 * rng.uniform(-1, 1) * u / length
    profile = width * np.clip(1 - (u / length) ** 2, 0.02, None) * skew
    r = (np.abs(v) / profile).astype(np.float32)
    inside = (r < 1) & (np.abs(u) < 0.97 * length)
    nucleus = bump((np.hypot(u / (0.30 * length), v / (0.75 * width))).astype(np.float32), 0.8)
    light = -rng.uniform(0.22, 0.42) * (0.7 + 0.3 * np.clip(r, 0, 1) ** 2)
    light = (light + rng.uniform(0.10, 0.35) * nucleus).astype(np.float32)
    light += spots(light.shape, 0.04, 0.9, rng)
    return Cell(inside, light * _soft(r, profile), angle, length, width)


def _draw_spread(radius: float, direction: float, rng: np.random.Generator) -> Cell:
    """Flat irregular cell: thin dark edge, grey body, granules around a clear nucleus."""
    y, x = grid(1.9 * radius)
    stretch = rng.uniform(1.0, 1.7)
    angle = rng.uniform(0, np.pi)
    u = (x * np.cos(angle) + y * np.sin(angle)) / stretch**0.5
    v = (y * np.cos(angle) - x * np.sin(angle)) * stretch**0.5
    rim = radius * _outline(np.arctan2(v, u).astype(np.float32), 0.11, (2, 7), rng)
    r = (np.hypot(u, v) / rim).astype(np.float32)
    dy, dx = 0.15 * radius * rng.normal(size=2)
    nucleus = np.hypot(u - dx, v - dy) / (0.36 * radius * rng.uniform(0.9, 1.15))
    around = bump((nucleus - 1.15).astype(np.float32), 0.6)
    light = -rng.uniform(0.14, 0.22) - 0.10 * bump(r - 0.93, 0.12)
    light += 0.16 * bump(nucleus.astype(np.float32), 0.85)
    light += -0.13 * bump((nucleus - 1).astype(np.float32), 0.13)
    light += (0.025 + 0.07 * around) * spots(light.shape, 1.0, 0.9, rng)
    for _ in range(rng.integers(1, 4)):  # nucleoli
        cy, cx = 0.15 * radius * rng.normal(size=2)
        light -= 0.30 * bump(np.hypot(u - dx - cx, v - dy - cy).astype(np.float32), 1.7)
    light = (light * _soft(r, rim)).astype(np.float32)
    return Cell(r < 1, light, angle, radius * stretch**0.5, radius / stretch**0.5)


DRAW: dict[str, Callable[[float, float, np.random.Generator], Cell]] = {
    "round": _draw_round,
    "spindle": _draw_spindle,
    "spread": _draw_spread,
}

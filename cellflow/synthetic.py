"""Phase-contrast-like images of made-up cells with known labels, for the demo and the tests.

Three cell types that differ the way cultures differ under phase contrast: ``round`` (compact, bright
core, dark rim, strong halo), ``spindle`` (thin, aligned with its neighbours) and ``spread`` (large,
flat, irregular, with a nucleus and granules). Cells touch but never overlap; debris, uneven light,
blur and noise are added on top. Everything follows from the seed: same arguments, same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["CELL_TYPES", "SyntheticImage", "synthetic_dataset", "synthetic_image"]

CELL_TYPES = ("round", "spindle", "spread")

FloatImage = NDArray[np.float32]
Box = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class SyntheticImage:
    """One generated image with its truth.

    Attributes
    ----------
    id : str
        Unique in its dataset and safe as a file name.
    image : (H, W) uint8 ndarray
    labels : (H, W) int32 ndarray
        0 background, 1..n without gaps; every cell is one connected part.
    cell_type : str
        One of `CELL_TYPES`.
    group : str
        Images of one group share their light, background and focus, like fields of one well.
    """

    id: str
    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    cell_type: str
    group: str


@dataclass(frozen=True)
class _Culture:
    """How one cell type grows: sizes in pixels, amounts as fractions."""

    radius: tuple[float, float]  # of a disc of the same area, about
    coverage: tuple[float, float]  # part of the image under cells
    touching: float  # part of the cells that are put beside another one
    halo: float  # strength of the bright halo outside
    halo_width: float


_CULTURES = {
    "round": _Culture((7.5, 10.5), (0.12, 0.30), 0.65, 0.62, 2.6),
    "spindle": _Culture((8.5, 12.0), (0.16, 0.30), 0.50, 0.75, 1.8),
    "spread": _Culture((13.5, 17.5), (0.28, 0.48), 0.70, 0.48, 2.2),
}


@dataclass(frozen=True, eq=False)
class _Cell:
    """One cell in its own small window: where it is and how it changes the light."""

    inside: NDArray[np.bool_]
    light: FloatImage  # change of brightness, 0 outside
    angle: float
    reach: float  # half of its length along `angle`
    width: float  # half of its length across


@dataclass(frozen=True, eq=False)
class _Well:
    """What the images of one group share."""

    light: FloatImage
    background: FloatImage
    contrast: float
    blur: float
    noise: float
    debris: float


def synthetic_image(
    kind: str, *, shape: tuple[int, int] = (256, 256), seed: int = 0, group_seed: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Make one image of one cell type.

    Parameters
    ----------
    kind : {"round", "spindle", "spread"}
        Cell type.
    shape : tuple of int
        ``(H, W)``, at least 64 pixels a side.
    seed : int
        Decides the cells.
    group_seed : int, optional
        Decides light, background, focus and noise; images with the same one look as if they came
        from one well. By default it is `seed`.

    Returns
    -------
    image : (H, W) uint8 ndarray
    labels : (H, W) int32 ndarray
        0 background, 1..n without gaps.

    Raises
    ------
    ValueError
        If `kind` is not a known cell type or the image is too small to hold cells.
    """
    if kind not in _CULTURES:
        raise ValueError(f"kind: expected one of {', '.join(CELL_TYPES)}, found {kind!r}")
    if min(shape) < 64:
        raise ValueError(f"shape: expected at least 64 pixels a side, found {shape}")
    culture = _CULTURES[kind]
    well = _make_well(shape, np.random.default_rng([seed if group_seed is None else group_seed, 1]))
    rng = np.random.default_rng([seed, 2, CELL_TYPES.index(kind)])
    labels, light = _grow(kind, culture, shape, rng)
    light = _add_halo(light, labels, culture)
    light += _debris(shape, well.debris, rng)
    return _expose(light, well, rng), labels


def synthetic_dataset(
    n_images: int, *, shape: tuple[int, int] = (256, 256), seed: int = 0, per_group: int = 2
) -> Iterator[SyntheticImage]:
    """Make a small dataset of all cell types, one image after another.

    Parameters
    ----------
    n_images : int
        How many images; the cell types take turns, group by group.
    shape : tuple of int
        ``(H, W)`` of every image.
    seed : int
        Decides everything.
    per_group : int
        Images per group (well). A group holds one cell type.

    Yields
    ------
    SyntheticImage
    """
    for index in range(n_images):
        well = index // per_group
        kind = CELL_TYPES[well % len(CELL_TYPES)]
        image_seed, well_seed = (
            int(np.random.default_rng([seed, role, number]).integers(2**62))
            for role, number in ((0, index), (1, well))
        )
        image, labels = synthetic_image(kind, shape=shape, seed=image_seed, group_seed=well_seed)
        yield SyntheticImage(
            id=f"{kind}_{well:03d}_{index % per_group}",
            image=image,
            labels=labels,
            cell_type=kind,
            group=f"well_{well:03d}",
        )


# ---------------------------------------------------------------------------------------- the cells


def _grow(
    kind: str, culture: _Culture, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.int32], FloatImage]:
    """Put cells down until the image is as full as this culture should be."""
    labels = np.zeros(shape, np.int32)
    light = np.zeros(shape, np.float32)
    goal = rng.uniform(*culture.coverage) * labels.size
    placed: list[tuple[float, float, _Cell]] = []
    direction = rng.uniform(0, np.pi)  # spindle cells of one field lie roughly parallel
    covered = 0
    for _ in range(int(goal / culture.radius[0] ** 2) + 10):
        if covered >= goal:
            break
        cell = _DRAW[kind](rng.uniform(*culture.radius), direction, rng)
        for _ in range(4):
            y, x = _choose_place(cell, placed, culture.touching, shape, rng)
            taken = _place(cell, (y, x), labels, light, placed)
            covered += taken
            if taken:
                break
    return labels, light


def _choose_place(
    cell: _Cell,
    placed: list[tuple[float, float, _Cell]],
    touching: float,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Choose a centre: anywhere, or right beside a cell that is already there."""
    y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
    if not placed or rng.random() > touching:
        return y, x
    y, x, other = placed[rng.integers(len(placed))]
    angle = rng.uniform(0, 2 * np.pi)
    distance = 0.97 * (_radius_towards(cell, angle) + _radius_towards(other, angle))
    return y + distance * np.sin(angle), x + distance * np.cos(angle)


def _radius_towards(cell: _Cell, angle: float) -> float:
    """Radius of the cell's ellipse in one direction."""
    along, across = np.cos(angle - cell.angle) / cell.reach, np.sin(angle - cell.angle) / cell.width
    return float(1 / np.hypot(along, across))


def _place(
    cell: _Cell,
    centre: tuple[float, float],
    labels: NDArray[np.int32],
    light: FloatImage,
    placed: list[tuple[float, float, _Cell]],
) -> int:
    """Put a cell down if it hardly overlaps another; return the pixels it took."""
    there, here = _windows(cell.inside.shape, centre, labels.shape)
    inside = cell.inside[here]
    area = int(inside.sum())
    if area < 0.35 * cell.inside.sum():  # mostly outside of the image
        return 0
    free = inside & (labels[there] == 0)
    taken = area - int(free.sum())
    if taken > 0.07 * area:
        return 0
    if taken or area < cell.inside.sum():
        free = _largest_part(free)
    labels[there][free] = len(placed) + 1
    light[there][free] = cell.light[here][free]
    placed.append((*centre, cell))
    return int(free.sum())


def _windows(
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


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    return np.asarray(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))


def _grid(half: float) -> tuple[FloatImage, FloatImage]:
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


def _bump(distance: FloatImage, width: float) -> FloatImage:
    return np.asarray(np.exp(-((distance / np.float32(width)) ** 2)), dtype=np.float32)


def _soft(r: FloatImage, rim: FloatImage) -> FloatImage:
    """Fade over the last pixel before the outline, so that edges are not jagged."""
    return np.asarray(np.clip((1 - r) * rim, 0, 1), dtype=np.float32)


def _spots(
    shape: tuple[int, ...], amount: float, sigma: float, rng: np.random.Generator
) -> FloatImage:
    """Fine texture of unit strength times `amount`."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
    return np.asarray(noise * np.float32(amount / max(float(noise.std()), 1e-6)), dtype=np.float32)


def _draw_round(radius: float, direction: float, rng: np.random.Generator) -> _Cell:
    """Compact, thick cell: bright core (it works as a lens), dark rim."""
    y, x = _grid(1.5 * radius)
    stretch = rng.uniform(1.0, 1.3)
    angle = rng.uniform(0, np.pi)
    u = (x * np.cos(angle) + y * np.sin(angle)) / stretch**0.5
    v = (y * np.cos(angle) - x * np.sin(angle)) * stretch**0.5
    rim = radius * _outline(np.arctan2(v, u).astype(np.float32), 0.035, (2, 5), rng)
    r = (np.hypot(u, v) / rim).astype(np.float32)
    shift = np.hypot(u - 0.2 * radius * rng.normal(), v - 0.2 * radius * rng.normal()) / radius
    core = rng.choice([0.30, 0.45, 0.9]) * rng.uniform(0.8, 1.2)
    light = core * _bump(shift.astype(np.float32), 0.55) - rng.uniform(0.42, 0.58) * _bump(
        r - 0.9, 0.22
    )
    light += _spots(light.shape, 0.06, 0.8, rng)
    return _Cell(r < 1, light * _soft(r, rim), angle, radius * stretch**0.5, radius / stretch**0.5)


def _draw_spindle(radius: float, direction: float, rng: np.random.Generator) -> _Cell:
    """Thin bent cell, dark along its sides, with an oval nucleus in the middle."""
    angle = direction + 0.35 * rng.normal()
    length = radius * rng.uniform(2.0, 2.9)
    width = 1.18 * radius**2 / length  # a parabola of this half width holds the area of the disc
    y, x = _grid(length)
    u = x * np.cos(angle) + y * np.sin(angle)
    bend = rng.normal() * 0.22 / length
    v = y * np.cos(angle) - x * np.sin(angle) - bend * (u**2 - 0.3 * length**2)
    skew = 1 + 0.25 * rng.uniform(-1, 1) * u / length
    profile = width * np.clip(1 - (u / length) ** 2, 0.02, None) * skew
    r = (np.abs(v) / profile).astype(np.float32)
    inside = (r < 1) & (np.abs(u) < 0.97 * length)
    nucleus = _bump((np.hypot(u / (0.30 * length), v / (0.75 * width))).astype(np.float32), 0.8)
    light = -rng.uniform(0.22, 0.42) * (0.7 + 0.3 * np.clip(r, 0, 1) ** 2)
    light = (light + rng.uniform(0.10, 0.35) * nucleus).astype(np.float32)
    light += _spots(light.shape, 0.04, 0.9, rng)
    return _Cell(inside, light * _soft(r, profile), angle, length, width)


def _draw_spread(radius: float, direction: float, rng: np.random.Generator) -> _Cell:
    """Flat irregular cell: thin dark edge, grey body, granules around a clear nucleus."""
    y, x = _grid(1.9 * radius)
    stretch = rng.uniform(1.0, 1.7)
    angle = rng.uniform(0, np.pi)
    u = (x * np.cos(angle) + y * np.sin(angle)) / stretch**0.5
    v = (y * np.cos(angle) - x * np.sin(angle)) * stretch**0.5
    rim = radius * _outline(np.arctan2(v, u).astype(np.float32), 0.11, (2, 7), rng)
    r = (np.hypot(u, v) / rim).astype(np.float32)
    dy, dx = 0.15 * radius * rng.normal(size=2)
    nucleus = np.hypot(u - dx, v - dy) / (0.36 * radius * rng.uniform(0.9, 1.15))
    around = _bump((nucleus - 1.15).astype(np.float32), 0.6)
    light = -rng.uniform(0.14, 0.22) - 0.10 * _bump(r - 0.93, 0.12)
    light += 0.16 * _bump(nucleus.astype(np.float32), 0.85)
    light += -0.13 * _bump((nucleus - 1).astype(np.float32), 0.13)
    light += (0.025 + 0.07 * around) * _spots(light.shape, 1.0, 0.9, rng)
    for _ in range(rng.integers(1, 4)):  # nucleoli
        cy, cx = 0.15 * radius * rng.normal(size=2)
        light -= 0.30 * _bump(np.hypot(u - dx - cx, v - dy - cy).astype(np.float32), 1.7)
    light = (light * _soft(r, rim)).astype(np.float32)
    return _Cell(r < 1, light, angle, radius * stretch**0.5, radius / stretch**0.5)


_DRAW: dict[str, Callable[[float, float, np.random.Generator], _Cell]] = {
    "round": _draw_round,
    "spindle": _draw_spindle,
    "spread": _draw_spread,
}


# ------------------------------------------------------------------------------------ the microscope


def _add_halo(light: FloatImage, labels: NDArray[np.int32], culture: _Culture) -> FloatImage:
    """Bright seam outside of every cell and between touching ones, shade-off inside large ones."""
    solid = (labels > 0).astype(np.float32)
    near = ndimage.gaussian_filter(solid, culture.halo_width)
    far = ndimage.gaussian_filter(solid, 4 * culture.halo_width)
    halo = 2.0 * near * (1 - solid) + 0.3 * (near - far) * (1 - 2 * solid)
    seam = np.zeros_like(solid)
    for here, there in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
        seam[here] += (labels[here] != labels[there]) & (labels[here] > 0) & (labels[there] > 0)
    halo += 0.55 * ndimage.gaussian_filter(np.minimum(seam, 1), 0.5)
    return np.asarray(light + culture.halo * halo, dtype=np.float32)


def _make_well(shape: tuple[int, int], rng: np.random.Generator) -> _Well:
    """Light, dirt on the optics, focus and noise of one well."""
    y = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    tilt_y, tilt_x = rng.normal(0, 0.10, 2)
    middle_y, middle_x = rng.uniform(-0.6, 0.6, 2)
    vignette = rng.uniform(0.08, 0.28)
    light = 1 + tilt_y * y + tilt_x * x
    light = light - vignette * ((y - middle_y) ** 2 + (x - middle_x) ** 2) / 2
    sigma = min(shape) / 10
    clouds = _spots(shape, 0.025, sigma, rng) + _spots(shape, 0.015, 2.2, rng)
    return _Well(
        light=(light * rng.uniform(0.85, 1.15)).astype(np.float32),
        background=clouds,
        contrast=rng.uniform(0.8, 1.15),
        blur=rng.uniform(0.6, 1.0),
        noise=rng.uniform(0.012, 0.026),
        debris=rng.uniform(0.5, 1.6),
    )


def _debris(shape: tuple[int, int], amount: float, rng: np.random.Generator) -> FloatImage:
    """Bright specks with a dark ring, crumbs, and dirt that is out of focus; not labelled."""
    light = np.zeros(shape, np.float32)
    for _ in range(rng.poisson(14 * amount * light.size / 256**2)):
        radius = rng.uniform(0.9, 3.2)
        y, x = _grid(3 * radius)
        r = np.hypot(y, x * rng.uniform(0.7, 1.0))
        strength = rng.uniform(0.25, 0.9) * rng.choice([1.0, 1.0, -0.6])
        speck = strength * (_bump(r, radius) - 0.45 * _bump(r - 1.9 * radius, 0.6 * radius))
        _add(light, speck, rng)
    for _ in range(rng.poisson(1.5 * amount * light.size / 256**2)):
        radius = rng.uniform(5, 14)
        y, x = _grid(1.8 * radius)
        r = np.hypot(y, x)
        ring = rng.normal(0, 0.05) * _bump(r - radius, 0.25 * radius) + 0.03 * _bump(
            r, 0.6 * radius
        )
        _add(light, ring, rng)
    return light


def _add(light: FloatImage, patch: FloatImage, rng: np.random.Generator) -> None:
    centre = (rng.uniform(0, light.shape[0]), rng.uniform(0, light.shape[1]))
    there, here = _windows(patch.shape, centre, light.shape)
    light[there] += patch[here]


def _expose(light: FloatImage, well: _Well, rng: np.random.Generator) -> NDArray[np.uint8]:
    """From relative brightness to grey values of a camera."""
    scene = ndimage.gaussian_filter(light * np.float32(well.contrast), well.blur)
    scene = (1 + scene + well.background) * well.light
    scene += np.float32(well.noise) * rng.standard_normal(scene.shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(118 * scene), 0, 255), dtype=np.uint8)

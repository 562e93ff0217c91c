"""Phase-contrast-like images of made-up cells with known labels, for the demo and the tests.

Three cell types that differ the way cultures differ under phase contrast: ``round`` (compact, bright
core, dark rim, strong halo), ``spindle`` (thin, aligned with its neighbours) and ``spread`` (large,
flat, irregular, with a nucleus and granules). Cells touch but never overlap; debris, uneven light,
blur and noise are added on top. Everything follows from the seed: same arguments, same pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellflow.synthetic.cells import DRAW, Cell, FloatImage, windows
from cellflow.synthetic.microscope import add_halo, debris, expose, make_well

__all__ = ["CELL_TYPES", "SyntheticImage", "synthetic_dataset", "synthetic_image"]

CELL_TYPES = ("round", "spindle", "spread")


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
    well = make_well(shape, np.random.default_rng([seed if group_seed is None else group_seed, 1]))
    rng = np.random.default_rng([seed, 2, CELL_TYPES.index(kind)])
    labels, light = _grow(kind, culture, shape, rng)
    light = add_halo(light, labels, culture.halo, culture.halo_width)
    light += debris(shape, well.debris, rng)
    return expose(light, well, rng), labels


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


def _grow(
    kind: str, culture: _Culture, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.int32], FloatImage]:
    """Put cells down until the image is as full as this culture should be."""
    labels = np.zeros(shape, np.int32)
    light = np.zeros(shape, np.float32)
    goal = rng.uniform(*culture.coverage) * labels.size
    placed: list[tuple[float, float, Cell]] = []
    direction = rng.uniform(0, np.pi)  # spindle cells of one field lie roughly parallel
    covered = 0
    for _ in range(int(goal / culture.radius[0] ** 2) + 10):
        if covered >= goal:
            break
        cell = DRAW[kind](rng.uniform(*culture.radius), direction, rng)
        for _ in range(4):
            y, x = _choose_place(cell, placed, culture.touching, shape, rng)
            taken = _place(cell, (y, x), labels, light, placed)
            covered += taken
            if taken:
                break
    return labels, light


def _choose_place(
    cell: Cell,
    placed: list[tuple[float, float, Cell]],
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


def _radius_towards(cell: Cell, angle: float) -> float:
    """Radius of the cell's ellipse in one direction."""
    along, across = np.cos(angle - cell.angle) / cell.reach, np.sin(angle - cell.angle) / cell.width
    return float(1 / np.hypot(along, across))


def _place(
    cell: Cell,
    centre: tuple[float, float],
    labels: NDArray[np.int32],
    light: FloatImage,
    placed: list[tuple[float, float, Cell]],
) -> int:
    """Put a cell down if it hardly overlaps another; return the pixels it took."""
    there, here = windows(cell.inside.shape, centre, labels.shape)
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


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    return np.asarray(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))

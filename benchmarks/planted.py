"""Wrong annotations planted in right ones: dropped, merged, split and shifted cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellflow.rng import generator

KINDS = ("dropped", "merged", "split", "shifted")
SHARE = 0.05
"""Of the cells; of each kind as many."""
Labels = NDArray[np.int32]


@dataclass
class Planted:
    """A fault: the true cells, and the masks that stand for them now (none where they were dropped)."""

    image: str
    kind: str
    truth: list[NDArray[np.bool_]]
    wrong: list[NDArray[np.bool_]]


def compacted(labels: Any) -> Labels:
    return np.unique(labels, return_inverse=True)[1].reshape(np.shape(labels)).astype(np.int32)


def planted_faults(labels: dict[str, Labels], seed: int) -> list[Planted]:
    """Faults of all kinds in turn, each in cells that have none yet, until their share is reached."""
    rng = generator(seed, "audit faults")
    cells = [(name, n) for name, m in labels.items() for n in range(1, int(m.max()) + 1)]
    wanted = round(SHARE * len(cells))
    order, used, faults = rng.permutation(len(cells)), set[tuple[str, int]](), list[Planted]()
    for place, kind in enumerate(KINDS):
        quota = wanted // len(KINDS) + (place < wanted % len(KINDS))
        for i in order:
            if quota == 0:
                break
            name, number = cells[i]
            if (name, number) in used:
                continue
            made = MAKERS[kind](labels[name], number, rng)
            touched = made and {(name, n) for n in made[0]}
            if not made or touched & used:
                continue
            numbers, wrong = made
            used |= touched
            quota -= 1
            truth = [labels[name] == n for n in numbers]
            faults.append(Planted(name, kind, truth, wrong))
    return faults


Made = tuple[list[int], list[NDArray[np.bool_]]]


def drop(labels: Labels, number: int, rng: np.random.Generator) -> Made | None:
    return [number], []


def merge(labels: Labels, number: int, rng: np.random.Generator) -> Made | None:
    """With a neighbour that touches; none where there is none."""
    near = ndimage.binary_dilation(labels == number, np.ones((3, 3)))
    others = np.setdiff1d(np.unique(labels[near]), [0, number])
    if not len(others):
        return None
    other = int(rng.choice(others))
    return [number, other], [(labels == number) | (labels == other)]


def split(labels: Labels, number: int, rng: np.random.Generator) -> Made | None:
    """By a line near the middle, in any direction; halves of at least a fifth and 15 pixels."""
    y, x = np.nonzero(labels == number)
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * (y - y.mean()) + np.sin(angle) * (x - x.mean())
    first = along < np.quantile(along, rng.uniform(0.3, 0.7))
    if min(first.sum(), (~first).sum()) < max(15, len(y) / 5):
        return None
    halves = [np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)]
    halves[0][y[first], x[first]] = True
    halves[1][y[~first], x[~first]] = True
    return [number], halves


def shift(labels: Labels, number: int, rng: np.random.Generator) -> Made | None:
    """By 0.3 to 0.6 diameters in any direction; what would lie on another cell or outside is left out."""
    y, x = np.nonzero(labels == number)
    diameter, angle = 2 * np.sqrt(len(y) / np.pi), rng.uniform(0, 2 * np.pi)
    far = rng.uniform(0.3, 0.6) * diameter
    ny, nx = np.rint([y + far * np.sin(angle), x + far * np.cos(angle)]).astype(int)
    inside = (ny >= 0) & (nx >= 0) & (ny < labels.shape[0]) & (nx < labels.shape[1])
    moved = np.zeros(labels.shape, bool)
    moved[ny[inside], nx[inside]] = True
    moved &= (labels == 0) | (labels == number)
    return ([number], [moved]) if moved.sum() >= 0.7 * len(y) else None


MAKERS = dict(zip(KINDS, (drop, merge, split, shift), strict=True))


def with_faults(truth: Labels, faults: list[Planted]) -> tuple[Labels, list[list[int]]]:
    """The label map with the faults, and the numbers of the wrong annotations of each."""
    wrong, top, given = truth.copy(), int(truth.max()), []
    for item in faults:
        for mask in item.truth:
            wrong[mask] = 0
    for item in faults:
        own = range(top + 1, top + 1 + len(item.wrong))
        for number, mask in zip(own, item.wrong, strict=True):
            wrong[mask & (wrong == 0)] = number
        top += len(item.wrong)
        given.append(list(own))
    numbers = np.unique(wrong)
    return compacted(wrong), [[int(np.searchsorted(numbers, n)) for n in own] for own in given]

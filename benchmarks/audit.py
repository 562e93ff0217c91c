"""How many wrong annotations, planted in real data, `cellflow audit` ranks first.

    python benchmarks/audit.py plant FOLDER --seed 0       # FOLDER/data with its planted faults and folds
    python benchmarks/audit.py train FOLDER                # three folds from scratch on the wrong labels, oof
    python benchmarks/audit.py measure FOLDER [FOLDER ...] # precision, and the curve, of one or several seeds

The images are nuclei of ../shared/data/dsb2018 (fluo_dark, 256 x 256). In 5 % of the cells, a quarter
each, the annotation is dropped, merged with that of a neighbour, cut in two, or moved by 0.3 to 0.6
diameters. `FOLDER/planted.csv` keeps what was done: image, kind, numbers of the wrong annotations as they
stand in the dataset, and the true cells as runs of pixels. Nothing that is trained or asked has seen the true
labels.

A suspicion hits a planted fault that is not hit yet if it names one of its annotations, or a predicted cell
most of which lies on its true cells. Whatever else is suspected counts as wrong, also where the original
annotation deserves it.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import inputs
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

import cellflow
from cellflow import (
    FoldsConfig,
    ModelConfig,
    OofConfig,
    OptimConfig,
    PrepareConfig,
    RuntimeConfig,
    SamplingConfig,
    TrainConfig,
)
from cellflow.io.images import write_labels
from cellflow.numeric.rle import rle_encode
from cellflow.rng import generator

KINDS = ("dropped", "merged", "split", "shifted")
SHARE = 0.05
SIDE = 256
Labels = NDArray[np.int32]


@dataclass
class Planted:
    """A fault: the true cells, and the masks that stand for them now (none where they were dropped)."""

    image: str
    kind: str
    truth: list[NDArray[np.bool_]]
    wrong: list[NDArray[np.bool_]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    planting = commands.add_parser("plant")
    planting.add_argument("folder", type=Path)
    planting.add_argument("--seed", type=int, default=0)
    planting.add_argument("--images", type=int, default=72)
    training = commands.add_parser("train")
    training.add_argument("folder", type=Path)
    training.add_argument("--epochs", type=int, default=30)
    training.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.command == "plant":
        plant(options.folder, options.seed, options.images)
    elif options.command == "train":
        train(options.folder, options.epochs, options.seed)


def plant(folder: Path, seed: int, count: int) -> None:
    """Write the images, the wrong labels and what is wrong with them; prepare and split them."""
    root = inputs.SHARED / "data" / "dsb2018"
    labels = chosen_images(root, seed, count)
    source = folder / "source"
    (source / "images").mkdir(parents=True)
    (source / "masks").mkdir()
    faults = planted_faults(labels, seed)
    rows = []
    for name, truth in labels.items():
        own = [item for item in faults if item.image == name]
        wrong, numbers = with_faults(truth, own)
        write_labels(source / "masks" / f"{name}.tif", wrong)
        image = cv2.imread(str(root / "images" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(source / "images" / f"{name}.png"), image)
        rows += [
            {
                "id": name,
                "kind": item.kind,
                "cells": " ".join(map(str, of_item)),
                "truth": ";".join(map(rle_encode, item.truth)),
            }
            for item, of_item in zip(own, numbers, strict=True)
        ]
    pd.DataFrame(rows).to_csv(folder / "planted.csv", index=False)
    cellflow.prepare(PrepareConfig(source, out=folder / "data"))
    cellflow.make_folds(FoldsConfig(folder / "data", k=3, group="id", seed=seed))
    total = sum(int(item.max()) for item in labels.values())
    print(f"{len(labels)} images, {total} true cells, planted: {len(faults)}")
    print(pd.Series([item.kind for item in faults]).value_counts().to_string())


def chosen_images(root: Path, seed: int, count: int) -> dict[str, Labels]:
    """Label maps of images of one size with at least five cells, drawn by chance."""
    with (root / "classes.csv").open() as file:
        names = sorted(r["id"] for r in csv.DictReader(file) if r["cell_type"] == "fluo_dark")
    maps = {name: cv2.imread(str(root / "masks" / f"{name}.png"), -1) for name in names}
    fit = [name for name, m in maps.items() if m.shape == (SIDE, SIDE) and m.max() >= 5]
    drawn = generator(seed, "audit images").permutation(len(fit))[:count]
    return {fit[i]: compacted(maps[fit[i]]) for i in sorted(drawn)}


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


def train(folder: Path, epochs: int, seed: int) -> None:
    """A short training of all folds from scratch, and the out-of-fold predictions."""
    cellflow.train(
        TrainConfig(
            data=folder / "data",
            runs_dir=folder / "runs",
            name="planted",
            seed=seed,
            eval_every=epochs,
            model=ModelConfig(diam_mean=15.0),
            optim=OptimConfig(optimizer="adamw", schedule="cosine", n_epochs=epochs, batch_size=4),
            sampling=SamplingConfig(bsize=96, min_train_masks=1, rescale="dataset"),
            runtime=RuntimeConfig(device="cpu"),
        )
    )
    cellflow.oof(
        OofConfig(
            run="planted",
            runs_dir=folder / "runs",
            policy="dataset",
            runtime=RuntimeConfig(device="cpu"),
        )
    )


if __name__ == "__main__":
    main()

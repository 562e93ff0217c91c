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
from planted import KINDS, Labels, compacted, planted_faults, with_faults
from scipy.special import expit

import cellflow
from cellflow import (
    AuditConfig,
    FoldsConfig,
    ModelConfig,
    OofConfig,
    OptimConfig,
    PrepareConfig,
    RuntimeConfig,
    SamplingConfig,
    TrainConfig,
)
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.io.images import read_labels, write_labels
from cellflow.numeric.matching import Matches, match
from cellflow.numeric.rle import rle_decode, rle_encode
from cellflow.rng import generator

SIDE = 256


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
    measuring = commands.add_parser("measure")
    measuring.add_argument("folders", type=Path, nargs="+")
    measuring.add_argument("--picture", type=Path, help="PNG of the curves")
    options = parser.parse_args()
    if options.command == "measure":
        measure(options.folders, options.picture)
    elif options.command == "plant":
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


def train(folder: Path, epochs: int, seed: int) -> None:
    """A short training of all folds from scratch, and the out-of-fold predictions."""
    cellflow.train(
        TrainConfig(
            data=folder / "data",
            runs_dir=folder / "runs",
            name="planted",
            seed=seed,
            eval_every=epochs,
            recipe="cellpose",
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


Item = tuple[float, str, tuple[int, ...], tuple[int, ...]]
"""What is ranked: its score, the image, annotations and predicted cells from 1."""


def measure(folders: list[Path], picture: Path | None) -> None:
    """Precision among as many as were planted, of the audit and of simpler rankings, and the curve."""
    curves: dict[str, list[NDArray[np.float64]]] = {}
    rows, kinds = [], []
    for folder in folders:
        judge = Judge.open(folder)
        rankings = {"cellflow audit": judge.audited(), **judge.by_score()}
        for name, ranking in rankings.items():
            hits = judge.hits(ranking)
            curves.setdefault(name, []).append(np.cumsum([bool(hit) for hit in hits]))
            found = [hit for hit in hits[: judge.count] if hit]
            rows.append(
                {"ranking": name, "seed": folder.name, "precision": len(found) / judge.count}
            )
            kinds += [
                {"ranking": name, "kind": kind, "found": sum(hit == kind for hit in found),
                 "planted": judge.planted["kind"].tolist().count(kind)}
                for kind in KINDS
            ]  # fmt: skip
        rows.append({"ranking": "chance", "seed": folder.name, "precision": judge.chance()})
        print_audited(judge, rankings["cellflow audit"])
    table = pd.DataFrame(rows).pivot(index="ranking", columns="seed", values="precision")
    print("\nprecision among as many as were planted\n")
    print(table.assign(mean=table.mean(axis=1)).round(3).to_string())
    by_kind = pd.DataFrame(kinds).groupby(["ranking", "kind"], sort=False).sum().reset_index()
    by_kind["share"] = by_kind["found"] / by_kind["planted"]
    print("\nshare of each kind that is found among them\n")
    print(by_kind.pivot(index="ranking", columns="kind", values="share").round(2).to_string())
    if picture:
        draw(picture, curves, [Judge.open(folder).count for folder in folders])


def print_audited(judge: Judge, ranking: list[Item]) -> None:
    """How precise each kind of suspicion is among as many as were planted."""
    hits = judge.hits(ranking)[: judge.count]
    listed = pd.DataFrame(
        {"suspicion": judge.kinds[: judge.count], "right": [bool(h) for h in hits]}
    )
    print(
        f"\n{judge.folder}: {judge.count} planted, {judge.items} annotations and free predicted cells"
    )
    print(listed.groupby("suspicion")["right"].agg(["size", "sum"]).to_string())


@dataclass
class Judge:
    """The faults of a folder, and the run that is asked."""

    folder: Path
    planted: pd.DataFrame
    annotations: dict[str, Any]
    predicted: dict[str, Labels]
    kinds: list[str]

    @classmethod
    def open(cls, folder: Path) -> Judge:
        dataset = Dataset.open(folder / "data")
        planted = pd.read_csv(folder / "planted.csv", dtype=str).fillna("")
        masks = folder / "runs" / "planted" / "oof" / "masks"
        predicted = {name: read_labels(masks / f"{name}.tif") for name in dataset.ids}
        annotations = {name: dataset.instances(name) for name in dataset.ids}
        return cls(folder, planted, annotations, predicted, [])

    @property
    def count(self) -> int:
        return len(self.planted)

    @property
    def items(self) -> int:
        """Annotations, and predicted cells of which none has half: what can be listed."""
        return sum(
            len(self.annotations[name]) + len(free_cells(match(self.annotations[name], labels)))
            for name, labels in self.predicted.items()
        )

    def chance(self) -> float:
        """Share of the items that hit a fault, were they listed in any order."""
        every = [
            (0.0, name, (cell + 1,), ())
            for name, own in self.annotations.items()
            for cell in range(len(own))
        ]
        every += [
            (0.0, name, (), (int(cell) + 1,))
            for name, labels in self.predicted.items()
            for cell in free_cells(match(self.annotations[name], labels))
        ]
        return sum(bool(hit) for hit in self.hits(every)) / len(every)

    def audited(self) -> list[Item]:
        """The list of `cellflow audit`."""
        result = cellflow.audit(
            AuditConfig(
                "planted", runs_dir=self.folder / "runs", least=0.0, out=self.folder / "audit"
            )
        )
        self.kinds = [row.kind for row in result.rows]
        return [(row.suspicion, row.id, row.cells, row.predicted) for row in result.rows]

    def by_score(self) -> dict[str, list[Item]]:
        """Annotations by their best IoU, or mean cellprob, alone; with free predicted cells, and without."""
        iou, prob, both = list[Item](), list[Item](), list[Item]()
        store = FlowStore(self.folder / "runs" / "planted" / "oof" / "flows.zarr")
        for name, labels in self.predicted.items():
            pairs = match(self.annotations[name], labels)
            best = np.zeros(len(pairs.truth_areas))
            np.maximum.at(best, pairs.truth, pairs.shared / pairs.union)
            sure = expit(store.read(name)[1].astype(np.float64))
            for cell, value in enumerate(best):
                seen = np.concatenate(
                    [
                        sure.reshape(-1)[a : a + n]
                        for a, n in zip(*self.annotations[name].runs(cell), strict=True)
                    ]
                )
                iou.append((1 - value, name, (cell + 1,), ()))
                prob.append((1 - seen.mean(), name, (cell + 1,), ()))
            free = [
                (float(sure[labels == cell + 1].mean()), name, (), (int(cell) + 1,))
                for cell in free_cells(pairs)
            ]
            both += free
        rankings = {
            "IoU of the annotation": iou,
            "cellprob of the annotation": prob,
            "IoU of annotations and cellprob of free cells": iou + both,
        }
        return {name: sorted(items, key=lambda item: -item[0]) for name, items in rankings.items()}

    def hits(self, ranking: list[Item]) -> list[str]:
        """Kind of the fault that each item hits first; empty where it hits none, or one that was hit before."""
        wrong = {
            (row.id, int(cell)): index
            for index, row in enumerate(self.planted.itertuples())
            for cell in row.cells.split()
        }
        places: dict[str, Labels] = {}
        for index, row in enumerate(self.planted.itertuples()):
            where = places.setdefault(row.id, np.full(self.predicted[row.id].shape, -1, np.int32))
            for rle in row.truth.split(";"):
                where[rle_decode(rle, where.shape)] = index
        done, found = set[int](), list[str]()
        for _, name, cells, predicted in ranking:
            meant = {wrong[name, cell] for cell in cells if (name, cell) in wrong}
            if not cells and name in places:
                under = places[name][np.isin(self.predicted[name], predicted)]
                values, counts = np.unique(under, return_counts=True)
                if 2 * counts.max() > len(under):
                    meant = {int(values[counts.argmax()])} - {-1}
            new = sorted(meant - done)
            done |= set(new[:1])
            found.append(self.planted["kind"][new[0]] if new else "")
        return found


def free_cells(pairs: Matches) -> NDArray[np.int64]:
    """Predicted cells that have less than half of their pixels on annotations, from 0."""
    covered = np.bincount(pairs.prediction, pairs.shared, len(pairs.prediction_areas))
    return np.flatnonzero(2 * covered < pairs.prediction_areas)


def draw(path: Path, curves: dict[str, list[NDArray[np.float64]]], counts: list[int]) -> None:
    """Precision over the length of the list, in parts of the number planted; the mean of the seeds."""
    import matplotlib.pyplot as plt

    parts = np.linspace(0.05, 2, 79)
    figure, axis = plt.subplots(figsize=(6.4, 3.8), dpi=110)
    for (name, own), colour in zip(
        curves.items(), ("#0072b2", "#e69f00", "#009e73", "#cc79a7"), strict=True
    ):
        lines = []
        for found, count in zip(own, counts, strict=True):
            length = np.maximum(1, np.rint(parts * count)).astype(int)
            lines.append(found[np.minimum(length, len(found)) - 1] / length)
        axis.plot(parts, np.mean(lines, axis=0), color=colour, label=name)
    axis.axvline(1, color="0.6", lw=0.8)
    axis.set(
        xlabel="length of the list / faults planted",
        ylabel="precision",
        ylim=(0, 1.02),
        xlim=(0, 2),
    )
    axis.legend(frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()

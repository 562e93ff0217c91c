"""What images without annotation, and one network in place of several, are worth on images that nobody trains on.

    python benchmarks/extra_images.py labels ROUND --truth DATASET
    python benchmarks/extra_images.py compare --data DATASET --images FOLDER --test DATASET --work FOLDER \\
        --seeds 0 1 2 --epochs 70

`labels` looks at a round of `cellflow pseudo` whose images are annotated after all, in DATASET under the same
ids: for several limits of confidence and agreement how many cells are kept, and which part of them is right (IoU
with a true cell above 0.5 and 0.75).

`compare` trains all folds of `--data` for each seed: `base`; `longer`, the same with the steps of the next;
`pseudo`, with a round of `base` on the images of `--images`; `student`, distilled from `base` fold by fold, with
those images; `final`, one network distilled from all members; those that `--runs` names. Settings are `--recipe
auto`, those of `--bsize`, `--batch_size` and `--epochs`; `--width 0.25` trains networks of a quarter of the U-Net's
feature maps. All are scored at the thresholds of the training on `--test`, which has none of these
images: the mean of the single models, and the ensemble. Printed is a Markdown table with differences from `base`
(single or ensemble) over images and seeds, 95 % intervals from a bootstrap over images. What is there in `--work`
is not made again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from demo_seeds import narrowed

import cellflow
from cellflow.config import (
    DistilConfig,
    OptimConfig,
    PseudoConfig,
    RuntimeConfig,
    SamplingConfig,
    TrainConfig,
)
from cellflow.engine.runtime.machine import choose_machine
from cellflow.engine.segmentation.open_models import open_models
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.engine.training import start_network
from cellflow.io.dataset import Dataset
from cellflow.io.images import read_labels
from cellflow.numeric.bootstrap import bootstrap_mean
from cellflow.numeric.matching import match
from cellflow.numeric.score import competition_score

LIMITS = [(0, 0), (0.4, 0.5), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9)]
"""Confidence and agreement."""
RUNTIME = RuntimeConfig()
RUNS = ("longer", "pseudo", "student", "final")


def show_labels(folder: Path, truth: Path) -> None:
    """Print how right trusted cells are. The round must have been made with limits of 0."""
    dataset, rows = Dataset.open(truth), []
    for part in sorted(folder.glob("fold_*")):
        cells = pd.read_csv(part / "cells.csv", dtype={"id": str})
        for name, own in cells.groupby("id"):
            labels = read_labels(part / "labels" / f"{name}.tif")
            found = match(dataset.instances(str(name)), labels)
            best = np.zeros(len(own))
            np.maximum.at(best, found.prediction, found.shared / found.union)
            rows.append(own.assign(iou=best))
    table = pd.concat(rows, ignore_index=True)
    if (table["label"] == 0).any():
        raise SystemExit("make the round with: --min_confidence 0 --min_agreement 0")
    print("| confidence | agreement | cells kept | IoU > 0.5 | IoU > 0.75 |")
    print("|---|---|---|---|---|")
    for confidence, agreement in LIMITS:
        kept = table[(table["confidence"] >= confidence) & (table["agreement"] >= agreement)]
        parts = [f"{(kept['iou'] > least).mean():.3f}" for least in (0.5, 0.75)]
        share = f"{len(kept)} ({len(kept) / len(table):.0%})"
        print(f"| {confidence:g} | {agreement:g} | {share} | {' | '.join(parts)} |")


def train_all(options: argparse.Namespace, seed: int) -> dict[str, Path]:
    """Train what is to be compared; runs by name."""
    runs_dir = options.work / f"seed_{seed}"
    base = TrainConfig(
        data=options.data,
        runs_dir=runs_dir,
        name="base",
        seed=seed,
        eval_every=max(1, options.epochs // 5),
        recipe="auto",
        optim=OptimConfig(n_epochs=options.epochs, batch_size=options.batch_size),
        sampling=SamplingConfig(bsize=options.bsize, min_train_masks=options.min_train_masks),
        runtime=RUNTIME,
    )
    cellflow.train(base)
    rounds, weight = runs_dir / "rounds", options.weight
    if not (rounds / "one").exists():
        cellflow.pseudo(
            PseudoConfig(
                runs=("base",),
                runs_dir=runs_dir,
                images=(options.images,),
                out=rounds,
                name="one",
                runtime=RUNTIME,
            )
        )
    longer = round(options.epochs * (1 + weight))
    if "longer" in options.runs:
        cellflow.train(replace(base, name="longer", optim=replace(base.optim, n_epochs=longer)))
    if "pseudo" in options.runs:
        cellflow.train(replace(base, name="pseudo", pseudo=rounds / "one", pseudo_weight=weight))
    for final in (False, True):
        if ("final" if final else "student") not in options.runs:
            continue
        cellflow.distil(
            DistilConfig(
                runs=("base",),
                runs_dir=runs_dir,
                images=(options.images,),
                out=rounds,
                name="student",
                final=final,
                pseudo_weight=weight,
                runtime=RUNTIME,
            )
        )
    folders = {"final": "student-final"}
    return {name: runs_dir / folders.get(name, name) for name in ("base", *options.runs)}


def score(run: Path, test: Dataset) -> pd.DataFrame:
    """Scores of each image: mean of the single models, and the ensemble; kept in the run's folder."""
    kept = run / "unseen.csv"
    if kept.exists():
        return pd.read_csv(kept, dtype={"id": str}).set_index("id")
    opened = open_models([str(run.absolute())], choose_machine(RUNTIME), calibrated=False)
    rows = []
    for name in test.ids:
        groups = [*([member] for member in opened.members), opened.members]
        scores = [
            competition_score(
                test.instances(name),
                Segmenter(group, opened.thresholds.shared).predict(test.image(name)).labels,
            ).mean
            for group in groups
        ]
        rows.append({"id": name, "single": np.mean(scores[:-1]), "ensemble": scores[-1]})
    table = pd.DataFrame(rows)
    table.to_csv(kept, index=False)
    return table.set_index("id")


def compare(options: argparse.Namespace) -> None:
    """Train, score, and print the table."""
    test, tables = Dataset.open(options.test), dict[str, list[pd.DataFrame]]()
    for seed in options.seeds:
        for name, run in train_all(options, seed).items():
            tables.setdefault(name, []).append(score(run, test))
    means = {name: sum(found) / len(found) for name, found in tables.items()}
    print(f"{len(test)} images, seeds {' '.join(map(str, options.seeds))}\n")
    print("| run | what | score | by seed | less base, 95 % |")
    print("|---|---|---|---|---|")
    for name, table in means.items():
        for what in ("single", "ensemble"):
            each = " ".join(f"{found[what].mean():.3f}" for found in tables[name])
            gain = bootstrap_mean((table[what] - means["base"][what]).to_numpy())
            print(
                f"| {name} | {what} | {table[what].mean():.4f} | {each} | {gain.mean:+.4f} "
                f"({gain.low:+.4f} to {gain.high:+.4f}) |"
            )
    single, ensemble = (means["base"][what].mean() for what in ("single", "ensemble"))
    students = [name for name in ("student", "final") if name in means]
    for name in students if ensemble > single else ():
        part = (means[name]["single"].mean() - single) / (ensemble - single)
        print(f"\n{name}: {part:.0%} of what the ensemble gains over the mean single model")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    labels = commands.add_parser("labels")
    labels.add_argument("round", type=Path)
    labels.add_argument("--truth", type=Path, required=True)
    trained = commands.add_parser("compare")
    for flag in ("--data", "--images", "--test", "--work"):
        trained.add_argument(flag, type=Path, required=True)
    trained.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    trained.add_argument("--weight", type=float, default=0.5)
    trained.add_argument("--runs", nargs="+", default=RUNS, choices=RUNS)
    trained.add_argument(
        "--width", type=float, default=1.0, help="part of the U-Net's feature maps"
    )
    for flag, value in (
        ("--epochs", 70),
        ("--bsize", 224),
        ("--batch_size", 8),
        ("--min_train_masks", 5),
    ):
        trained.add_argument(flag, type=int, default=value)
    options = parser.parse_args()
    if options.command == "labels":
        show_labels(options.round, options.truth)
        return
    if options.width != 1:
        start_network.DEFAULT = narrowed(options.width)
    compare(options)


if __name__ == "__main__":
    main()

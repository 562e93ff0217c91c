"""States of one training as members: does the average of their flows beat the last one, or the average of weights?

    python benchmarks/snapshots.py --data DATASET --work FOLDER --fold 0 -- recipe=auto schedule=cosine,recipe=auto

Each recipe (settings of `cellflow train` as `name=value,name=value`, on top of Cellpose's recipe or `recipe=NAME`) is
trained once on the fold, with states kept at the half, two thirds, five sixths and the end of its epochs. Printed are
mean scores of the fold's validation images, from which nothing is chosen: of the weights after each of these, of the
mean flows of the last two, three and four, and the same of the moving average of the weights, where the recipe has
one. `--width 0.25` trains networks of a quarter of the U-Net's feature maps.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml
from demo_seeds import narrowed

import cellflow
from cellflow import MaskConfig, RuntimeConfig, TrainConfig, competition_score
from cellflow.config.layers import with_settings
from cellflow.engine.data.folds import load_folds
from cellflow.engine.runtime.machine import choose_machine
from cellflow.engine.segmentation.mask_step import make_labels
from cellflow.engine.segmentation.member import load_member
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.engine.training import start_network
from cellflow.engine.training.fold_trainer import FoldTrainer
from cellflow.io.dataset import Dataset
from cellflow.numeric.averaging import average_flows
from cellflow.storage.run_folder import RunFolder

PARTS = (1 / 2, 2 / 3, 5 / 6, 1)


def train(config: TrainConfig) -> Path:
    """Train a fold, and keep model files of its states, those of their averages too; the folder of these."""
    folder = config.runs_dir / config.name / "states"
    epochs = {round(part * config.optim.n_epochs): place for place, part in enumerate(PARTS)}
    if (folder / "net_3.pt").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    end_epoch = FoldTrainer._end_epoch

    def keep_and_end(trainer: FoldTrainer) -> None:
        epoch = trainer.progress.epoch + 1
        if epoch in epochs:
            for kind, net in trainer.stepper.networks.items():
                torch.save(net.state_dict(), folder / f"{kind}_{epochs[epoch]}.pt")
        end_epoch(trainer)

    FoldTrainer._end_epoch = keep_and_end  # type: ignore[method-assign]
    cellflow.train(config)
    FoldTrainer._end_epoch = end_epoch  # type: ignore[method-assign]
    best = torch.load(RunFolder(folder.parent).fold(int(config.fold[0])).best, weights_only=True)
    for path in folder.glob("*.pt"):
        weights = torch.load(path, weights_only=True)
        for key in best:
            best[key] = weights[key]
        torch.save(best, path)  # with what the best model's file knows of channels and diameters
    return folder


def print_scores(recipe: str, config: TrainConfig, folder: Path) -> None:
    dataset, machine = Dataset.open(config.data), choose_machine(RuntimeConfig())
    folds = load_folds(dataset)
    names = [name for name in dataset.ids if folds[name] == int(config.fold[0])]
    truth = [dataset.instances(name) for name in names]
    for kind in ("net", "ema"):
        paths = sorted(folder.glob(f"{kind}_*.pt"))
        if not paths:
            continue
        found = [flows_of(path, dataset, names, machine) for path in paths]
        parts = [found[place : place + 1] for place in range(4)] + [found[-k:] for k in (2, 3, 4)]
        scores = [score(part, truth) for part in parts]
        print(
            f"| {recipe} | {kind} | {' | '.join(f'{value:.4f}' for value in scores)} |", flush=True
        )


def flows_of(path: Path, dataset: Dataset, names: list[str], machine) -> list:
    segmenter = Segmenter([load_member(path, path.stem, machine)], MaskConfig())
    return [segmenter.member_flows(dataset.image(name))[:2] for name in names]


def score(members: list, truth: list) -> float:
    """Mean score of the average of members."""
    labels = []
    for image in zip(*members, strict=True):
        flow, cellprob, _ = average_flows(flows[0] for flows, _ in image)
        labels.append(
            make_labels(flow, cellprob, float(np.mean([item[1] for item in image])), MaskConfig())
        )
    return competition_score(truth, labels).mean


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipes", nargs="+", metavar="NAME=VALUE,NAME=VALUE")
    parser.add_argument("--data", type=Path, required=True, help="prepared dataset with folds")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=70)
    parser.add_argument("--width", type=float, default=1.0, help="part of the U-Net's feature maps")
    options = parser.parse_args()
    if options.width != 1:
        start_network.DEFAULT = narrowed(options.width)
    print("| recipe | weights | 1/2 | 2/3 | 5/6 | end | last 2 | last 3 | all 4 |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for recipe in options.recipes:
        config = TrainConfig(
            data=options.data, fold=(str(options.fold),), runs_dir=options.work,
            name=recipe.replace("=", "-").replace(",", "_"), eval_every=options.epochs,
            recipe="cellpose",
        )  # fmt: skip
        given = {
            key: yaml.safe_load(text)
            for key, _, text in (w.partition("=") for w in recipe.split(","))
        }
        config = with_settings(config, {**given, "n_epochs": options.epochs}, f"recipe {recipe!r}")
        print_scores(recipe, replace(config), train(config))


if __name__ == "__main__":
    main()

"""Compare training recipes on images that the network does not train on, over paired splits and seeds.

    python benchmarks/recipes.py --data DATASET --work FOLDER --epochs 70 --folds 0 --seeds 0 1 2 -- \\
        "" recipe=auto optimizer=adamw,schedule=cosine,intensity=1
    python benchmarks/recipes.py ... --all optimizer=adamw --screen schedule=step/cosine intensity=0/1

A recipe is a list of settings of `cellflow train` as `name=value,name=value`, on top of Cellpose's recipe or that of
`recipe=NAME`; an empty one has none, and the first is what the others are compared with; `--all` has settings of all
of them. Every recipe is trained on every fold with every seed through `cellflow.train`, evaluated at the end only,
and scored as the last epoch's weights (their moving average, where the recipe has one) score the fold's validation
images, from which nothing was chosen. A training that is there is not done again. Printed is a Markdown table: mean
score, mean difference to the first recipe with its 95 % interval, and the difference of each training. The interval
resamples images (whole groups), each with the mean over its seeds; so it says what other images would give.
Differences of single trainings say what another seed would.

`--screen` makes recipes of its own: up to 8 settings with two values each in 16 trainings a fold and seed, a
fractional factorial design in which no main effect is mixed with another or with an interaction of two. Printed are
the main effects, each the mean of 8 trainings less that of the 8 others.

`--width 0.25` trains networks of a quarter of the U-Net's feature maps, in about a tenth of the time.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml
from demo_seeds import narrowed
from scipy.linalg import hadamard

import cellflow
from cellflow import TrainConfig
from cellflow.config import check_config
from cellflow.config.layers import with_settings
from cellflow.engine.data.folds import image_groups
from cellflow.engine.runs.contents import read_table
from cellflow.engine.training import start_network
from cellflow.io.dataset import Dataset
from cellflow.numeric.bootstrap import bootstrap_mean
from cellflow.storage.run_folder import RunFolder

COLUMNS = [1, 2, 4, 8, 7, 11, 13, 14]
"""Columns of a Hadamard matrix of 16 rows whose main effects are clear of each other's interactions."""


class Trained(NamedTuple):
    """One training: its recipe, and where it was done."""

    recipe: str
    fold: int
    seed: int


def config_of(options: argparse.Namespace, training: Trained) -> TrainConfig:
    """Settings of a training."""
    name = training.recipe.replace("=", "-").replace(",", "_") or "none"
    config = TrainConfig(
        data=options.data,
        fold=(str(training.fold),),
        name=f"{name}_seed{training.seed}",
        runs_dir=options.work,
        seed=training.seed,
        eval_every=options.epochs,
        recipe="cellpose",
    )
    config = replace(config, optim=replace(config.optim, n_epochs=options.epochs))
    given = {}
    for text in [*options.all, *training.recipe.split(",")]:
        key, _, value = text.partition("=")
        if key:
            given[key] = yaml.safe_load(value)
    config = with_settings(config, given, f"recipe {training.recipe!r}")
    check_config(config)
    return config


def scores_of(config: TrainConfig) -> pd.Series[float]:
    """Score of every validation image after the last epoch, by id."""
    path = RunFolder(config.runs_dir / config.name).fold(int(config.fold[0])).evaluations
    rows = read_table(path, ["epoch", "weights", "id", "score"])
    wanted = "ema" if (rows["weights"] == "ema").any() else "net"
    last = rows[(rows["epoch"] == rows["epoch"].max()) & (rows["weights"] == wanted)]
    return last.set_index("id")["score"]


def trained(options: argparse.Namespace, training: Trained) -> pd.Series[float]:
    """Scores of a training, which is done where it is not there."""
    config = config_of(options, training)
    started = time.monotonic()
    cellflow.train(config)
    scores = scores_of(config)
    print(
        f"{training}: {scores.mean():.4f} ({time.monotonic() - started:.0f} s)",
        flush=True,
    )
    return scores


def gains(
    options: argparse.Namespace, tables: dict[Trained, pd.Series[float]], recipe: str
) -> pd.Series[float]:
    """Difference of each image to the first recipe, mean over the seeds."""
    first = options.recipes[0]
    parts = [
        scores - tables[training._replace(recipe=first)]
        for training, scores in tables.items()
        if training.recipe == recipe and training._replace(recipe=first) in tables
    ]
    together = pd.concat(parts)
    return together.groupby(level=0).mean()


def print_recipes(options: argparse.Namespace, tables: dict[Trained, pd.Series[float]]) -> None:
    """A row per recipe that has been trained."""
    dataset = Dataset.open(options.data)
    groups = image_groups(dataset, dataset.folds_path)
    print("\n| recipe | trainings | score | difference | 95 % interval | by training |")
    print("|---|---|---|---|---|---|")
    for recipe in options.recipes:
        own = {training: table for training, table in tables.items() if training.recipe == recipe}
        if not own:
            continue
        score = np.mean([table.mean() for table in own.values()])
        gain = gains(options, tables, recipe)
        found = bootstrap_mean(gain.to_numpy(), groups=groups.loc[gain.index].to_numpy())
        each = [
            table.mean() - tables[training._replace(recipe=options.recipes[0])].mean()
            for training, table in own.items()
        ]
        print(
            f"| {recipe or 'defaults'} | {len(own)} | {score:.4f} | {found.mean:+.4f} | {found.low:+.4f} to "
            f"{found.high:+.4f} | {' '.join(f'{value:+.3f}' for value in each)} |"
        )
    print(flush=True)


def screen_recipes(factors: list[str]) -> tuple[list[str], np.ndarray]:
    """Sixteen recipes of two-level factors, and which level each has of which factor."""
    if len(factors) > len(COLUMNS):
        raise SystemExit(f"--screen: at most {len(COLUMNS)} settings, found {len(factors)}")
    levels = hadamard(16)[:, COLUMNS[: len(factors)]] < 0
    names = [factor.partition("=")[0] for factor in factors]
    values = [factor.partition("=")[2].split("/") for factor in factors]
    recipes = [
        ",".join(
            f"{name}={pair[high]}" for name, pair, high in zip(names, values, row, strict=True)
        )
        for row in levels.astype(int)
    ]
    return recipes, levels


def print_effects(options: argparse.Namespace, tables: dict[Trained, pd.Series[float]]) -> None:
    """Main effect of every factor, and its spread over folds and seeds."""
    recipes, levels = screen_recipes(options.screen)
    print("\n| setting | from | to | effect | by fold and seed |")
    print("|---|---|---|---|---|")
    sets = sorted({training[1:] for training in tables})
    whole = [each for each in sets if all(Trained(name, *each) in tables for name in recipes)]
    for place, factor in enumerate(options.screen):
        name, _, pair = factor.partition("=")
        effects = []
        for each in whole:
            means = np.array([tables[Trained(recipe, *each)].mean() for recipe in recipes])
            effects.append(means[levels[:, place]].mean() - means[~levels[:, place]].mean())
        low, high = pair.split("/")
        texts = " ".join(f"{effect:+.4f}" for effect in effects)
        print(f"| {name} | {low} | {high} | {np.mean(effects):+.4f} | {texts} |")
    print(flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipes", nargs="*", metavar="NAME=VALUE,NAME=VALUE")
    parser.add_argument("--data", type=Path, required=True, help="prepared dataset with folds")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--folds", type=int, nargs="+", default=[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument(
        "--all", nargs="*", default=[], metavar="NAME=VALUE", help="settings of all"
    )
    parser.add_argument("--screen", nargs="+", metavar="NAME=LOW/HIGH")
    parser.add_argument("--width", type=float, default=1.0, help="part of the U-Net's feature maps")
    return parser.parse_args()


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = parse()
    if options.width != 1:
        start_network.DEFAULT = narrowed(options.width)
    if options.screen:
        options.recipes = screen_recipes(options.screen)[0]
    tables: dict[Trained, pd.Series[float]] = {}
    for seed in options.seeds:
        for fold in options.folds:
            for recipe in options.recipes:
                training = Trained(recipe, fold, seed)
                tables[training] = trained(options, training)
            (print_effects if options.screen else print_recipes)(options, tables)


if __name__ == "__main__":
    main()

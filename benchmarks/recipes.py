"""Compare training recipes over paired seeds.

    python benchmarks/recipes.py --data DATASET --fold 0 --epochs 150 --out FOLDER
    python benchmarks/recipes.py ... --seeds 0 1 2 3 --recipes rescale=dataset intensity=1,targets=recompute

A recipe is a list of `SamplingConfig` fields with their values; the baseline has none. Every recipe is
trained with every seed through `cellflow.train`, into runs under FOLDER. The same command again goes on
where it stopped. After each seed the table of what is complete is printed as Markdown: the score of the
fold's validation images after the last epoch at default thresholds, its difference to the baseline with
the same seed, and the 95 % t-interval of the mean difference.

Seeds change weights, order and crops, not the images: the interval says what another training on the
same split would give, not what other images would.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from scipy import stats

import cellflow
from cellflow import ModelConfig, OptimConfig, RuntimeConfig, SamplingConfig, TrainConfig
from cellflow.config import check_config
from cellflow.engine.runs.contents import read_table
from cellflow.storage.run_folder import RunFolder

BASELINE = "baseline"
RECIPES = ["rescale=dataset", "intensity=1", "targets=recompute"]


class Difference(NamedTuple):
    """Mean paired difference and its interval, nan for fewer than two pairs."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def sampling_of(recipe: str) -> dict[str, Any]:
    """Fields of SamplingConfig in ``name=value,name=value``; values are read as in the config file."""
    if recipe == BASELINE:
        return {}
    known = [item.name for item in fields(SamplingConfig)]
    chosen = {}
    for part in recipe.split(","):
        name, _, value = part.partition("=")
        if name not in known or not value:
            raise SystemExit(f"--recipes {part!r}: expected NAME=VALUE with one of {known}")
        chosen[name] = yaml.safe_load(value)
    return chosen


def config_of(options: argparse.Namespace, recipe: str, seed: int) -> TrainConfig:
    sampling = {"bsize": options.bsize, "nimg_per_epoch": options.nimg_per_epoch}
    return TrainConfig(
        fold=(str(options.fold),),
        data=options.data,
        name=f"{recipe.replace('=', '-').replace(',', '_')}_seed{seed}",
        runs_dir=options.out,
        seed=seed,
        eval_every=options.eval_every or options.epochs,
        model=ModelConfig(diam_mean=options.diam_mean),
        optim=OptimConfig(
            optimizer="adamw",
            schedule="cosine",
            learning_rate=options.learning_rate,
            n_epochs=options.epochs,
            batch_size=options.batch_size,
        ),
        sampling=SamplingConfig(**(sampling | sampling_of(recipe))),
        runtime=RuntimeConfig(device=options.device, workers=options.workers),
    )


def last_score(config: TrainConfig) -> float:
    """Mean score of the validation images after the last epoch of the config's only fold."""
    path = RunFolder(config.runs_dir / config.name).fold(int(config.fold[0])).evaluations
    rows = read_table(path, ["epoch", "id", "score"])
    last = rows[rows["epoch"] == config.optim.n_epochs]
    if last.empty or last["id"].duplicated().any():
        raise SystemExit(f"{path}: expected one row per image for epoch {config.optim.n_epochs}")
    return float(last["score"].mean())


def compare(scores: np.ndarray, baseline: np.ndarray) -> Difference:
    """Mean of the paired differences with the 95 % interval of Student's t."""
    differences = scores - baseline
    mean, n = float(differences.mean()), len(differences)
    if n < 2:
        return Difference(mean, np.nan, np.nan)
    half = stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n)
    return Difference(mean, mean - half, mean + half)


def table(scores: dict[str, dict[int, float]]) -> str:
    """Markdown table of ``{recipe: {seed: score}}``; all recipes have the seeds of the baseline."""
    seeds = list(scores[BASELINE])
    n = len(seeds)
    baseline = np.array([scores[BASELINE][seed] for seed in seeds])
    head = [
        "recipe",
        *(f"seed {seed}" for seed in seeds),
        "mean",
        *(f"difference, seed {seed}" for seed in seeds),
        "mean difference",
        "95 % interval",
        "zero excluded",
    ]
    lines = [head, ["---"] * len(head)]
    for recipe, by_seed in scores.items():
        values = np.array([by_seed[seed] for seed in seeds])
        row = [recipe, *(f"{value:.4f}" for value in values), f"{values.mean():.4f}"]
        is_baseline = recipe == BASELINE
        lines.append(row + ([""] * (n + 3) if is_baseline else difference_cells(values, baseline)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def difference_cells(values: np.ndarray, baseline: np.ndarray) -> list[str]:
    result = compare(values, baseline)
    cells = [f"{value:+.4f}" for value in values - baseline] + [f"{result.mean:+.4f}"]
    if np.isnan(result.low):
        return [*cells, "needs two seeds", ""]
    interval = f"{result.low:+.4f} to {result.high:+.4f}"
    return [*cells, interval, "yes" if result.excludes_zero else "no"]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="prepared dataset with folds")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--recipes", nargs="+", default=RECIPES, metavar="NAME=VALUE[,NAME=VALUE]")
    parser.add_argument("--bsize", type=int, default=224, help="side of a crop")
    parser.add_argument("--nimg_per_epoch", type=int, help="crops per epoch")
    parser.add_argument("--diam_mean", type=float, help="diameter that cells are rescaled to")
    parser.add_argument("--learning_rate", type=float, default=0.004)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument(
        "--eval_every", type=int, help="epochs between evaluations; else the last only"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int)
    return parser.parse_args()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse()
    recipes = [BASELINE, *dict.fromkeys(recipe for recipe in options.recipes if recipe != BASELINE)]
    for recipe in recipes:
        check_config(config_of(options, recipe, options.seeds[0]))
    scores: dict[str, dict[int, float]] = {recipe: {} for recipe in recipes}
    for seed in options.seeds:
        for recipe in recipes:
            config = config_of(options, recipe, seed)
            cellflow.train(config)
            scores[recipe][seed] = last_score(config)
        print(table(scores), flush=True)


if __name__ == "__main__":
    main()

"""Fine-tune a model on few images of another kind: how fast, which layers, how long, and what is forgotten.

    python benchmarks/fine_tune.py --source dsb2018 --model usiigaci_unet --work FOLDER --images 5 10 20 --seeds 0 -- \\
        recipe=auto recipe=auto,learning_rate=0.001 recipe=auto,freeze_encoder=true scratch

SOURCE has `images/`, `masks/` and `classes.csv`; images of the class `--kind` are used. The same `--tests` of them are
scored in all trainings; of the others as many as `--images` says train, chosen by the seed, fewer among more. After
`--` come settings of `cellflow train` as `name=value,name=value`, on top of Cellpose's recipe or `recipe=NAME`;
`scratch` among them starts from new weights instead of the model. Every training takes `--steps` steps of 8 crops, or
the same crops in smaller batches, and is evaluated at quarters of them; epoch 0 is the model itself. What is trained
is not trained again.

Printed is a Markdown table of mean scores by the part of the training that is done: of the average of the weights
where there is one, from which nothing was chosen. `against start` is the difference of the last to epoch 0, with
its 95 % interval over images, each with the mean over its seeds.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

import cellflow
from cellflow import PrepareConfig, TrainConfig
from cellflow.config import check_config
from cellflow.config.layers import with_settings
from cellflow.engine.data.prepare import prepare
from cellflow.engine.runs.contents import read_table
from cellflow.io.dataset import Dataset
from cellflow.numeric.bootstrap import bootstrap_mean
from cellflow.storage.run_folder import RunFolder

PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the training, at which it is scored."""


def make_data(options: argparse.Namespace, count: int, seed: int) -> Path:
    """A dataset whose fold 0 tests, and whose fold 1 trains."""
    data: Path = options.work / f"data_{count}_{seed}"
    if data.is_dir():
        return data
    classes = pd.read_csv(options.source / "classes.csv", dtype=str)
    names = sorted(
        Path(name).stem for name in classes.loc[classes.iloc[:, 1] == options.kind].iloc[:, 0]
    )
    order = np.random.default_rng(0).permutation(names)
    tests, others = order[: options.tests], order[options.tests :]
    training = np.random.default_rng(1 + seed).permutation(others)[:count]
    source = options.work / f"source_{count}_{seed}"
    for folder in ("images", "masks"):
        (source / folder).mkdir(parents=True, exist_ok=True)
        for name in [*tests, *training]:
            shutil.copy(options.source / folder / f"{name}.png", source / folder)
    prepare(PrepareConfig(source, out=data))
    folds = pd.DataFrame({"id": Dataset.open(data).ids})
    folds["fold"] = folds["id"].isin(set(training)).astype(int)
    folds.to_csv(data / "folds.csv", index=False)
    return data


def config_of(options: argparse.Namespace, recipe: str, count: int, seed: int) -> TrainConfig:
    """Settings of a training; an epoch is a quarter of it."""
    config = TrainConfig(
        data=make_data(options, count, seed),
        fold=("0",),
        name=f"{recipe.replace('=', '-').replace(',', '_')}_{count}_seed{seed}",
        runs_dir=options.work / "runs",
        seed=seed,
        eval_every=1,
        recipe="cellpose",
    )
    words = [word for word in recipe.split(",") if word != "scratch"]
    given = {
        key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words)
    }
    given |= {"n_epochs": len(PARTS) - 1, "nimg_per_epoch": 8 * options.steps // (len(PARTS) - 1)}
    if len(words) == len(recipe.split(",")):
        given["pretrained_model"] = str(options.model)
    config = with_settings(config, given, f"recipe {recipe!r}")
    check_config(config)
    return config


def scores_of(config: TrainConfig) -> pd.DataFrame:
    """Score of every test image, a row per image and a column per epoch."""
    path = RunFolder(config.runs_dir / config.name).fold(0).evaluations
    if not path.exists():
        cellflow.train(replace(config))
    rows = read_table(path, ["epoch", "weights", "id", "score"])
    averaged = rows[rows["weights"] == "ema"]
    rows = averaged if len(averaged) else rows
    return rows.pivot(index="id", columns="epoch", values="score")


def print_row(recipe: str, count: int, tables: list[pd.DataFrame]) -> None:
    mean = pd.concat(tables).groupby(level=0).mean()
    cells = [f"{mean[epoch].mean():.4f}" if epoch in mean else "" for epoch in range(len(PARTS))]
    against = ""
    if 0 in mean:
        found = bootstrap_mean((mean[len(PARTS) - 1] - mean[0]).to_numpy())
        against = f"{found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
    print(f"| {count} | {recipe} | {len(tables)} | {' | '.join(cells)} | {against} |", flush=True)


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipes", nargs="+", metavar="NAME=VALUE,NAME=VALUE")
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--kind", default="fluo_dark", help="class of the images")
    parser.add_argument("--model", type=Path, required=True, help="file to start from")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--tests", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    columns = " | ".join(f"{part:.0%}" for part in PARTS)
    print(f"| images | recipe | trainings | {columns} | against start |")
    print("|---|---|---|" + "---|" * len(PARTS) + "---|", flush=True)
    for count in options.images:
        for recipe in options.recipes:
            configs = [config_of(options, recipe, count, seed) for seed in options.seeds]
            print_row(recipe, count, [scores_of(config) for config in configs])


if __name__ == "__main__":
    main()

"""A thousand random splits, and some runs: disjoint, complete, groups whole, no row from a model that saw its image.

    python benchmarks/random_splits.py [--splits 1000] [--runs 10]

The splits and what is asked of them are those of ``tests/engine/data/test_random_splits.py``; here every one is written
as ``folds.csv`` and checked as it is read again. Runs are those of a narrow U-Net on 9 small images in wells of two or
three, split at random, trained for an epoch in all folds, predicted out of fold, and checked by what ``cellflow verify
RUN`` calls, which reads files alone.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from small import small_training

from cellflow import FoldsConfig, OofConfig, make_folds, oof, train
from cellflow.config import VerifyConfig
from cellflow.engine.validation.verify import verify
from cellflow.io.dataset import Dataset
from cellflow.io.fold_table import read_fold_table, write_fold_table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "engine" / "data"))

from test_random_splits import check_split, random_split


def check_splits(count: int, folder: Path) -> Counter[str]:
    """Make splits until there are so many; what was refused is counted too."""
    found, seed = Counter[str](), 0
    while found["splits"] < count:
        seed += 1
        split = random_split(seed)
        if split is None:
            found["refused"] += 1
            continue
        images, config, folds, group = split
        path = folder / "folds.csv"
        write_fold_table(path, folds, {"group": group})
        check_split(images, config, read_fold_table(path, list(images.index)), group)
        found["splits"] += 1
        found["images"] += len(images)
        found[f"{config.split}, {config.k} folds" if config.split == "kfold" else "holdout"] += 1
    return found


def check_run(seed: int, folder: Path) -> tuple[int, list[str]]:
    """Rows of out-of-fold scores of a run with a random split, and what is wrong with it."""
    rng = np.random.default_rng(seed)
    config = small_training(folder, images=9, shape=(64, 80))
    table = config.data / "images.csv"
    wells = pd.read_csv(table, dtype=str).assign(well=[f"w{at}" for at in rng.integers(0, 4, 9)])
    wells.loc[:3, "well"] = ["w0", "w1", "w2", "w3"]
    wells.to_csv(table, index=False)
    k = int(rng.integers(2, 4))
    make_folds(FoldsConfig(data=config.data, k=k, seed=seed, group="well", overwrite=True))
    optim = replace(config.optim, n_epochs=1)
    train(replace(config, fold=("all",), seed=seed, optim=optim))
    oof(OofConfig("small", runs_dir=config.runs_dir, policy="dataset", runtime=config.runtime))
    run = config.runs_dir / "small"
    checked = verify(VerifyConfig(run, runs_dir=config.runs_dir))
    folds, images = read_fold_table(run / "folds.csv"), Dataset.open(config.data).images
    assert folds.groupby(images["well"]).nunique().max() == 1
    rows = pd.read_csv(run / "oof" / "scores.csv", dtype={"id": str}).set_index("id")["fold"]
    assert sorted(rows.index) == sorted(folds.index) and (rows == folds[rows.index]).all()
    return len(rows), [f"{item}" for item in checked.findings if item.wrong]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        found = check_splits(options.splits, Path(folder))
    kinds = ", ".join(f"{name}: {count:,}" for name, count in sorted(found.items()))
    print(f"sound: {found['splits']:,} splits ({kinds})")
    rows, wrong = 0, list[str]()
    for seed in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            count, problems = check_run(seed, Path(folder))
        rows, wrong = rows + count, wrong + problems
    print(f"verified: {options.runs} runs, {rows} out-of-fold rows, {len(wrong)} problems")
    for text in wrong:
        print(f"- {text}")


if __name__ == "__main__":
    main()

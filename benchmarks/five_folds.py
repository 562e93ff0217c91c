"""Five fold models, ensembled and calibrated by the README's commands, against one `train_seg` on all images.

    python benchmarks/five_folds.py --source usiigaci --work FOLDER --splits 0 1 2

A split takes 16 images of SOURCE (a folder with `images/` and `masks/`) to train and 6 others to test. Tests are
taken from images that had no part in choosing the recipe (those that are not in fold 0 of `cellflow folds --k 4`);
two of them are in two tests. Cellpose's `train_seg` trains one network on all 16 by its defaults, for `--epochs`
epochs, and segments by `CellposeModel.eval` at its defaults. Five folds get as many optimizer steps each, of as
many crops: `prepare`, `folds --k 5`, `train --fold all` with the settings after `--`, `oof`, `calibrate`,
`ensemble`. What is done is not done again. Printed is a Markdown table of mean scores by split, and the difference
to `train_seg` with its 95 % interval over images (an image of two tests counts once, by its mean).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from cellpose import models

from cellflow import competition_score
from cellflow.io.dataset import Dataset
from cellflow.numeric.bootstrap import bootstrap_mean

TESTS = [slice(0, 6), slice(6, 12), slice(10, 16)]
"""Places of the test images of each split, in the shuffled order of fresh images."""


def cellflow(options: argparse.Namespace, folder: Path, *words: str) -> None:
    """A command, as one types it, in the folder of a split; its time is printed."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "cellflow", *words], cwd=folder, check=True)
    print(
        f"{folder.name}: cellflow {' '.join(words)}: {time.monotonic() - started:.0f} s", flush=True
    )


def make_split(options: argparse.Namespace, number: int) -> Path:
    """Folders of the images that train, and of those that test."""
    folder: Path = options.work / f"split{number}"
    if folder.is_dir():
        return folder
    whole = options.work / "whole"
    if not whole.is_dir():
        options.work.mkdir(parents=True, exist_ok=True)
        cellflow(options, options.work, "prepare", str(options.source.resolve()), "--out", "whole")
        cellflow(options, options.work, "folds", "--data", "whole", "--k", "4")
    folds = pd.read_csv(whole / "folds.csv", dtype={"id": str}).set_index("id")["fold"]
    fresh = np.random.default_rng(0).permutation(sorted(folds.index[folds != 0]))
    tested = set(fresh[TESTS[number]])
    for name in folds.index:
        for kind in ("images", "masks"):
            place = folder / ("test" if name in tested else "train") / kind
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(options.source / kind / f"{name}.png", place)
    cellflow(options, folder, "prepare", "train", "--out", "data")
    cellflow(options, folder, "prepare", "test", "--out", "unseen")
    cellflow(options, folder, "folds", "--data", "data", "--k", "5")
    return folder


def train_one(options: argparse.Namespace, folder: Path) -> Path:
    """A network that Cellpose trained on all training images."""
    path = folder / "train_seg" / "models" / "train_seg"
    if not path.is_file():
        program = Path(__file__).with_name("against_train_seg.py")
        words = ["train", "--data", "data", "--fold", "none", "--epochs", str(options.epochs)]
        words += ["--out", "train_seg"]
        subprocess.run([sys.executable, str(program), *words], cwd=folder, check=True)
    return path


def score_one(folder: Path, model: Path) -> pd.Series[float]:
    """Score of every test image by `CellposeModel.eval`."""
    network = models.CellposeModel(gpu=False, pretrained_model=str(model))
    return scores(folder, lambda image, _: network.eval(image, channels=[0, 0])[0].astype(np.int32))


def scores(folder: Path, segment) -> pd.Series[float]:
    unseen = Dataset.open(folder / "unseen")
    names = list(unseen.ids)
    found = [segment(unseen.image(name), name) for name in names]
    score = competition_score([unseen.instances(name) for name in names], found)
    return pd.Series(score.per_image, index=names)


def train_folds(options: argparse.Namespace, folder: Path) -> None:
    """The README's commands from training to the ensemble's masks."""
    name = options.name
    if (folder / "predictions" / name / "masks").is_dir():
        return
    taught = ["train", "--data", "data", "--name", name, "--fold", "all", "--n_epochs"]
    cellflow(options, folder, *taught, str(options.epochs), *options.settings)
    cellflow(options, folder, "oof", name)
    cellflow(options, folder, "calibrate", name)
    cellflow(options, folder, "ensemble", name, "--images", "test/images")


def score_folds(folder: Path, name: str) -> pd.Series[float]:
    """Score of every test image by the ensemble's masks on disk."""
    masks = folder / "predictions" / name / "masks"
    return scores(folder, lambda _, image: tifffile.imread(masks / f"{image}.tif"))


def print_table(tables: list[tuple[int, str, pd.Series[float]]]) -> None:
    rows: dict[str, dict[int, pd.Series[float]]] = {}
    for number, name, table in tables:
        rows.setdefault(name, {})[number] = table
    first = rows["train_seg"]
    print(
        "\n| | score | by split | difference | 95 % interval | by split |\n|---|---|---|---|---|---|"
    )
    for name, own in rows.items():
        means = [own[number].mean() for number in own]
        gains = {number: own[number] - first[number] for number in own if number in first}
        gain = pd.concat(gains.values()).groupby(level=0).mean()
        found = bootstrap_mean(gain.to_numpy(), groups=np.arange(len(gain)))
        each = " ".join(f"{gains[number].mean():+.4f}" for number in gains)
        print(
            f"| {name} | {np.mean(means):.4f} | {' '.join(f'{mean:.4f}' for mean in means)} | {found.mean:+.4f} "
            f"| {found.low:+.4f} to {found.high:+.4f} | {each} |"
        )
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("settings", nargs="*", help="of `cellflow train`, after --")
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=70)
    parser.add_argument("--name", default="auto", help="of the run")
    options = parser.parse_args()
    tables = []
    for number in options.splits:
        folder = make_split(options, number)
        train_folds(options, folder)
        tables.append((number, "train_seg", score_one(folder, train_one(options, folder))))
        tables.append((number, f"five folds, {options.name}", score_folds(folder, options.name)))
        print_table(tables)


if __name__ == "__main__":
    main()

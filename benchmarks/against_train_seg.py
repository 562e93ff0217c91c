"""Train one fold with cellpose's own `train_seg`, for comparison with `cellflow train` on the same split.

    python benchmarks/against_train_seg.py train --data DATASET --fold 0 --epochs 150 --out FOLDER
    python benchmarks/against_train_seg.py score --data DATASET --fold 0 MODEL [MODEL ...]

`train` takes cellpose's defaults: AdamW at 0.005, weight decay 1e-5, batches of 8 crops of 224, its
schedule and its augmentation; with `--fold none` it takes all images. Both trainings start from new
weights. `score` segments the fold's validation images with `CellposeModel.eval` at its defaults, whoever
trained the model, and prints the competition score and the precision at IoU 0.5.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from cellpose import models, train

from cellflow import average_precision, competition_score
from cellflow.engine.data.folds import load_folds
from cellflow.io.dataset import Dataset


def split(data: Path, fold: int | None) -> tuple[Dataset, list[str], list[str]]:
    dataset = Dataset.open(data)
    if fold is None:
        return dataset, list(dataset.ids), []
    folds = load_folds(dataset)
    training = [name for name in folds.index if folds[name] >= 0 and folds[name] != fold]
    return dataset, training, [name for name in folds.index if folds[name] == fold]


def run_train_seg(data: Path, fold: int | None, epochs: int, seed: int, out: Path) -> None:
    dataset, names, _ = split(data, fold)
    torch.manual_seed(seed)
    model = models.CellposeModel(gpu=torch.cuda.is_available(), pretrained_model=None)
    net = model.net
    steps: list[float] = []
    step = torch.optim.AdamW.step

    def timed_step(self, *args, **kwargs):
        result = step(self, *args, **kwargs)
        steps.append(time.perf_counter())
        return result

    torch.optim.AdamW.step = timed_step
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    path, losses, _ = train.train_seg(
        net,
        train_data=[dataset.image(name) for name in names],
        train_labels=[dataset.labels(name) for name in names],
        channels=[0, 0],
        n_epochs=epochs,
        batch_size=8,
        save_path=out,
        model_name="train_seg",
    )
    between = np.diff(steps)
    facts = {
        "seconds": time.perf_counter() - started,
        "steps": len(steps),
        "seconds_per_step_median": float(np.median(between)),
        "seconds_per_step_quartiles": np.quantile(between, [0.25, 0.75]).tolist(),
        "last_loss": float(losses[-1]),
        "threads": torch.get_num_threads(),
        "model": str(path),
    }
    (out / "train_seg.json").write_text(json.dumps(facts, indent=1))
    print(json.dumps(facts, indent=1))


def score(data: Path, fold: int, paths: list[Path]) -> None:
    dataset, _, names = split(data, fold)
    truth = [dataset.instances(name) for name in names]
    for path in paths:
        model = models.CellposeModel(gpu=torch.cuda.is_available(), pretrained_model=str(path))
        found = [
            model.eval(dataset.image(name), channels=[0, 0])[0].astype(np.int32) for name in names
        ]
        precision = average_precision(truth, found, [0.5]).mean
        mean = competition_score(truth, found).mean
        print(f"{path}: {len(names)} images, score {mean:.4f}, AP50 {precision:.4f}", flush=True)


def fold_number(text: str) -> int | None:
    return None if text == "none" else int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("train", "score"):
        command = commands.add_parser(name)
        command.add_argument("--data", type=Path, required=True)
        command.add_argument("--fold", type=fold_number, default=0)
        if name == "train":
            command.add_argument("--epochs", type=int, default=150)
            command.add_argument("--seed", type=int, default=0)
            command.add_argument("--out", type=Path, required=True)
        else:
            command.add_argument("models", type=Path, nargs="+")
    options = parser.parse_args()
    if options.command == "train":
        run_train_seg(options.data, options.fold, options.epochs, options.seed, options.out)
    else:
        score(options.data, options.fold, options.models)


if __name__ == "__main__":
    main()

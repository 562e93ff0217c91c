"""Whether images that `cellflow suggest` names teach more than images drawn at random.

    python benchmarks/suggest.py --work suggest-bench [--split 0] [--seeds 3] [--steps 150]

The 180 images of dsb2018 in ../shared are split by type, pictures that are forms of one another together: a test
set that nothing touches but the last score, 15 images to start with, and a pool without annotation. A small
committee is trained on the 15, predicts them out of fold (which teaches it the types), and `suggest` names 15 of
the pool. Then networks are trained from scratch on the 15 and those, and on the 15 and as many drawn at random,
once per seed; the seed draws the random images, the weights, the order and the crops. Test images are seen at
their own true diameter, so that what is compared is what the images teach; at_mean is at that of the training
images, which odd images among these move. Trainings are short: what is compared is the choice of images, not how
good a network can be; --widths 32 64 128 256 is Cellpose's U-Net, without it one of half its width, which takes a
quarter of the time. What is done is kept, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import cellflow
from cellflow.config import (
    FoldsConfig,
    ModelConfig,
    OofConfig,
    OptimConfig,
    PrepareConfig,
    RuntimeConfig,
    SamplingConfig,
    SuggestConfig,
    TrainConfig,
)
from cellflow.io.images import read_image, read_labels
from cellflow.nn.checkpoint import save_model_file
from cellflow.nn.networks import UNet
from cellflow.numeric.bootstrap import bootstrap_mean
from cellflow.numeric.labels import median_diameter
from cellflow.numeric.near_copies import fingerprint, first_of_copies
from cellflow.rng import generator
from cellflow.storage.atomic import write_json

SOURCE = Path(__file__).resolve().parents[2] / "shared" / "data" / "dsb2018"
DIAMETER = 20.0
"""In pixels, about that of the images' cells, so that these are seen as they are."""
CPU = RuntimeConfig(device="cpu", amp="bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", type=Path, default=SOURCE)
    parser.add_argument("--work", type=Path, default=Path("suggest-bench"))
    parser.add_argument("--start", type=int, default=15)
    parser.add_argument("--add", type=int, default=15)
    parser.add_argument("--test", type=int, default=48)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", type=int, default=0, help="another number, another test set")
    parser.add_argument("--folds", type=int, default=3, help="of the committee that suggests")
    parser.add_argument("--widths", type=int, nargs=4, default=[16, 32, 64, 128])
    parser.add_argument("--steps", type=int, default=150)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    parts = split(args)
    say(f"{ {name: len(ids) for name, ids in parts.items()} }")
    suggested = suggestions(args, parts)
    say(f"suggested: {types_of(args, suggested)}")
    rows = []
    for seed in range(args.seeds):
        drawn = (
            generator(seed, "random images").choice(parts["pool"], args.add, replace=False).tolist()
        )
        say(f"random, seed {seed}: {types_of(args, drawn)}")
        for arm, added in (("suggested", suggested), ("random", drawn)):
            rows.append(score(args, parts, f"{arm}_{seed}", added, seed).assign(arm=arm, seed=seed))
            say(
                f"{arm} {seed}: score {rows[-1]['score'].mean():.4f}, ap50 {rows[-1]['ap50'].mean():.4f}"
            )
        report(pd.concat(rows))


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def types_of(args: argparse.Namespace, ids: list[str]) -> dict[str, int]:
    return dict(classes(args).loc[ids].value_counts().sort_index())


def classes(args: argparse.Namespace) -> pd.Series[str]:
    return pd.read_csv(args.source / "classes.csv", dtype=str).set_index("id")["cell_type"]


def split(args: argparse.Namespace) -> dict[str, list[str]]:
    """Ids of the three parts, every type in each by its share; forms of one picture lie together."""
    path = args.work / "split.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    types = classes(args)
    ids = sorted(types.index)
    prints = [fingerprint(read_image(args.source / "images" / f"{name}.png")) for name in ids]
    sets = dict(zip(ids, first_of_copies(prints).tolist(), strict=True))
    parts: dict[str, list[str]] = {"test": [], "start": [], "pool": []}
    for kind in sorted(types.unique()):
        of_kind = [name for name in ids if types[name] == kind]
        order = generator(args.split, "split", kind).permutation(
            sorted({sets[name] for name in of_kind})
        )
        groups = [[name for name in of_kind if sets[name] == number] for number in order]
        for part, count in (("test", args.test), ("start", args.start)):
            wanted = max(1, round(count * len(of_kind) / len(ids)))
            while groups and sum(types[name] == kind for name in parts[part]) < wanted:
                parts[part] += groups.pop()
        parts["pool"] += [name for group in groups for name in group]
    parts = {name: sorted(found) for name, found in parts.items()}
    write_json(path, parts)
    return parts


def dataset(args: argparse.Namespace, name: str, ids: list[str], k: int) -> Path:
    """A prepared dataset of these images with folds."""
    out = args.work / "data" / name
    if out.exists():
        return Path(out)
    source = args.work / "sources" / name
    for folder in ("images", "masks"):
        (source / folder).mkdir(parents=True, exist_ok=True)
        for image in ids:
            shutil.copyfile(args.source / folder / f"{image}.png", source / folder / f"{image}.png")
    classes(args).loc[ids].reset_index().to_csv(source / "table.csv", index=False)
    cellflow.prepare(PrepareConfig(source=source, out=out, table=source / "table.csv"))
    cellflow.make_folds(FoldsConfig(data=out, k=k))
    shutil.rmtree(source)
    return Path(out)


def training(args: argparse.Namespace, name: str, data: Path, fold: str, seed: int) -> TrainConfig:
    per_epoch = args.steps // 10
    start = args.work / f"untrained_{seed}.pt"
    if not start.exists():
        torch.manual_seed(seed)
        save_model_file(start, UNet(DIAMETER, widths=args.widths), {"chan": 0, "chan2": 0})
    return TrainConfig(
        data=data, name=name, runs_dir=args.work / "runs", fold=(fold,), seed=seed, eval_every=10,
        recipe="cellpose",
        model=ModelConfig(pretrained_model=str(start)),
        optim=OptimConfig(optimizer="adamw", schedule="cosine", n_epochs=10, batch_size=4),
        sampling=SamplingConfig(nimg_per_epoch=4 * per_epoch, bsize=112, min_train_masks=1),
        runtime=CPU,
    )  # fmt: skip


def suggestions(args: argparse.Namespace, parts: dict[str, list[str]]) -> list[str]:
    """What the committee of the first images suggests from the pool."""
    table = args.work / "suggestions" / "start" / "suggest.csv"
    if not table.exists():
        data = dataset(args, "start", parts["start"], args.folds)
        cellflow.train(training(args, "start", data, "all", 0))
        say("the committee is trained")
        cellflow.oof(OofConfig("start", runs_dir=args.work / "runs", runtime=CPU))
        listed = args.work / "pool.txt"
        listed.write_text(
            "".join(f"{args.source / 'images' / name}.png\n" for name in parts["pool"])
        )
        result = cellflow.suggest(
            SuggestConfig(
                run="start", images=(listed,), n=args.add, runs_dir=args.work / "runs",
                out=args.work / "suggestions", runtime=CPU,
            )
        )  # fmt: skip
        say(
            f"looked at {result.looked_at}, left out {len(result.left_out)}, failed {len(result.failed)}"
        )
    return [str(name) for name in pd.read_csv(table, dtype={"id": str})["id"]]


def score(
    args: argparse.Namespace, parts: dict[str, list[str]], name: str, added: list[str], seed: int
) -> pd.DataFrame:
    """Scores of each test image by a network trained from scratch on the first images and these."""
    path = args.work / "scores" / f"{name}.csv"
    if path.exists():
        return pd.read_csv(path, dtype={"id": str})
    data = dataset(args, name, parts["start"] + added, 10)
    cellflow.train(training(args, name, data, "0", seed))
    model = cellflow.load_model(
        args.work / "runs" / name / "fold_0" / "best.pt", device="cpu", amp="bfloat16"
    )
    rows: list[dict[str, Any]] = []
    for one in parts["test"]:
        truth = read_labels(args.source / "masks" / f"{one}.png")
        image = read_image(args.source / "images" / f"{one}.png")
        own = model.predict(image, diameter=max(median_diameter(truth), 4.0))
        row: dict[str, Any] = {"id": one}
        for end, found in (("", own), ("_at_mean", model.predict(image))):
            scored = cellflow.competition_score(truth, found.labels)
            row |= {f"score{end}": scored.mean, f"ap50{end}": float(scored.per_threshold[0])}
        rows.append(row)
    path.parent.mkdir(exist_ok=True)
    table = pd.DataFrame(rows)
    table.to_csv(path, index=False)
    # networks are 26 MB each, with their training states 80 more
    shutil.rmtree(args.work / "runs" / name)
    return table


def report(table: pd.DataFrame) -> None:
    """Means, and paired differences over images: each the mean over the seeds, so that those count once."""
    for column in ("score", "ap50", "score_at_mean", "ap50_at_mean"):
        wide = table.pivot_table(index=["id", "seed"], columns="arm", values=column)
        difference = wide["suggested"] - wide["random"]
        by_seed = difference.groupby("seed").mean()
        found = bootstrap_mean(difference.groupby("id").mean().to_numpy())
        means = ", ".join(f"{arm} {wide[arm].mean():.4f}" for arm in ("suggested", "random"))
        say(
            f"{column}: {means}; suggested - random {found.mean:+.4f} (95 % over test images {found.low:+.4f} to "
            f"{found.high:+.4f}); by seed {', '.join(f'{one:+.4f}' for one in by_seed)}, standard error over seeds "
            f"{by_seed.std(ddof=1) / np.sqrt(len(by_seed)):.4f}"
        )


if __name__ == "__main__":
    main()

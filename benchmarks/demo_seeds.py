"""`cellflow demo` at several seeds and numbers of threads: which diameter policy is kept, and what it costs.

    python benchmarks/demo_seeds.py [--work demo-seeds] [--seeds 10] [--threads 1 2] [--width 1]

Every demo is run in a process of its own with so many threads, and kept under --work: the same command again
goes on where it stopped, and --again repeats all that follows the training. Then the demo's unseen images are
segmented by its ensemble at every policy, `told` with the diameter of the told type however far the image's own
estimate is from it. Printed is a Markdown table: the out-of-fold score of every policy, the one that is kept, the
demo's own score of the unseen images, their score at every policy, how many of their types are not told right, how
many of these are unsure, and how many images take their own estimate under the policy `type`.

--width 0.25 trains networks of a quarter of the U-Net's feature maps, in a tenth of the time; they tell types and
diameters less well, which is what is to be seen here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cellflow.config import (
    CalibrateConfig,
    DemoConfig,
    EnsembleConfig,
    OofConfig,
    OutputConfig,
    RuntimeConfig,
)
from cellflow.config.shared import POLICIES
from cellflow.engine.experiments.demo import demo
from cellflow.engine.prediction.ensemble import ensemble
from cellflow.engine.runtime.machine import choose_machine
from cellflow.engine.segmentation.open_models import open_models
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.engine.training import start_network
from cellflow.engine.validation.calibrate import calibrate
from cellflow.engine.validation.oof import oof
from cellflow.io.images import read_labels
from cellflow.nn.networks import UNet
from cellflow.numeric.score import competition_score
from cellflow.storage.run_folder import RunFolder
from cellflow.synthetic import SyntheticImage, synthetic_dataset

FULL = (32, 64, 128, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("demo-seeds"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--width", type=float, default=1.0, help="part of the U-Net's feature maps")
    parser.add_argument("--again", action="store_true", help="repeat what follows the training")
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one_demo(options, *options.one)
        return
    for threads in options.threads:
        for seed in range(options.seeds):
            if (
                options.again
                or not place(options.work, seed, threads).with_suffix(".json").exists()
            ):
                run_alone(seed, threads)
    print_table(options)


def run_alone(seed: int, threads: int) -> None:
    """One demo in a process of its own: the number of threads is settled when it starts."""
    command = [sys.executable, __file__, *sys.argv[1:], "--one", str(seed), str(threads)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)})


def place(work: Path, seed: int, threads: int) -> Path:
    return work / f"seed{seed}_threads{threads}"


def one_demo(options: argparse.Namespace, seed: int, threads: int) -> None:
    """Run a demo, or what follows its training, and write what came of it."""
    out, runtime = place(options.work, seed, threads), RuntimeConfig(threads=threads)
    config = DemoConfig(out=out, seed=seed, runtime=runtime)
    if options.width != 1:
        start_network.DEFAULT = narrowed(options.width)
    if out.with_suffix(".json").exists():
        unseen = list(synthetic_dataset(config.images + config.unseen, seed=seed))[config.images :]
        own = repeated(config, unseen)
    else:
        own = demo(config).score
        unseen = list(synthetic_dataset(config.images + config.unseen, seed=seed))[config.images :]
    facts = {"seed": seed, "threads": threads, "demo": own, **at_policies(out, runtime, unseen)}
    facts["choice"] = json.loads((out / "runs/demo/oof/oof.json").read_text())["diameters"]
    out.with_suffix(".json").write_text(json.dumps(facts, indent=1))


def narrowed(part: float) -> type[UNet]:
    """A U-Net with this part of the feature maps."""
    narrow = tuple(int(width * part) for width in FULL)

    class Narrow(UNet):
        style_size = narrow[-1]

        def __init__(
            self, diam_mean: float = 30.0, *, channels: int = 2, widths: tuple[int, ...] = narrow
        ) -> None:
            super().__init__(diam_mean, channels=channels, widths=widths)

    return Narrow


def repeated(config: DemoConfig, unseen: list[SyntheticImage]) -> float:
    """Score of a demo whose training is there, from its later commands."""
    out, runs = config.out, config.out / "runs"
    oof(OofConfig(run="demo", runs_dir=runs, runtime=config.runtime))
    calibrate(CalibrateConfig(("demo",), runs_dir=runs, ensembles_dir=out / "ensembles"))
    result = ensemble(
        EnsembleConfig(
            images=(out / "unseen" / "images",), runs=("demo",), runs_dir=runs,
            ensembles_dir=out / "ensembles",
            output=OutputConfig(out=out / "predictions", overwrite=True), runtime=config.runtime,
        )
    )  # fmt: skip
    found = [read_labels(result.masks / f"{item.id}.tif") for item in unseen]
    return competition_score([item.labels for item in unseen], found).mean


def at_policies(out: Path, runtime: RuntimeConfig, unseen: list[SyntheticImage]) -> dict[str, Any]:
    """Mean score of the unseen images at every policy, and how well their types are told."""
    run = RunFolder(out / "runs/demo")
    opened = open_models([str(run.path)], choose_machine(runtime), ensembles_dir=out / "ensembles")
    told = tuple(
        replace(member, styles=replace(member.styles, type_factor=None))
        for member in opened.members
        if member.styles is not None
    )
    scores, facts = {}, {}
    for name in (*POLICIES, "told"):
        segmenter = Segmenter(
            told if name == "told" else opened.members,
            opened.thresholds.shared,
            policy="type" if name == "told" else name,  # type: ignore[arg-type]
            per_type=opened.thresholds.per_type,
        )
        results = [segmenter.predict(item.image) for item in unseen]
        labels = [result.labels for result in results]
        scores[name] = competition_score([item.labels for item in unseen], labels).mean
        if name == "type":
            pairs = list(zip(unseen, results, strict=True))
            facts["wrong"] = sum(result.cell_type != item.cell_type for item, result in pairs)
            facts["unsure"] = sum(not result.cell_type for result in results)
            facts["own"] = sum(result.diameter == result.recognition.diameter for result in results)
    return {"scores": scores, **facts}


def print_table(options: argparse.Namespace) -> None:
    """A row per demo that is there, the mean and the worst, and how far numbers of threads are apart."""
    every = [place(options.work, s, t) for s in range(options.seeds) for t in options.threads]
    rows = [
        json.loads(item.with_suffix(".json").read_text())
        for item in every
        if item.with_suffix(".json").exists()
    ]
    policies = ["dataset", "image", "type"]
    shown = [*policies, "told"]
    head = [
        "seed", "threads", *(f"OOF {name}" for name in policies), "kept", "demo", *shown,
        "not told", "unsure", "own estimate",
    ]  # fmt: skip
    print("|", " | ".join(head), "|\n" + "|---" * len(head) + "|")
    for row in rows:
        cells = [row["seed"], row["threads"]]
        cells += [f"{row['choice']['scores'][name]:.4f}" for name in policies]
        cells += [row["choice"]["policy"], f"{row['demo']:.4f}"]
        cells += [f"{row['scores'][name]:.4f}" for name in shown]
        print("|", " | ".join(map(str, [*cells, row["wrong"], row["unsure"], row["own"]])), "|")
    for word, take in (("mean", np.mean), ("worst", np.min)):
        parts = {name: float(take([row["scores"][name] for row in rows])) for name in shown}
        told = ", ".join(f"{name} {score:.4f}" for name, score in parts.items())
        print(f"\n{word}: demo {float(take([row['demo'] for row in rows])):.4f}; at {told}")
    pairs = [
        [row["demo"] for row in rows if row["seed"] == seed]
        for seed in sorted({row["seed"] for row in rows})
    ]
    apart = [max(pair) - min(pair) for pair in pairs if len(pair) > 1]
    if apart:
        print(
            f"\nbetween numbers of threads: {np.mean(apart):.4f} on average, at most {max(apart):.4f}"
        )


if __name__ == "__main__":
    main()

"""Speed of prediction: the network by itself, and whole images against cellpose, in turns.

    python benchmarks/predict_bench.py forward
    python benchmarks/predict_bench.py predict --images 3
    python benchmarks/predict_bench.py agree --images 14
    python benchmarks/predict_bench.py start

`forward` runs a real U-Net on 8 tiles of 224 x 224: cellpose's network as its `eval` runs it, and ours
by every engine and precision. `predict` segments 1022 x 1024 images with `CellposeModel.eval` at its
defaults and with one and five members. `agree` compares the masks and the score of the engines.
`start` is what an engine takes before its first tile. Needs ../shared and cellpose 3.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from inputs import SHARED
from train_bench import say_machine, spread, timed_in_turns

from cellflow import average_precision, competition_score, load_model
from cellflow.engine.segmentation.loaded_model import Model
from cellflow.io.images import read_image, read_labels
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.nn.runners import make_runner
from cellflow.nn.runners.conversions import CACHE_VARIABLE

CPU = torch.device("cpu")
MODEL = SHARED / "models" / "usiigaci_unet"
SOURCE = SHARED / "data" / "usiigaci"
TILES = (8, 2, 224, 224)
MEMBERS = 5


@dataclass(frozen=True)
class Way:
    """An engine with a precision."""

    engine: str
    amp: torch.dtype | None

    @property
    def name(self) -> str:
        return f"{self.engine} {'float32' if self.amp is None else 'bfloat16'}"


TODAY = Way("torch", torch.bfloat16)
WAYS = (Way("torch", None), TODAY, Way("openvino", None), Way("openvino", torch.bfloat16))


def cellpose_model() -> object:
    from cellpose.models import CellposeModel

    logging.getLogger("cellpose").setLevel(logging.ERROR)
    return CellposeModel(gpu=False, pretrained_model=str(MODEL))


def bench_forward(options: argparse.Namespace) -> None:
    """Seconds of one call, and how many times faster than torch in the same precision."""
    tiles = np.random.default_rng(0).random(TILES, dtype=np.float32)
    net = load_model_file(MODEL).net
    theirs = cellpose_model().net.eval()
    runners = {way.name: make_runner(net, engine=way.engine, amp=way.amp) for way in WAYS}
    exact = runners["torch float32"].run(tiles)[0]

    def run_theirs() -> object:
        with torch.no_grad():
            return theirs(torch.from_numpy(tiles))[0]

    def calling(name: str) -> Callable[[], object]:
        return lambda: runners[name].run(tiles)

    calls = {"cellpose float32": run_theirs} | {name: calling(name) for name in runners}
    seconds = timed_in_turns(calls, options.turns, CPU)
    print(
        "| 8 tiles of 224 x 224 | s | against torch | spread | mean error |\n|---|---|---|---|---|"
    )
    for name, values in seconds.items():
        base = seconds[f"torch {name.split()[-1]}"]
        ratios = [a / b for a, b in zip(base, values, strict=True)]
        found = exact if name not in runners else runners[name].run(tiles)[0]
        error = np.abs(found - exact).mean()
        print(
            f"| {name} | {statistics.median(values):.3f} | {spread(ratios, ' x')} | {error:.4f} |"
        )
    print(f"\nmean of the outputs' absolute values: {np.abs(exact).mean():.1f}")


def members(folder: Path) -> list[Path]:
    """Files of as many networks as the ensemble has: the real one, its weights changed by a hair."""
    paths = []
    for number in range(MEMBERS):
        net = load_model_file(MODEL).net
        net.output[2].bias.data += 1e-4 * number
        save_model_file(folder / f"member_{number}.pt", net, {"chan": 0, "chan2": 0})
        paths.append(folder / f"member_{number}.pt")
    return paths


def bench_predict(options: argparse.Namespace) -> None:
    """Seconds for all images of cellpose, and of ours as a part of that."""
    images = [read_image(path) for path in image_files(options.images)]
    theirs = cellpose_model()
    with tempfile.TemporaryDirectory() as folder:
        paths = members(Path(folder))
        ours: dict[str, Model] = {}
        for engine in ("torch", "openvino"):
            ours[f"{engine}, 1 member"] = load_model(paths[0], device="cpu", engine=engine)
            ours[f"{engine}, {MEMBERS} members"] = load_model(paths, device="cpu", engine=engine)

        def calling(model: Model) -> Callable[[], object]:
            return lambda: [model.predict(image).labels for image in images]

        calls = {"cellpose eval": lambda: [theirs.eval(i, channels=[0, 0])[0] for i in images]}
        calls |= {name: calling(model) for name, model in ours.items()}
        seconds = timed_in_turns(calls, options.turns, CPU)
    base = seconds["cellpose eval"]
    print(
        f"| {len(images)} images of {images[0].shape[0]} x {images[0].shape[1]} | s | of cellpose's | spread |"
    )
    print("|---|---|---|---|")
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(values, base, strict=True)]
        print(f"| {name} | {statistics.median(values):.2f} | {spread(ratios, ' x')} |", flush=True)


def image_files(count: int) -> list[Path]:
    return sorted((SOURCE / "images").glob("*.png"))[:count]


def bench_agree(options: argparse.Namespace) -> None:
    """Masks of every way against torch's in float32 and bfloat16, and the score against truth."""
    files = image_files(options.images)
    images = [read_image(path) for path in files]
    truth = [read_labels(SOURCE / "masks" / path.name) for path in files]
    labels = {}
    for way in WAYS:
        amp = "off" if way.amp is None else "bfloat16"
        model = load_model(MODEL, device="cpu", amp=amp, engine=way.engine)
        labels[way.name] = [model.predict(image).labels for image in images]
    header = " | ".join(f"AP at 0.95 with {way.name}" for way in WAYS[:2])
    print(f"| {len(files)} images | {header} | score | cells |\n|---|---|---|---|---|")
    for name, found in labels.items():
        agreement = [
            average_precision(labels[way.name], found, thresholds=(0.95,)).mean for way in WAYS[:2]
        ]
        score = competition_score(truth, found).mean
        cells = sum(int(one.max()) for one in found)
        columns = " | ".join(f"{value:.4f}" for value in agreement)
        print(f"| {name} | {columns} | {score:.4f} | {cells} |", flush=True)


def bench_start(options: argparse.Namespace) -> None:
    """Seconds that a conversion takes, the first with the import of the engine; and one from disk."""
    net = load_model_file(MODEL).net
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = folder
        for keep, times in ((False, 3), (True, 4)):
            for number in range(times):
                started = time.perf_counter()
                make_runner(net, engine="openvino", amp=torch.bfloat16, keep=keep).prepare()
                what = "from disk" if keep and number else "kept" if keep else "converted"
                print(f"{what}: {time.perf_counter() - started:.2f} s")


def main() -> None:
    parts = {
        "forward": bench_forward,
        "predict": bench_predict,
        "agree": bench_agree,
        "start": bench_start,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=parts)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--images", type=int, default=3)
    options = parser.parse_args()
    say_machine()
    parts[options.part](options)


if __name__ == "__main__":
    main()

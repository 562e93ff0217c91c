"""Memory over thousands of steps: does it grow?

    python benchmarks/flat_memory.py [--steps 2000] [train] [predict] [command]

`train` trains a U-Net with a quarter of its feature maps on small images, `predict` calls ``Model.predict`` with one
image after the other, by torch and by OpenVINO, `command` is ``cellflow predict FOLDER`` of as many images. The
resident set of the process is read at every step (of the command: every 0.1 s). Given are its size after the first
quarter, which is a warm-up, and at the end (means of 20 readings), and the slope of what is in between with its
95 % interval: from means of 20 blocks, as readings next to each other are alike. The training is evaluated, with its
pictures, every 20 iterations.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import tifffile
from scipy.stats import linregress, t
from small import NarrowUNet, small_training

from cellflow import load_model, train
from cellflow.engine.training import start_network
from cellflow.nn.checkpoint import save_model_file
from cellflow.synthetic import synthetic_dataset

BLOCKS, FEW = 20, 20
PAGE = os.sysconf("SC_PAGESIZE")


def resident() -> float:
    """MB of this process that are in memory."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * PAGE / 1e6


def row(name: str, steps: list[int], sizes: list[float]) -> str:
    """A row of the table from readings: the number of steps done, and the size then."""
    done, size = np.array(steps, float), np.array(sizes)
    warm = done >= done[-1] / 4
    done, size = done[warm], size[warm]
    means = [
        (float(d.mean()), float(s.mean()))
        for d, s in zip(np.array_split(done, BLOCKS), np.array_split(size, BLOCKS), strict=True)
    ]
    fit = linregress([d / 1000 for d, _ in means], [s for _, s in means])
    half = float(np.nan_to_num(t.ppf(0.975, BLOCKS - 2) * fit.stderr))  # nan where nothing changes
    start, end = size[:FEW].mean(), size[-FEW:].mean()
    slope = f"{fit.slope:+.2f} ({fit.slope - half:+.2f} to {fit.slope + half:+.2f})"
    return f"| {name} | {steps[-1]:,} | {start:.1f} | {end:.1f} | {end - start:+.1f} | {slope} |"


def train_row(folder: Path, steps: int) -> Iterator[str]:
    """Iterations of a training, counted in the network."""
    config = small_training(folder, images=8, shape=(64, 64))
    sizes: list[float] = []

    class Watched(NarrowUNet):
        def forward(self, tiles):  # type: ignore[no-untyped-def]
            if self.training:
                sizes.append(resident())
            return super().forward(tiles)

    start_network.DEFAULT = Watched
    optim = replace(config.optim, n_epochs=steps // 20)  # 40 crops an epoch, 2 a batch
    sampling = replace(config.sampling, nimg_per_epoch=40)
    train(replace(config, name="long", eval_every=1, optim=optim, sampling=sampling))
    yield row("training, iterations", list(range(1, len(sizes) + 1)), sizes)


def model_file(folder: Path) -> Path:
    path = folder / "narrow.pt"
    save_model_file(path, NarrowUNet(), {})
    return path


def predict_row(folder: Path, steps: int) -> Iterator[str]:
    """Images of a loaded model."""
    images = [item.image for item in synthetic_dataset(6, shape=(64, 64), seed=1, per_group=1)]
    for engine in ("torch", "openvino"):
        os.environ["CELLFLOW_ENGINE"] = engine
        model, sizes = load_model(model_file(folder), device="cpu"), list[float]()
        for number in range(steps):
            model.predict(images[number % len(images)])
            sizes.append(resident())
        yield row(f"`Model.predict`, {engine}, images", list(range(1, steps + 1)), sizes)


def command_row(folder: Path, steps: int) -> Iterator[str]:
    """Images of the command, counted by the label maps that are there."""
    source = folder / "many"
    source.mkdir()
    images = [item.image for item in synthetic_dataset(6, shape=(64, 64), seed=1, per_group=1)]
    for number in range(steps):
        tifffile.imwrite(source / f"i{number:05d}.tif", images[number % len(images)])
    os.environ.pop("CELLFLOW_ENGINE", None)
    out = folder / "out"
    command = [
        sys.executable, "-m", "cellflow", "predict", str(source), "--model", str(model_file(folder)), "--out",
        str(out), "--name", "x", "--device", "cpu",
    ]  # fmt: skip
    done, sizes = list[int](), list[float]()
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        watched, masks = psutil.Process(process.pid), out / "x" / "masks"
        while process.poll() is None:
            time.sleep(0.1)
            count = len(list(masks.iterdir())) if masks.is_dir() else 0
            if count and process.poll() is None:
                done.append(count)
                sizes.append(watched.memory_info().rss / 1e6)
    if process.returncode:
        raise SystemExit((folder / "log").read_text()[-3000:])
    assert len(list(masks.iterdir())) == steps
    yield row("`cellflow predict FOLDER`, images", done, sizes)


PARTS = {"train": train_row, "predict": predict_row, "command": command_row}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", default=[], help="train, predict, command; all without it"
    )
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    print(
        "| what | steps | after the first quarter, MB | at the end, MB | more | slope, MB per 1,000 (95 %) |"
    )
    print("|---|---|---|---|---|---|")
    for name in options.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            for text in PARTS[name](Path(folder), options.steps):
                print(text, flush=True)


if __name__ == "__main__":
    main()

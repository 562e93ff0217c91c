"""What changes a result, and by how much: the same prediction and the same training in other ways.

    python benchmarks/determinism.py [--work FOLDER] [--side 512] [--images 3] [predict] [train]

`predict` runs ``cellflow predict`` with a real network on parts of real images of ../shared, each time with one thing
changed, and compares masks and the exported flows (float16) with those of the first row of its part of the table.
`train` trains the U-Net with a quarter of its feature maps for some epochs, and compares the weights of ``last.pt``.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cellflow import average_precision
from cellflow.io.foreign_flows import read_foreign_flows
from cellflow.io.images import read_image, read_labels
from cellflow.io.label_pyramid import LabelPyramid
from cellflow.types import Box

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODEL = SHARED / "models" / "usiigaci_unet"
STRICT = 0.95


@dataclass(frozen=True)
class Result:
    """Label maps by image, and their flows; blocks export none."""

    labels: dict[str, NDArray[np.int32]]
    flows: dict[str, NDArray[np.float32]]


def predict(work: Path, name: str, images: list[Path], *flags: str) -> Result:
    """Predict images with the command, in a process of its own."""
    export = () if "--block" in flags else ("--export", "masks", "flows")
    command = [
        sys.executable, "-m", "cellflow", "predict", *map(str, images), "--model", str(MODEL), "--out", str(work),
        "--name", name, "--device", "cpu", *export, *flags,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    folder = work / name
    labels = {path.stem: read_labels(path) for path in sorted(folder.glob("masks/*.tif"))}
    for place in sorted(folder.glob("slides/*/labels.zarr")):
        pyramid = LabelPyramid(place)
        height, width = pyramid.shape(0)
        labels[place.parent.name] = pyramid.read(Box(0, height, 0, width)).astype(np.int32)
    return Result(labels, dict(_flows(folder)))


def _flows(folder: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for path in sorted(folder.glob("flows/*.npz")):
        flow, cellprob = read_foreign_flows(path)
        yield path.stem, np.concatenate([flow, cellprob[np.newaxis]])


def compared(one: Result, other: Result) -> str:
    """Columns of the table: masks, pixels, AP and flows of one result against another."""
    names = sorted(one.labels)
    assert names == sorted(other.labels), (names, sorted(other.labels))
    same = all(np.array_equal(one.labels[name], other.labels[name]) for name in names)
    # a pixel differs where one map has a cell and the other none: numbers may change with the order of cells
    pixels = sum(int(((one.labels[name] > 0) != (other.labels[name] > 0)).sum()) for name in names)
    total = sum(one.labels[name].size for name in names)
    truth, found = [one.labels[name] for name in names], [other.labels[name] for name in names]
    precision = float(average_precision(truth, found, thresholds=[STRICT]).mean)
    gaps = [float(np.abs(one.flows[n] - other.flows[n]).max()) for n in names if n in other.flows]
    gap = f"{max(gaps):.3g}" if gaps else "not exported"
    yes = "identical" if same else "differ"
    return f"{yes} | {pixels:,} of {total:,} | {precision:.4f} | {gap} |"


def crops(folder: Path, count: int, side: int) -> list[Path]:
    """The middles of real images, the first ones of each source."""
    import tifffile

    sources = [SHARED / "data" / name for name in ("usiigaci/images", "kaggle_layout/train")]
    found = [path for source in sources for path in sorted(source.iterdir())[: -(-count // 2)]][
        :count
    ]
    paths = []
    for number, path in enumerate(found):
        pixels = read_image(path)
        top, left = ((length - min(side, length)) // 2 for length in pixels.shape[:2])
        paths.append(folder / f"image{number}.tif")
        tifffile.imwrite(paths[-1], pixels[top : top + side, left : left + side])
    return paths


def predict_rows(work: Path, images: list[Path]) -> Iterator[str]:
    """Rows of predictions: two parts, torch in float32, and what the command does by itself."""
    first = ("--engine", "torch", "--amp", "off", "--threads", "2")
    turned = work / "turned"
    turned.mkdir()
    renamed = [
        Path(shutil.copyfile(path, turned / f"z{len(images) - number}-{path.name}"))
        for number, path in enumerate(images)
    ]
    base = predict(work, "base", images, *first)
    yield f"| torch, float32, 2 threads, batches of 8 tiles | {compared(base, base)}"
    changes: dict[str, tuple[str, ...]] = {
        "the same again": first,
        "1 thread": (*first[:-1], "1"),
        "batches of 1 tile": (*first, "--batch_size", "1"),
        "batches of 3 tiles": (*first, "--batch_size", "3"),
        "two processes (`--scheduler local:2`)": (*first, "--scheduler", "local:2"),
        "blocks of 256 pixels (`--block 256`)": (*first, "--block", "256"),
        "`--amp auto` (bfloat16)": (*first[:2], "--amp", "auto", *first[4:]),
        "`--engine openvino`": ("--engine", "openvino", *first[2:]),
        "`--engine openvino --amp auto`: the default": (
            "--engine",
            "openvino",
            "--amp",
            "auto",
            *first[4:],
        ),
    }
    results = {}
    for number, (name, flags) in enumerate(changes.items()):
        results[name] = predict(work, f"way{number}", images, *flags)
        yield f"| {name} | {compared(base, results[name])}"
    other = predict(work, "order", renamed[::-1], *first)
    yield f"| images in another order | {compared(base, _renamed(other))}"
    alone = [predict(work, f"alone{number}", [path], *first) for number, path in enumerate(images)]
    joined = Result(
        {name: value for item in alone for name, value in item.labels.items()},
        {name: value for item in alone for name, value in item.flows.items()},
    )
    yield f"| every image alone | {compared(base, joined)}"
    default, flags = list(results)[-1], list(changes.values())[-1]
    for what, more in {
        "the default: the same again": flags,
        "the default: 1 thread": (*flags[:-1], "1"),
        "the default: batches of 1 tile": (*flags, "--batch_size", "1"),
        "the default: two processes": (*flags, "--scheduler", "local:2"),
        "the default: blocks of 256 pixels": (*flags, "--block", "256"),
    }.items():
        again = predict(work, f"default-{len(what)}", images, *more)
        yield f"| {what}, against the default | {compared(results[default], again)}"


def _renamed(result: Result) -> Result:
    """With the names that images had before the order was turned."""
    labels, flows = (
        {name.partition("-")[2]: value for name, value in found.items()}
        for found in (result.labels, result.flows)
    )
    return Result(labels, flows)


def train_rows(work: Path) -> Iterator[str]:
    """Rows of trainings; the first of them fills the cache of samples, the others find it there."""
    from small import small_training

    from cellflow import train
    from cellflow.nn.checkpoint import load_state
    from cellflow.storage.run_folder import RunFolder

    config = small_training(work / "training")
    runtime = config.runtime
    ways = {
        "1 thread, no workers, an empty cache": runtime,
        "the same again, a full cache": runtime,
        "2 workers that prepare crops": replace(runtime, workers=2),
        "2 threads": replace(runtime, threads=2),
    }
    base: dict[str, torch.Tensor] = {}
    for number, (name, way) in enumerate(ways.items()):
        train(replace(config, name=f"way{number}", runtime=way))
        net = load_state(RunFolder(config.runs_dir / f"way{number}").fold(0).last)["net"]
        base = base or net
        same = all(torch.equal(value, base[key]) for key, value in net.items())
        gap = max(
            float((value.double() - base[key].double()).abs().max()) for key, value in net.items()
        )
        yield f"| {name} | {'identical' if same else 'differ'} | {gap:.3g} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=[], help="predict, train; both without it")
    parser.add_argument("--work", type=Path, help="a folder that is kept")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--images", type=int, default=3)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ.pop("CELLFLOW_ENGINE", None)
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        if "predict" in (options.parts or ["predict"]):
            print(
                "| prediction | masks | foreground pixels that differ | AP at IoU 0.95 | largest difference of flows |"
            )
            print("|---|---|---|---|---|")
            for row in predict_rows(work, crops(work, options.images, options.side)):
                print(row, flush=True)
        if "train" in (options.parts or ["train"]):
            print("\n| training | weights | largest difference |\n|---|---|---|")
            for row in train_rows(work):
                print(row, flush=True)


if __name__ == "__main__":
    main()

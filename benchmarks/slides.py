"""Slides: seams, growth, and Cellpose's own script for large images beside it.

    python benchmarks/slides.py seams FOLDER [--side 4096] [--members 3]   # one image, whole and in blocks
    python benchmarks/slides.py growth FOLDER [--largest 16384]            # time and peak memory against pixels
    python benchmarks/slides.py cellpose FOLDER [--side 2048]              # beside cellpose.contrib, same weights
    python benchmarks/slides.py picture FOLDER docs/scaling.png            # of what growth has measured

Images are mosaics of the usiigaci images in ../shared, the network is the U-Net that was trained on such; growth
also has a stand-in, a U-Net with a quarter of Cellpose's feature maps that is trained here for some minutes on
generated cells. Every measurement is a process of its own, so that its peak memory is its own. What is measured lies in
FOLDER and is not measured again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

import cellflow
from cellflow import (
    FoldsConfig,
    ModelConfig,
    OptimConfig,
    OutputConfig,
    PredictConfig,
    PrepareConfig,
    RuntimeConfig,
    SamplingConfig,
    SlidesConfig,
    TrainConfig,
)
from cellflow.engine.prediction.ensemble import as_ensemble
from cellflow.engine.segmentation.mask_step import niter_of
from cellflow.engine.segmentation.open_segmenter import open_segmenter
from cellflow.io.formats.ome_zarr import write_ome_zarr
from cellflow.io.images import read_image, write_labels
from cellflow.io.label_pyramid import LabelPyramid
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.nn.networks import UNet
from cellflow.numeric.dynamics import flows_to_labels
from cellflow.rng import generator
from cellflow.storage.atomic import write_json
from cellflow.synthetic import synthetic_dataset
from cellflow.types import Box

SHARED = Path(__file__).resolve().parents[2] / "shared"
CPU = RuntimeConfig(device="cpu")
BLOCKS = (512, 1000, 1536)
STAND_IN = (8, 16, 32, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("seams", "growth", "cellpose", "picture", "one"):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        command.add_argument("--side", type=int, default=2048 if name == "cellpose" else 4096)
        command.add_argument("--largest", type=int, default=16384)
        command.add_argument("--members", type=int, default=1)
        command.add_argument("--network", default="real")
        command.add_argument("--block", type=int)
        if name == "picture":
            command.add_argument("picture", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    {"seams": seams, "growth": growth, "cellpose": against, "picture": draw, "one": one}[
        args.command
    ](args)


def mosaic(folder: Path, side: int, kind: str) -> Path:
    """An image of so many pixels a side, as OME-Zarr: real images, or generated cells, side by side."""
    path = folder / f"{kind}_{side}.zarr"
    if not path.exists():
        if kind == "real":
            files = sorted((SHARED / "data/usiigaci/images").iterdir())
            parts = [read_image(file)[:1000, :1000] for file in files[:16]]
        else:
            made = synthetic_dataset(4, shape=(512, 512), seed=0, per_group=1)
            parts = [item.image for item in made]
        step = parts[0].shape[0]
        count = -(-side // step)
        rows = [
            np.concatenate([parts[(row * 5 + column) % len(parts)] for column in range(count)], axis=1)
            for row in range(count)
        ]  # fmt: skip
        image = np.concatenate(rows)[:side, :side]
        write_ome_zarr(path, image, np.zeros(image.shape, np.int32))
    return path


def models(folder: Path, network: str, members: int) -> list[str]:
    """Model files: the real one, and others whose weights differ from its by noise; or the stand-in."""
    if network != "real":
        return [str(stand_in(folder))]
    (real,) = sorted((SHARED / "models").glob("usiigaci_unet*"))[:1]
    found = [str(real)]
    for seed in range(1, members):
        path = folder / f"member_{seed}.pt"
        if not path.exists():
            net, _ = load_model_file(real)
            rng = generator(seed, "members")
            for weight in net.parameters():
                if weight.ndim > 1:
                    noise = rng.standard_normal(tuple(weight.shape)).astype(np.float32)
                    weight.data *= 1 + 0.03 * weight.data.new_tensor(noise)
            save_model_file(path, net, {})
        found.append(str(path))
    return found


def stand_in(folder: Path) -> Path:
    """A small U-Net, trained for some minutes on generated cells."""
    best = folder / "runs/stand_in/fold_0/best.pt"
    if not best.exists():
        untrained = folder / "untrained.pt"
        save_model_file(untrained, UNet(30.0, widths=STAND_IN), {})
        source = folder / "source"
        for item in synthetic_dataset(24, shape=(256, 256), seed=1, per_group=1):
            (source / "images").mkdir(parents=True, exist_ok=True)
            write_labels(source / "masks" / f"{item.id}.tif", item.labels)
            tifffile.imwrite(source / "images" / f"{item.id}.tif", item.image)
        cellflow.prepare(PrepareConfig(source=source, out=folder / "data", overwrite=True))
        cellflow.make_folds(FoldsConfig(data=folder / "data", k=4))
        cellflow.train(
            TrainConfig(
                data=folder / "data", fold="0", name="stand_in", runs_dir=folder / "runs", eval_every=200,
                model=ModelConfig(pretrained_model=str(untrained)),
                optim=OptimConfig(optimizer="adamw", schedule="cosine", n_epochs=200, batch_size=4),
                sampling=SamplingConfig(bsize=96), runtime=CPU,
            )
        )  # fmt: skip
    return best


def config_of(args: argparse.Namespace, image: Path, name: str, block: int | None) -> Any:
    found = models(args.folder, args.network, args.members)
    config = as_ensemble(
        PredictConfig(
            (image,),
            slides=SlidesConfig(block=block),
            output=OutputConfig(out=args.folder / "out", name=name, overwrite=True),
            runtime=CPU,
        )
    )
    return replace(config, runs=tuple(found))


def seams(args: argparse.Namespace) -> None:
    """The cells of an image that is segmented whole, and of the same in blocks."""
    image = mosaic(args.folder, args.side, "real")
    pixels = read_image(image)
    config = config_of(args, image, "whole", None)
    segmenter = open_segmenter(config, None).segmenter
    started = time.perf_counter()
    means = segmenter.means(pixels)
    seconds = time.perf_counter() - started
    mask = segmenter.mask
    wholes = {
        method: flows_to_labels(
            means.flow, means.cellprob, method=method, niter=niter_of(mask, means.diameter),
            cellprob_threshold=mask.cellprob_threshold, flow_threshold=mask.flow_threshold,
            min_size=mask.min_size, max_size_fraction=mask.max_size_fraction,
        )
        for method in ("basin", "trace")
    }  # fmt: skip
    print(
        f"{args.side} x {args.side}, {args.members} member(s), flows of the whole image {seconds:.1f} s"
    )
    print("| | cells | of the foreground alike | byte for byte | seconds |\n|---|---|---|---|---|")
    reference = wholes["trace"]
    row("whole, every step taken", reference, reference, 0.0)
    row(
        "whole, with the short cut (`cellflow predict` of a small image)",
        wholes["basin"],
        reference,
        0.0,
    )
    for block in BLOCKS:
        started = time.perf_counter()
        result = cellflow.ensemble(config_of(args, image, f"blocks_{block}", block))
        seconds = time.perf_counter() - started
        (slide,) = result.slides.values()
        found = read_labels(slide.labels)
        row(f"blocks of {block}", found, reference, seconds)


def read_labels(path: Path) -> NDArray[Any]:
    pyramid = LabelPyramid(path)
    return pyramid.read(Box(0, pyramid.shape(0)[0], 0, pyramid.shape(0)[1])).astype(np.int32)


def row(name: str, found: NDArray[Any], reference: NDArray[Any], seconds: float) -> None:
    alike = same_partition(found, reference)
    equal = "yes" if np.array_equal(found, reference) else "no"
    print(f"| {name} | {found.max()} | {100 * alike:.4f} % | {equal} | {seconds:.1f} |", flush=True)


def same_partition(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Part of the pixels in either foreground whose cell in one map is, but for few pixels, their cell in the other."""
    inside = (a > 0) | (b > 0)
    pairs, at, counts = np.unique(
        np.stack([a[inside], b[inside]]), axis=1, return_inverse=True, return_counts=True
    )
    best: dict[int, tuple[int, int]] = {}
    for (one, other), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        if one and other and count > best.get(one, (0, 0))[0]:
            best[one] = (count, other)
    good = np.array([bool(x and y and best[x][1] == y) for x, y in pairs.T.tolist()])
    return float(good[at.ravel()].mean())


def growth(args: argparse.Namespace) -> None:
    """Each size in a process of its own."""
    path = args.folder / "growth.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    sizes = [side for side in (1024, 2048, 4096, 8192, 16384) if side <= args.largest]
    todo = [("stand-in", side) for side in sizes] + [
        ("real", side) for side in sizes if side <= 4096
    ]
    for network, side in todo:
        if any((item["network"], item["side"]) == (network, side) for item in rows):
            continue
        mosaic(args.folder, side, "real" if network == "real" else "made")
        models(args.folder, network, 1)
        command = [
            sys.executable,
            __file__,
            "one",
            str(args.folder),
            "--network",
            network,
            "--side",
            str(side),
        ]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(out.strip().splitlines()[-1]))
        write_json(path, rows)
        print(rows[-1], flush=True)


def one(args: argparse.Namespace) -> None:
    """One size: the last line says what it took."""
    image = mosaic(args.folder, args.side, "real" if args.network == "real" else "made")
    started, cpu = time.perf_counter(), time.process_time()
    config = config_of(args, image, f"{args.network}_{args.side}", args.block or 2048)
    (slide,) = cellflow.ensemble(config).slides.values()
    took = {
        "network": args.network,
        "side": args.side,
        "cells": slide.cells,
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_mb": peak_memory(),
        "steps": json.loads((slide.folder / "slide.json").read_text())["seconds"],
    }
    shutil.rmtree(slide.folder)
    print(json.dumps(took))


def peak_memory() -> int:
    """Megabytes that this process has held at most; ru_maxrss would start with those of its parent."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) // 1024


def draw(args: argparse.Namespace) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = json.loads((args.folder / "growth.json").read_text())
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for network, marker in (("stand-in", "o"), ("real", "s")):
        mine = sorted(
            (item for item in rows if item["network"] == network), key=lambda item: item["side"]
        )
        pixels = [item["side"] ** 2 / 1e6 for item in mine]
        axes[0].plot(pixels, [item["cpu_seconds"] for item in mine], marker=marker, label=network)
        axes[1].plot(pixels, [item["peak_mb"] for item in mine], marker=marker, label=network)
    axes[0].set(xscale="log", yscale="log", xlabel="million pixels", ylabel="processor seconds")
    axes[1].set(xscale="log", ylim=(0, 2100), xlabel="million pixels", ylabel="peak memory, MB")
    axes[1].axhline(2000, color="0.6", linewidth=1, linestyle="--")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(args.picture, dpi=130)


def against(args: argparse.Namespace) -> None:
    """`distributed_eval` of cellpose.contrib, run block after block in this process, beside the whole image."""
    import cellpose.contrib.distributed_segmentation as contrib
    from cellpose import models as cellpose_models

    image = mosaic(args.folder, args.side, "real")
    pixels = read_image(image)
    (name,) = models(args.folder, "real", 1)
    segmenter = open_segmenter(config_of(args, image, "whole", None), None).segmenter
    diameter = segmenter.members[0].diam_labels

    class OneModel(cellpose_models.CellposeModel):
        def __init__(self) -> None:
            super().__init__(pretrained_model=name, gpu=False, mkldnn=False)

    contrib.cellpose.models.Cellpose = OneModel
    store = zarr.create_array(
        args.folder / "contrib.zarr", data=pixels, chunks=(512, 512), overwrite=True
    )
    print("| | cells | cut or merged | of the foreground alike | seconds |\n|---|---|---|---|---|")
    model = OneModel()
    started = time.perf_counter()
    whole = np.asarray(model.eval(pixels, diameter=diameter, channels=[0, 0])[0], dtype=np.int32)
    compare("cellpose, whole image", whole, whole, time.perf_counter() - started)

    class Zarr:
        """The script is written for zarr 2."""

        @staticmethod
        def open(path: Any, mode: str = "r", **settings: Any) -> Any:
            return zarr.open(store=str(path), mode=mode, **settings)

    contrib.zarr = Zarr

    class Client:
        def map(self, function: Any, *lists: Any, **fixed: Any) -> list[Any]:
            return [function(*items, **fixed) for items in zip(*lists, strict=True)]

        def gather(self, results: list[Any]) -> list[Any]:
            return results

    class Cluster:
        client = Client()

    out = args.folder / "contrib_labels.zarr"
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    found, _ = contrib.distributed_eval.__wrapped__(
        store, (512, 512), str(out), cluster=Cluster(), temporary_directory=str(args.folder),
        eval_kwargs={"diameter": round(diameter), "channels": [0, 0]},
    )  # fmt: skip
    compare(
        "cellpose.contrib, blocks of 512",
        np.asarray(found[:]),
        whole,
        time.perf_counter() - started,
    )
    started = time.perf_counter()
    (slide,) = cellflow.ensemble(config_of(args, image, "blocks", 512)).slides.values()
    compare(
        "cellflow, blocks of 512", read_labels(slide.labels), whole, time.perf_counter() - started
    )


def compare(name: str, found: NDArray[Any], whole: NDArray[Any], seconds: float) -> None:
    """Cells of the whole image that are in two or more of `found` (cut), and the other way round (merged)."""
    found = found.astype(np.int32)
    pairs, counts = np.unique(np.stack([whole.ravel(), found.ravel()]), axis=1, return_counts=True)
    pairs, counts = pairs[:, (pairs > 0).all(axis=0)], counts[(pairs > 0).all(axis=0)]
    area_of_whole, area_of_found = np.bincount(whole.ravel()), np.bincount(found.ravel())
    cut = np.bincount(pairs[0], counts > 0.2 * area_of_whole[pairs[0]])
    merged = np.bincount(pairs[1], counts > 0.2 * area_of_found[pairs[1]])
    wrong = int((cut > 1).sum() + (merged > 1).sum())
    number = len(np.unique(found)) - 1
    alike = same_partition(found, whole)
    print(f"| {name} | {number} | {wrong} | {100 * alike:.3f} % | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()

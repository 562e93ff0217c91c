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
SEGMENTERS = {
    "cellpose": "cellpose, whole image",
    "contrib": "cellpose.contrib, blocks of 512, as of Cellpose 4.2.1",
    "mended": "the same, borders of 2-D images mended",
    "cellflow": "cellflow, blocks of 512",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("seams", "growth", "cellpose", "picture", "one", "labels"):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        command.add_argument("--side", type=int, default=2048 if name == "cellpose" else 4096)
        command.add_argument("--largest", type=int, default=16384)
        command.add_argument("--members", type=int, default=1)
        command.add_argument("--network", default="real")
        command.add_argument("--block", type=int)
        command.add_argument("--name", choices=sorted(SEGMENTERS))
        if name == "picture":
            command.add_argument("picture", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    {
        "seams": seams,
        "growth": growth,
        "cellpose": against,
        "picture": draw,
        "one": one,
        "labels": labels,
    }[args.command](args)


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
                recipe="cellpose",
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
    """Part of the pixels in either foreground whose cells in the two maps have most of each other."""
    pairs, counts = overlaps(a, b)
    mutual = np.ones(len(counts), bool)
    for side in pairs:
        largest = np.zeros(side.max() + 1, np.int64)
        np.maximum.at(largest, side, counts)
        mutual &= counts == largest[side]
    return float(counts[mutual].sum() / ((a > 0) | (b > 0)).sum())


def overlaps(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pairs of cells that share pixels (2, n), and how many."""
    inside = (a > 0) & (b > 0)
    return np.unique(np.stack([a[inside], b[inside]]), axis=1, return_counts=True)


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
    """`distributed_eval` of cellpose.contrib, run by one Dask worker, beside both tools on the same image."""
    mosaic(args.folder, args.side, "real")
    print(
        "| | cells | cut | merged | IoU below 0.9 | alike | seconds | peak MB |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    whole: NDArray[Any] | None = None
    for name in SEGMENTERS:
        path = args.folder / f"{name}_{args.side}.npz"
        if not path.exists():
            command = [
                sys.executable, __file__, "labels", str(args.folder), "--side", str(args.side), "--name", name,
            ]  # fmt: skip
            subprocess.run(command, check=True, capture_output=True)
        with np.load(path) as file:
            found, seconds, peak = file["labels"].astype(np.int32), file["seconds"], file["peak_mb"]
        whole = found if whole is None else whole
        compare(f"{SEGMENTERS[name]}", found, whole, float(seconds), int(peak))


def labels(args: argparse.Namespace) -> None:
    """One of SEGMENTERS in a process of its own."""
    image = mosaic(args.folder, args.side, "real")
    (model,) = models(args.folder, "real", 1)
    diameter = (
        open_segmenter(config_of(args, image, "whole", None), None).segmenter.members[0].diam_labels
    )
    if args.name == "cellpose":
        run = cellpose_whole
    elif args.name == "cellflow":
        run = cellflow_blocks
    else:
        run = cellpose_contrib
    started = time.perf_counter()
    found = run(args, image, model, diameter)
    np.savez_compressed(
        args.folder / f"{args.name}_{args.side}.npz",
        labels=found, seconds=time.perf_counter() - started, peak_mb=peak_memory(),
    )  # fmt: skip


def cellpose_whole(
    args: argparse.Namespace, image: Path, model: str, diameter: float
) -> NDArray[Any]:
    from cellpose.models import CellposeModel

    network = CellposeModel(pretrained_model=model, gpu=False)
    masks = network.eval(read_image(image), diameter=diameter, channels=[0, 0])[0]
    return np.asarray(masks)


def cellpose_contrib(
    args: argparse.Namespace, image: Path, model: str, diameter: float
) -> NDArray[Any]:
    import cellpose.contrib.distributed_segmentation as contrib
    from distributed import Client, LocalCluster

    mend(contrib, borders=args.name == "mended")
    store = zarr.create_array(
        args.folder / "contrib.zarr", data=read_image(image), chunks=(512, 512), overwrite=True
    )
    out = args.folder / "contrib_labels.zarr"
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        cluster.client = client  # as its own clusters have one
        found, _ = contrib.distributed_eval.__wrapped__(
            store, (512, 512), str(out), cluster=cluster, temporary_directory=str(args.folder),
            model_kwargs={"pretrained_model": model, "gpu": False},
            eval_kwargs={"diameter": round(diameter), "channels": [0, 0]},
        )  # fmt: skip
        return np.asarray(found[:])


def mend(contrib: Any, *, borders: bool) -> None:
    """What the script needs to run at all, and what joins cells of 2-D images.

    It is written for zarr 2. Up to Cellpose 4.2 it raises for 2-D images, because labels of a border are told to have
    three axes; from then on it cuts every cell at every border, silently (Cellpose's issue 1482): the gradient along a
    line is an array where that along a plane is a pair, so that all of a border is shrunk to nothing.
    """
    from scipy import ndimage

    class Zarr:
        @staticmethod
        def open(path: Any, mode: str = "r", **settings: Any) -> Any:
            return zarr.open(store=str(path), mode=mode, **settings)

    def shrink_line(line: NDArray[Any], threshold: float) -> NDArray[Any]:
        labels = line.ravel().copy()
        labels[np.gradient(labels.astype(float)) != 0] = 0
        labels[ndimage.distance_transform_edt(labels) <= threshold] = 0
        return labels.reshape(line.shape)

    contrib.zarr = Zarr
    structure = ndimage.generate_binary_structure(2, 1)
    contrib.scipy.ndimage.generate_binary_structure = lambda rank, connectivity: structure
    if borders:
        contrib.shrink_labels = shrink_line


def cellflow_blocks(
    args: argparse.Namespace, image: Path, model: str, diameter: float
) -> NDArray[Any]:
    (slide,) = cellflow.ensemble(config_of(args, image, "blocks", 512)).slides.values()
    return read_labels(slide.labels)


def compare(name: str, found: NDArray[Any], whole: NDArray[Any], seconds: float, peak: int) -> None:
    """Cells of the whole image that lie in two or more of `found` (cut), the other way round (merged), and changed."""
    pairs, counts = overlaps(whole, found)
    of_whole, of_found = np.bincount(whole.ravel())[pairs[0]], np.bincount(found.ravel())[pairs[1]]
    cut = int((np.bincount(pairs[0], counts > 0.1 * of_whole) > 1).sum())
    merged = int((np.bincount(pairs[1], counts > 0.1 * of_found) > 1).sum())
    iou = np.zeros(whole.max() + 1)
    np.maximum.at(iou, pairs[0], counts / (of_whole + of_found - counts))
    changed = int((iou[np.unique(whole[whole > 0])] < 0.9).sum())
    alike = same_partition(found, whole)
    print(
        f"| {name} | {len(np.unique(found)) - 1} | {cut} | {merged} | {changed} | {100 * alike:.2f} % "
        f"| {seconds:.0f} | {peak} |",
        flush=True,
    )


if __name__ == "__main__":
    main()

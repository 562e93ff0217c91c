"""What a GPU makes of it, in one script of at most eight minutes: speed, precision, memory, a real fold.

    python benchmarks/gpu.py --source ../shared/data/kaggle_layout
    python benchmarks/gpu.py --device cpu --small          the same with tiny numbers, to see that it runs

It needs no network, no cellpose (with cellpose 3 there it also measures `train_seg`), and writes nothing
outside of the folder that it makes. A part that fails says so and the others go on.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import train_bench
from inputs import SHARED
from train_bench import BATCH, CROP, RATE, clock, endless, make_dataset, make_stepper, say_machine

from cellflow import (
    FoldsConfig,
    OptimConfig,
    PrepareConfig,
    SamplingConfig,
    TrainConfig,
    make_folds,
    prepare,
    train,
)
from cellflow.config import RuntimeConfig
from cellflow.engine.runtime.machine import Machine, choose_machine
from cellflow.engine.training.sample_cache import cache_samples
from cellflow.nn.loss import segmentation_loss
from cellflow.nn.networks import UNet
from cellflow.nn.precision import autocast
from cellflow.nn.step import to_device

AMPS = {"off": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def amps(device: torch.device) -> dict[str, torch.dtype | None]:
    """The precisions that a device trains in."""
    return {name: amp for name, amp in AMPS.items() if device.type == "cuda" or name != "float16"}


def part_against_train_seg(options: argparse.Namespace, machine: Machine, folder: Path) -> None:
    """Training steps in turns with cellpose's `train_seg`."""
    try:
        found = importlib.metadata.version("cellpose")
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if not found.startswith("3."):
        print(f"skipped: needs cellpose 3, found {found}")
        return
    given = argparse.Namespace(
        data=None, folder=folder, device=options.device, turns=options.turns, steps=options.steps
    )
    train_bench.bench_step(given)


def part_step(options: argparse.Namespace, machine: Machine, folder: Path) -> None:
    """Where the time of a step goes. The parts are timed apart, each waited for; the whole is not."""
    dataset = make_dataset(folder / "step", 3 * BATCH)
    samples = cache_samples(dataset, dataset.ids, chan=0, chan2=0)
    print("| precision | crops | to GPU | forward | backward | optimizer | step, ms | images/s |")
    print("|---|---|---|---|---|---|---|---|")
    for name, amp in amps(machine.device).items():
        batches = endless(samples, machine.workers)
        stepper = make_stepper(machine, amp)
        for _ in range(3):
            stepper.step(next(batches), RATE)
        rows = []
        for _ in range(options.steps):
            marks = [clock(machine.device)]
            batch = next(batches)
            marks.append(clock(machine.device))
            image, *targets = to_device(batch, machine.device)
            marks.append(clock(machine.device))
            with autocast(machine.device, amp):
                output = stepper.net.train()(image)[0]
            loss = segmentation_loss(output, *targets).total
            marks.append(clock(machine.device))
            stepper.optimizer.zero_grad(set_to_none=True)
            stepper.scaler.scale(loss).backward()
            marks.append(clock(machine.device))
            stepper.scaler.step(stepper.optimizer)
            stepper.scaler.update()
            marks.append(clock(machine.device))
            rows.append(np.diff(marks))
        started = clock(machine.device)
        for _ in range(options.steps):
            stepper.step(next(batches), RATE)
        whole = (clock(machine.device) - started) / options.steps
        middle = np.median(rows, axis=0) * 1e3
        columns = " | ".join(f"{value:.1f}" for value in middle)
        print(f"| {name} | {columns} | {whole * 1e3:.1f} | {BATCH / whole:.0f} |", flush=True)


def part_forward(options: argparse.Namespace, machine: Machine, folder: Path) -> None:
    """The network alone on tiles, by precision and layout; compiled, and as a CUDA graph."""
    device = machine.device
    tiles = torch.rand(options.tiles, 2, CROP, CROP, device=device)
    print("| network | ms | tiles/s | seconds before the first |\n|---|---|---|---|")
    for name, amp in amps(device).items():
        for layout in (torch.contiguous_format, torch.channels_last):
            net = UNet.build().eval().to(device, memory_format=layout)
            given = tiles.to(memory_format=layout)
            title = f"{name}, {'channels-last' if layout is torch.channels_last else 'contiguous'}"
            report_forward(title, net, given, amp, options)
        if options.small or device.type != "cuda":
            continue
        report_forward(f"{title}, compiled", torch.compile(net), given, amp, options)
        report_forward(f"{title}, CUDA graph", graphed(net, given, amp), given, None, options)


def report_forward(
    title: str,
    call: Callable[[torch.Tensor], object],
    tiles: torch.Tensor,
    amp: torch.dtype | None,
    options: argparse.Namespace,
) -> None:
    device, seconds = tiles.device, []
    for _ in range(options.steps + 1):
        started = clock(device)
        with torch.inference_mode(), autocast(device, amp):
            call(tiles)
        seconds.append(clock(device) - started)
    middle = statistics.median(seconds[1:])
    print(
        f"| {title} | {middle * 1e3:.1f} | {len(tiles) / middle:.0f} | {seconds[0]:.2f} |",
        flush=True,
    )


def graphed(
    net: torch.nn.Module, tiles: torch.Tensor, amp: torch.dtype | None
) -> Callable[[torch.Tensor], object]:
    """The forward pass as a CUDA graph."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), autocast(tiles.device, amp):
        with torch.cuda.stream(stream):
            for _ in range(3):
                net(tiles)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            output = net(tiles)[0]

    def replay(_: torch.Tensor) -> object:
        graph.replay()
        return output

    return replay


def part_precision(options: argparse.Namespace, machine: Machine, folder: Path) -> None:
    """A fold in every precision, then all folds one after the other on this device."""
    dataset = make_dataset(folder / "precision", 12, shape=(160, 160))
    make_folds(FoldsConfig(data=dataset.path, k=3))
    runs = folder / "runs"
    print("| run | folds | seconds | best score |\n|---|---|---|---|")
    for name in (*amps(machine.device), "all"):
        config = TrainConfig(
            data=dataset.path, name=f"amp_{name}", runs_dir=runs, eval_every=4, sampling=SamplingConfig(bsize=64),
            recipe="cellpose",
            fold=("all",) if name == "all" else ("0",), optim=OptimConfig(n_epochs=4, batch_size=4),
            runtime=RuntimeConfig(device=options.device, amp="auto" if name == "all" else name),
        )  # fmt: skip
        report_training(config)


def report_training(config: TrainConfig) -> None:
    started = time.perf_counter()
    folds = train(config)
    seconds = time.perf_counter() - started
    scores = ", ".join(f"fold {fold.fold}: {fold.best_score:.4f}" for fold in folds)
    print(f"| {config.name} | {len(folds)} | {seconds:.0f} | {scores} |", flush=True)


def part_memory(options: argparse.Namespace, machine: Machine, folder: Path) -> None:
    """A batch that does not fit goes through the network in parts."""
    if machine.device.type != "cuda":
        print("skipped: only a GPU runs out of its memory")
        return
    dataset = make_dataset(folder / "memory", 3 * BATCH)
    samples = cache_samples(dataset, dataset.ids, chan=0, chan2=0)
    batch = next(endless(samples, machine.workers))
    stepper = make_stepper(machine, None)
    torch.cuda.reset_peak_memory_stats()
    stepper.step(batch, RATE)
    peak, total = torch.cuda.max_memory_allocated(), torch.cuda.mem_get_info()[1]
    print(f"a batch of {BATCH} takes {peak / 2**30:.2f} GiB")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.6 * peak / total)
    try:
        result = stepper.step(batch, RATE)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    print(f"with 0.6 of that: {stepper.pieces} parts, loss {result.loss:.3f}")


def part_fold(options: argparse.Namespace, machine: Machine, folder: Path) -> None:
    """One fold of a real data set, trained for a time; its score."""
    if not options.source.exists():
        print(f"skipped: {options.source} is not there")
        return
    dataset = prepare(PrepareConfig(source=options.source, out=folder / "kaggle"))
    make_folds(FoldsConfig(data=dataset.path))
    print("| run | folds | seconds | best score |\n|---|---|---|---|")
    config = TrainConfig(
        data=dataset.path, name="fold", runs_dir=folder / "runs", fold=("0",), recipe="cellpose",
        time_budget=f"{options.seconds}s", eval_every=50, optim=OptimConfig(n_epochs=2000),
        runtime=RuntimeConfig(device=options.device),
    )  # fmt: skip
    report_training(config)


PARTS = {
    "step": part_step,
    "train_seg": part_against_train_seg,
    "forward": part_forward,
    "precision": part_precision,
    "memory": part_memory,
    "fold": part_fold,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--source", type=Path, default=SHARED / "data" / "kaggle_layout")
    parser.add_argument("--seconds", type=int, default=120, help="training time of the real fold")
    parser.add_argument("--small", action="store_true", help="tiny numbers, to see that it runs")
    parser.add_argument("--folder", type=Path, help="where its own folder is made")
    options = parser.parse_args()
    options.turns, options.steps, options.tiles = (1, 1, 1) if options.small else (5, 20, 32)
    machine = choose_machine(RuntimeConfig(device=options.device))
    say_machine(machine.device)
    failed = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name in options.parts:
            print(f"\n## {name}: {PARTS[name].__doc__.splitlines()[0]}\n", flush=True)
            started = time.perf_counter()
            try:
                PARTS[name](options, machine, Path(folder))
            except Exception:
                failed.append(name)
                traceback.print_exc(limit=-6, file=sys.stdout)
            print(f"\n({time.perf_counter() - started:.0f} s)", flush=True)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()

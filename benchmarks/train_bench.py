"""Speed and memory of training: steps against cellpose's `train_seg`, crops, targets, evaluation.

    python benchmarks/train_bench.py step        training images per second, in turns with train_seg
    python benchmarks/train_bench.py augment     the crop pipeline and its share of a step
    python benchmarks/train_bench.py targets     flow targets of 600 images, cold and warm
    python benchmarks/train_bench.py evaluate    a validation image against the network's forward pass alone
    python benchmarks/train_bench.py memory      anonymous memory while crops are read

What is compared takes turns, so that whatever else the machine does falls on both; a ratio is the median
over the turns, the spread their lowest and highest. Each part prints a Markdown table under a line that
says what machine it ran on. All but `evaluate` make their images; `--data` takes a prepared dataset.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import imagecodecs
import numpy as np
import torch
from inputs import SHARED

from cellflow.config import MaskConfig, PrepareConfig, RuntimeConfig
from cellflow.engine.data.prepare import prepare
from cellflow.engine.runtime.machine import Machine, choose_machine
from cellflow.engine.segmentation.member import load_member
from cellflow.engine.segmentation.scoring import score_images, score_row
from cellflow.engine.segmentation.segmenter import Ready, Segmenter
from cellflow.engine.training.sample_cache import CachedSamples, cache_samples
from cellflow.io.dataset import Dataset
from cellflow.io.images import read_image, read_labels, write_labels
from cellflow.nn.dataset import Batch, CropDataset, EpochSampler, make_loader
from cellflow.nn.networks import UNet
from cellflow.nn.optim import make_optimizer
from cellflow.nn.precision import choose_layout, set_layout
from cellflow.nn.step import Stepper
from cellflow.numeric.labels import compact
from cellflow.numeric.normalize import normalize_percentile, select_channels
from cellflow.numeric.resize import resize_linear
from cellflow.numeric.tiling import make_tiles, pad_for_network
from cellflow.synthetic import CELL_TYPES, synthetic_image

warnings.simplefilter("ignore")

SHAPE = (520, 704)
CROP, BATCH, DIAMETER = 224, 8, 30.0
RATE = 0.005


# ------------------------------------------------------------------------------------ the machine


def say_machine(device: torch.device | None = None) -> None:
    """One line that says what the numbers under it were measured on."""
    load = (
        ", ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "?"
    )
    parts = [processor(), f"{cores()} cores", f"{torch.get_num_threads()} threads of torch"]
    parts.append(f"AVX-512 bf16 {yes_no(torch.cpu._is_avx512_bf16_supported())}")
    parts.append(f"AMX {yes_no(torch.cpu._is_amx_tile_supported())}")
    if device is not None and device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    if os.environ.get("GLIBC_TUNABLES"):
        parts.append("GLIBC_TUNABLES set")
    print(f"{', '.join(parts)}; torch {torch.__version__}; load before {load}\n", flush=True)


def processor() -> str:
    path = Path("/proc/cpuinfo")
    names = path.read_text().split("model name\t: ")[1:] if path.exists() else []
    return names[0].splitlines()[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def yes_no(value: bool) -> str:
    return "yes" if value else "no"


def clock(device: torch.device) -> float:
    """Seconds; on a GPU after everything that was asked of it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def spread(values: list[float], unit: str = "") -> str:
    return f"{statistics.median(values):.2f}{unit} | {min(values):.2f} to {max(values):.2f}{unit}"


# ------------------------------------------------------------------------------------- the images


@contextmanager
def opened(options: argparse.Namespace, **made: int | tuple[int, int]) -> Iterator[Dataset]:
    """The dataset that was asked for, or one of generated images that vanishes at the end."""
    if options.data is not None:
        yield Dataset.open(options.data)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        yield make_dataset(Path(folder), **made)  # type: ignore[arg-type]


def make_dataset(
    folder: Path, n: int, bases: int | None = None, shape: tuple[int, int] = SHAPE
) -> Dataset:
    """Generated images through `cellflow prepare`.

    `bases` images are generated; the others are these with one cell less and the grey values moved by
    a little, so that neither an image nor a label map is there twice.
    """
    (folder / "source" / "images").mkdir(parents=True)
    made = [
        synthetic_image(CELL_TYPES[index % 3], shape=shape, seed=index)
        for index in range(bases or n)
    ]
    for index in range(n):
        variant, base = divmod(index, len(made))
        image, labels = made[base]
        if variant:
            image = np.clip(image.astype(int) + variant, 0, 255).astype(np.uint8)
            labels = compact(np.where(labels == 1 + variant % labels.max(), 0, labels))[0]
        name = f"im{index:05d}"
        png = imagecodecs.png_encode(image, level=1)
        (folder / "source" / "images" / f"{name}.png").write_bytes(png)
        write_labels(folder / "source" / "masks" / f"{name}.tif", labels)
    return prepare(PrepareConfig(source=folder / "source", out=folder / "data"))


def make_crops(samples: CachedSamples) -> CropDataset:
    return CropDataset(samples, seed=0, fold=0, diam_mean=DIAMETER, size=CROP, scale_range=0.5)


def endless(samples: CachedSamples, workers: int) -> Iterator[Batch]:
    """Batches of whole epochs, one epoch after the other, as the trainer reads them."""
    whole = len(samples) // BATCH * BATCH
    sampler = EpochSampler(len(samples), whole, BATCH, seed=0, fold=0)
    loader = make_loader(make_crops(samples), sampler, workers=workers)
    for epoch in itertools.count():
        sampler.epoch = epoch
        for batch in loader:
            yield Batch(*batch)


def make_stepper(machine: Machine, amp: torch.dtype | None) -> Stepper:
    net = UNet.build(diam_mean=DIAMETER).to(machine.device)
    set_layout(net, choose_layout(machine.device))
    optimizer = make_optimizer(net, "adamw", weight_decay=1e-5)
    return Stepper(net, optimizer, amp=amp)


# ------------------------------------------------------------------------------------------- step


class TurnsOverError(Exception):
    """Ends train_seg once all turns are timed."""


class Turns:
    """Some steps of train_seg, then some of each of ours, again and again.

    `after_step` is called at the end of every step of theirs. Their time for a step is from the end of
    one to the end of the next: a batch cut and augmented, forward, loss, backward, optimizer. When a turn
    of theirs is over, ours follow inside of that call, and their clock starts anew. The first steps of
    each turn warm up and are not counted.
    """

    def __init__(
        self, ours: dict[str, Callable[[], None]], options: argparse.Namespace, machine: Machine
    ):
        self.ours, self.steps, self.turns = ours, options.steps, options.turns
        self.device = machine.device
        self.warm = 1 + 3 * machine.workers  # batches that were made while it was their turn
        self.seconds: dict[str, list[float]] = {name: [] for name in ("train_seg", *ours)}
        self.ends: list[float] = []
        self.ours_now = False

    def after_step(self) -> None:
        if self.ours_now:  # these are AdamW steps too
            return
        self.ends.append(clock(self.device))
        if len(self.ends) < self.steps + 2:
            return
        self.seconds["train_seg"].append(statistics.median(np.diff(self.ends)[1:].tolist()))
        self.ours_now = True
        for name, step in self.ours.items():
            self.seconds[name].append(self.take_turn(step))
        self.ours_now = False
        if len(self.seconds["train_seg"]) == self.turns:
            raise TurnsOverError
        self.ends = []

    def take_turn(self, step: Callable[[], None]) -> float:
        for _ in range(self.warm):
            step()
        return statistics.median(self.timed(step) for _ in range(self.steps))

    def timed(self, step: Callable[[], None]) -> float:
        start = clock(self.device)
        step()
        return clock(self.device) - start


def run_train_seg(dataset: Dataset, turns: Turns, machine: Machine) -> None:
    """Cellpose's own loop with its defaults, in float32, until the turns are over."""
    from cellpose import models, train

    torch.manual_seed(0)
    model = models.CellposeModel(gpu=machine.device.type == "cuda", pretrained_model=None)
    names = dataset.ids[: len(dataset) // BATCH * BATCH]
    original = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: object, **options: object) -> object:
        result = original(self, *args, **options)
        turns.after_step()
        return result

    torch.optim.AdamW.step = step
    try:
        with tempfile.TemporaryDirectory() as folder, suppress(TurnsOverError):
            train.train_seg(
                model.net,
                train_data=[dataset.image(name) for name in names],
                train_labels=[dataset.labels(name) for name in names],
                channels=[0, 0],
                n_epochs=100_000,
                save_every=100_000,
                batch_size=BATCH,
                bsize=CROP,
                save_path=folder,
            )
    finally:
        torch.optim.AdamW.step = original


def bench_step(options: argparse.Namespace) -> None:
    """Whole training steps: theirs in float32, ours in float32 and in mixed precision where there is one."""
    machine = choose_machine(RuntimeConfig(device=options.device))
    say_machine(machine.device)
    with opened(options, n=3 * BATCH) as dataset:
        samples = cache_samples(dataset, dataset.ids, chan=0, chan2=0)
        batches = endless(samples, machine.workers)
        steppers = {name: make_stepper(machine, amp) for name, amp in precisions(machine).items()}
        ours = {
            f"cellflow, {name}": lambda stepper=stepper: stepper.step(next(batches), RATE)
            for name, stepper in steppers.items()
        }
        turns = Turns(ours, options, machine)
        run_train_seg(dataset, turns, machine)
    theirs = turns.seconds["train_seg"]
    print(
        f"{BATCH} crops of {CROP} x {CROP} a step, {options.turns} turns of {options.steps} steps each:\n"
    )
    print(
        "| training | seconds a step | images per second | times train_seg | spread |\n|---|---|---|---|---|"
    )
    for name, seconds in turns.seconds.items():
        middle = statistics.median(seconds)
        ratios = [a / b for a, b in zip(theirs, seconds, strict=True)]
        print(f"| {name} | {middle:.3f} | {BATCH / middle:.2f} | {spread(ratios)} |")


def precisions(machine: Machine) -> dict[str, torch.dtype | None]:
    """Float32, and what --amp auto takes on this machine."""
    amps: dict[str, torch.dtype | None] = {"--amp off": None}
    if machine.amp is not None:
        amps[f"--amp {str(machine.amp).removeprefix('torch.')}"] = machine.amp
    return amps


# ---------------------------------------------------------------------------------------- augment


def bench_augment(options: argparse.Namespace) -> None:
    """Crops of a batch by one process, and the same batch through the network."""
    machine = choose_machine(RuntimeConfig(device=options.device))
    say_machine(machine.device)
    amps = precisions(machine)
    crop_walls, crop_cpus, steps = [], [], {name: [] for name in amps}
    with opened(options, n=3 * BATCH) as dataset:
        batches = endless(cache_samples(dataset, dataset.ids, chan=0, chan2=0), 0)
        steppers = {name: make_stepper(machine, amp) for name, amp in amps.items()}
        for turn in range(options.turns + 1):
            for name, stepper in steppers.items():
                wall, cpu = time.perf_counter(), time.process_time()
                batch = next(batches)
                crop_wall, crop_cpu = time.perf_counter() - wall, time.process_time() - cpu
                start = clock(machine.device)
                stepper.step(batch, RATE)
                if turn:  # the first warms up
                    crop_walls.append(crop_wall)
                    crop_cpus.append(crop_cpu)
                    steps[name].append(clock(machine.device) - start)
    crop = statistics.median(crop_walls)
    print(f"{BATCH} crops of {CROP} x {CROP} in one process, {len(crop_walls)} batches:\n")
    print("| what | seconds | spread | crops' share of the step |\n|---|---|---|---|")
    for name, values in (("crops, wall", crop_walls), ("crops, processor", crop_cpus)):
        print(
            f"| {name} | {statistics.median(values):.4f} | {min(values):.4f} to {max(values):.4f} | |"
        )
    for name, values in steps.items():
        step = statistics.median(values)
        print(
            f"| network, loss, optimizer, {name} | {spread(values)} | {crop / (crop + step):.1%} |"
        )


# ---------------------------------------------------------------------------------------- targets


def bench_targets(options: argparse.Namespace) -> None:
    """`cache_samples` on a dataset whose cache is empty, and again."""
    say_machine()
    with opened(options, n=options.images, bases=20) as dataset:
        cells = int(dataset.images["n_instances"].sum())
        print("| what | seconds | ms an image |\n|---|---|---|", flush=True)
        for name in ("cold", "warm", "warm again"):
            start = time.perf_counter()
            cache_samples(dataset, dataset.ids, chan=0, chan2=0)
            seconds = time.perf_counter() - start
            print(f"| {name} | {seconds:.2f} | {seconds / len(dataset) * 1e3:.1f} |", flush=True)
        size = sum(item.stat().st_size for item in (dataset.path / "cache").iterdir())
        print(
            f"\n{len(dataset)} images, {cells / len(dataset):.0f} cells each, "
            f"{size / len(dataset) / 1e6:.2f} MB of cache each"
        )


# --------------------------------------------------------------------------------------- evaluate


def real_dataset(folder: Path, count: int) -> Dataset:
    """Phase-contrast images of 520 x 704 with their cells, cut from larger ones."""
    (folder / "source" / "images").mkdir(parents=True)
    for path in sorted((SHARED / "data" / "usiigaci" / "images").glob("*.png"))[:count]:
        image, labels = read_image(path), read_labels(path.parents[1] / "masks" / path.name)
        part = np.ascontiguousarray(image[: SHAPE[0], : SHAPE[1]])
        (folder / "source" / "images" / path.name).write_bytes(imagecodecs.png_encode(part))
        cells = compact(labels[: SHAPE[0], : SHAPE[1]])[0]
        write_labels(folder / "source" / "masks" / f"{path.stem}.tif", cells)
    return prepare(PrepareConfig(source=folder / "source", out=folder / "data"))


def bench_evaluate(options: argparse.Namespace) -> None:
    """Everything a validation image takes, against the network's forward pass on its tiles."""
    model = SHARED / "models" / "usiigaci_unet"
    if not model.exists() or not (SHARED / "data" / "usiigaci").exists():
        print("skipped: the model and the images of ../shared are not there")
        return
    machine = choose_machine(RuntimeConfig(device=options.device))
    say_machine(machine.device)
    member = load_member(model, "usiigaci", machine)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        dataset = real_dataset(Path(folder), options.images)
        rescale = member.diam_mean / member.diam_labels
        tiles = [tiles_of(dataset.image(name), rescale) for name in dataset.ids]
        print(f"{len(tiles)} images of {SHAPE[0]} x {SHAPE[1]}, {len(tiles[0])} tiles each:\n")
        print("| evaluation | s an image | times the network alone | spread |\n|---|---|---|---|")
        for name, amp in precisions(machine).items():
            runner = replace(machine, amp=amp).runner(member.net)
            runner.prepare()
            one = replace(member, runner=runner)
            segmenter = Segmenter([one], MaskConfig(), batch_size=BATCH)
            ways = evaluation_ways(segmenter, dataset, tiles)
            seconds = timed_in_turns(ways, options.turns, machine.device)
            for way, values in seconds.items():
                ratios = [a / b for a, b in zip(values, seconds[ALONE], strict=True)]
                middle = statistics.median(values) / len(tiles)
                print(f"| {way}, {name} | {middle:.3f} | {spread(ratios)} |", flush=True)


ALONE = "network alone"


def evaluation_ways(
    segmenter: Segmenter, dataset: Dataset, tiles: list[np.ndarray]
) -> dict[str, Callable[[], object]]:
    """The network on all tiles; image after image; and as training evaluates from the second time on."""
    member = segmenter.members[0]
    ready: dict[str, Ready] = {}
    truth = lru_cache(dataset.instances)

    def network_alone() -> None:
        for stack in tiles:
            member.runner.run(stack, batch_size=BATCH)

    def one_by_one() -> None:
        for name in dataset.ids:
            labels = segmenter.predict(dataset.image(name)).labels
            score_row(dataset.instances(name), labels)

    return {
        ALONE: network_alone,
        "image after image": one_by_one,
        "as training evaluates": lambda: score_images(
            segmenter, dataset, dataset.ids, ready=ready, truth=truth
        ),
    }


def timed_in_turns(
    ways: dict[str, Callable[[], object]], turns: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each way in each turn; one more turn, the first, warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            start = clock(device)
            way()
            if turn:
                seconds[name].append(clock(device) - start)
    return seconds


def tiles_of(image: np.ndarray, rescale: float) -> np.ndarray:
    """The tiles that prediction runs the network on."""
    normal = normalize_percentile(select_channels(image))
    shape = int(image.shape[0] * rescale), int(image.shape[1] * rescale)
    return make_tiles(pad_for_network(resize_linear(normal, shape), UNet.multiple)[0], UNet.tile)[0]


# ----------------------------------------------------------------------------------------- memory


def anonymous_megabytes() -> float:
    """Memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this kernel does not tell RssAnon")


def bench_memory(options: argparse.Namespace) -> None:
    """Growth of anonymous memory while as many crops are read from few and from many images."""
    say_machine()
    print(
        "| images | in files, MB | crops read | before, MB | growth at most, MB |\n|---|---|---|---|---|"
    )
    with opened(options, n=1000, bases=12, shape=(256, 256)) as dataset:
        samples = cache_samples(dataset, dataset.ids, chan=0, chan2=0)
        for _ in zip(range(100), endless(samples, 0), strict=False):
            pass  # warm up
        for count in (200, len(samples)):
            part = cache_samples(dataset, dataset.ids[:count], chan=0, chan2=0)
            size = sum(path.stat().st_size for path in (*part.images, *part.targets)) / 1e6
            before, most = anonymous_megabytes(), 0.0
            steps = 4 * len(samples) // BATCH
            for _ in zip(range(steps), endless(part, 0), strict=False):
                most = max(most, anonymous_megabytes() - before)
            print(
                f"| {count} | {size:.0f} | {steps * BATCH} | {before:.0f} | {most:.1f} |",
                flush=True,
            )


# ------------------------------------------------------------------------------------------- main


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {
        "step": bench_step,
        "augment": bench_augment,
        "targets": bench_targets,
        "evaluate": bench_evaluate,
        "memory": bench_memory,
    }
    parser.add_argument("part", choices=parts)
    parser.add_argument("--data", type=Path, help="prepared dataset instead of generated images")
    parser.add_argument("--folder", type=Path, help="where generated images lie while it runs")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each in a turn")
    parser.add_argument("--images", type=int, help="600 for targets, 6 for evaluate")
    options = parser.parse_args()
    if options.images is None:
        options.images = {"targets": 600}.get(options.part, 6)
    parts[options.part](options)


if __name__ == "__main__":
    main()

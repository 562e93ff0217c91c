"""Slides while processes are killed: is the result that of an undisturbed run, to the byte, and is nothing left over?

    python benchmarks/faults.py FOLDER [--kills 20] [--clients 5] [--seed 1]

A part of a real image of ../shared, 700 x 740 pixels in nine blocks, is segmented again and again by ``cellflow
predict``
with two workers: processes of its own (``local:2``), and those of a Dask cluster that runs already (``tcp://``).
Workers are killed (SIGKILL) in every step at moments that a seeded generator chooses, a few in each prediction;
then the command itself is, and repeated.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import tifffile

from cellflow.engine.slides.store import STEPS
from cellflow.io.images import read_image
from cellflow.storage.locks import is_locked

SHARED = Path(__file__).resolve().parents[2] / "shared"
BLOCK = 256
MOMENTS = (*STEPS[:5], "level_1", "tables")
"""Steps, in their order, in which something is killed."""
TOGETHER = 5
"""Workers that are killed in one prediction."""
PATIENCE = 300.0


@dataclass(frozen=True)
class Command:
    """A slide, and how it is segmented."""

    image: Path
    model: Path
    out: Path
    more: tuple[str, ...] = ()

    def start(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        """Start ``cellflow predict`` in a process; what it says goes into NAME.log."""
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable, "-m", "cellflow", "predict", str(self.image), "--model", str(self.model),
                    "--block", str(BLOCK), "--out", str(self.out), "--name", name, "--device", "cpu",
                    "--amp", "off", *self.more, *more,
                ],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def folder(self, name: str) -> Path:
        """Where the results of the slide go."""
        return self.out / name / "slides" / self.image.stem


@dataclass
class Trial:
    """One prediction that was disturbed."""

    name: str
    hit: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything in the folder of a slide; of its record what does not depend on time."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
    if "slide.json" in found:
        record = json.loads(found["slide.json"])
        del record["seconds"]
        found["slide.json"] = json.dumps(record).encode()
    return found


def differences(folder: Path, expected: dict[str, bytes]) -> list[str]:
    """In what the folder of a slide is not as it should be."""
    found = files_of(folder)
    wrong = [f"{name} is left over" for name in sorted(found.keys() - expected.keys())]
    wrong += [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    wrong += [
        f"{name} differs"
        for name in sorted(found.keys() & expected.keys())
        if found[name] != expected[name]
    ]
    if is_locked(folder / ".lock"):
        wrong.append(".lock is held")
    return wrong


def step_of(folder: Path) -> str:
    """The step that is under way, or nothing."""
    blocks = folder / ".blocks"
    under_way = ""
    for step in MOMENTS:
        if next((blocks / step).glob("[0-9]*.npz"), None) is not None:
            under_way = step
    return under_way or ("flows" if blocks.exists() else "")


def wait_for(folder: Path, step: str, done: int, client: subprocess.Popen[bytes]) -> bool:
    """Wait until so many blocks of a step are done; whether it came so far, or beyond."""
    until = time.monotonic() + PATIENCE
    later = MOMENTS[MOMENTS.index(step) :]
    while client.poll() is None and time.monotonic() < until:
        counts = [len(list((folder / ".blocks" / item).glob("[0-9]*.npz"))) for item in later]
        if (done == 0 and (folder / ".blocks/flow.zarr").exists()) or counts[0] >= max(1, done):
            return True
        if any(counts[1:]):
            return True
        time.sleep(0.002)
    return False


def workers_of(parent: int) -> list[psutil.Process]:
    """Worker processes that a process has started."""
    found = []
    for child in psutil.Process(parent).children():
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def kill_workers(
    command: Command,
    trial: Trial,
    client: subprocess.Popen[bytes],
    parent: int,
    steps: Sequence[str],
    rng: np.random.Generator,
) -> None:
    """Kill a worker in each of some steps."""
    for step in sorted(steps, key=MOMENTS.index):
        folder = command.folder(trial.name)
        if not wait_for(folder, step, int(rng.integers(0 if step == "flows" else 1, 5)), client):
            return
        time.sleep(float(rng.uniform(0, 0.1)))
        alive = workers_of(parent)
        if not alive or client.poll() is not None:
            continue
        alive[int(rng.integers(len(alive)))].send_signal(signal.SIGKILL)
        trial.hit.append(step_of(folder) or "the end")


def disturb_workers(
    command: Command, name: str, address: str, parent: int, steps: Sequence[str],
    rng: np.random.Generator, expected: dict[str, bytes],
) -> Trial:  # fmt: skip
    """A prediction whose workers are killed; ``parent`` has started them, 0 for the command itself."""
    trial, started = Trial(name), time.monotonic()
    client = command.start(name, "--scheduler", address)
    try:
        kill_workers(command, trial, client, parent or client.pid, steps, rng)
        code = client.wait(PATIENCE)
    finally:
        stop(client)
    if code:
        trial.wrong.append(f"the command ended with {code}")
    trial.wrong += differences(command.folder(name), expected)
    trial.seconds = time.monotonic() - started
    return trial


def disturb_client(
    command: Command, name: str, address: str, step: str, rng: np.random.Generator,
    expected: dict[str, bytes],
) -> Trial:  # fmt: skip
    """A prediction whose command is killed and repeated at once."""
    trial, started = Trial(name), time.monotonic()
    client = command.start(name, "--scheduler", address)
    try:
        if wait_for(command.folder(name), step, int(rng.integers(1, 5)), client):
            time.sleep(float(rng.uniform(0, 0.1)))
            if client.poll() is None:
                client.kill()
                client.wait()
                trial.hit.append(step_of(command.folder(name)) or "the end")
    finally:
        stop(client)
    code = command.start(name, "--scheduler", address).wait(PATIENCE)
    if code:
        trial.wrong.append(f"the command ended with {code}")
    trial.wrong += differences(command.folder(name), expected)
    trial.seconds = time.monotonic() - started
    return trial


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that still runs."""
    if process.poll() is None:
        process.kill()
        process.wait()


@contextmanager
def cluster() -> Iterator[str]:
    """A Dask cluster of two processes; its address."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    ) as started:  # fmt: skip
        yield started.scheduler_address


def undisturbed(command: Command, name: str = "undisturbed") -> dict[str, bytes]:
    """What the slide's folder holds if nothing happens, in one process."""
    if command.start(name).wait(PATIENCE):
        raise SystemExit((command.out / f"{name}.log").read_text())
    found = files_of(command.folder(name))
    if not json.loads(found["slide.json"])["cells"]:
        raise SystemExit("there are no cells, so nothing could be lost")
    return found


def tiled(path: Path) -> Path:
    """A part of a real image, in tiles."""
    source = min((SHARED / "data/usiigaci/images").iterdir())
    tifffile.imwrite(path, read_image(source)[:700, :740], tile=(128, 128))
    return path


def spread(count: int, rng: np.random.Generator) -> list[list[str]]:
    """Steps for so many kills, every step as often as the others, a few for each prediction."""
    steps = [MOMENTS[number % len(MOMENTS)] for number in range(count)]
    steps = [steps[place] for place in rng.permutation(count)]
    return [steps[start : start + TOGETHER] for start in range(0, count, TOGETHER)]


def run(command: Command, kills: int, clients: int, seed: int) -> list[tuple[str, Trial]]:
    """All trials, with where the workers were."""
    rng = np.random.default_rng(seed)
    expected = undisturbed(command)
    trials = []
    with cluster() as address:
        places = (("local:2", "local:2", 0), ("tcp://", address, os.getpid()))
        for number, steps in enumerate(spread(kills, rng)):
            place, text, parent = places[number % 2]
            trial = disturb_workers(
                command, f"workers_{number}", text, parent, steps, rng, expected
            )
            trials.append((f"worker, {place}", trial))
        for number in range(clients):
            place, text, _ = places[(number + 1) % 2]
            step = MOMENTS[number % len(MOMENTS)]
            trial = disturb_client(command, f"client_{number}", text, step, rng, expected)
            trials.append((f"command, {place}", trial))
    return trials


def table(trials: Sequence[tuple[str, Trial]]) -> str:
    """The trials as a table of Markdown."""
    lines = ["| killed | kills | in the steps | result | s |", "| --- | ---: | --- | --- | ---: |"]
    for what, trial in trials:
        result = "; ".join(trial.wrong) or "equal"
        lines.append(
            f"| {what} | {len(trial.hit)} | {', '.join(trial.hit)} | {result} | {trial.seconds:.0f} |"
        )
    hit = Counter(step for _, trial in trials for step in trial.hit)
    equal = sum(not trial.wrong for _, trial in trials)
    named = ", ".join(f"{step} {hit[step]}" for step in (*MOMENTS, "the end") if hit[step])
    lines += [
        "",
        f"{sum(hit.values())} kills ({named}); {equal} of {len(trials)} results are equal.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(args.folder / "out", ignore_errors=True)
    (model,) = (SHARED / "models").glob("usiigaci_unet*")
    more = ("--diameter", "50")  # few tiles
    command = Command(tiled(args.folder / "tiled.tif"), model, args.folder / "out", more)
    print(table(run(command, args.kills, args.clients, args.seed)))


if __name__ == "__main__":
    main()

"""Trainings while processes are killed: is each run that of an undisturbed one, and is nothing left over?

    python benchmarks/training_faults.py FOLDER [--kills 20] [--clients 5] [--seed 1]

Three folds of synthetic images are trained again and again by ``cellflow train --fold all`` with two workers:
processes of its own (``local:2``), and those of a Dask cluster that runs already (``tcp://``). Killed (SIGKILL) are
the Dask worker, the process of a fold below it, and both, as when their host is lost, at moments of every phase that
a seeded generator chooses; then the command itself, which is repeated at once.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from faults import cluster, stop
from same_runs import differences, files_of
from skimage.io import imsave

import cellflow
from cellflow.config import FoldsConfig, PrepareConfig
from cellflow.io.images import write_labels
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.nn.networks import UNet
from cellflow.storage.locks import is_locked
from cellflow.storage.run_folder import FoldFolder, RunFolder
from cellflow.synthetic import synthetic_dataset

FOLDS = 3
EPOCHS, EVERY = 12, 3
"""Epochs, and those between two evaluations."""
RATE = 0.0005
WARM_UP = 40
"""Epochs of the start model, so that there are scores to be the best."""
PHASES = ("start", "steps", "evaluation", "saving", "end")
VICTIMS = ("worker", "fold", "worker and fold")
TOGETHER = 5
"""Kills in one training."""
AT_MOST = 2
"""Kills of a fold in one training: one that is lost three times is reported as failed."""
PATIENCE = 1200.0
GONE_SECONDS = 20.0
"""That processes may take to end after the command has."""
EPOCH_LINE = re.compile(r"([\d-]+ [\d:]+,\d+) INFO fold \d+  epoch (\d+)/", re.MULTILINE)


@dataclass(frozen=True)
class Training:
    """Data and start model of a training, and how long its parts take."""

    data: Path
    model: Path
    out: Path
    seconds: dict[str, float] = field(default_factory=dict)

    def start(
        self, name: str, *more: str, folds: str = "all", epochs: int = EPOCHS
    ) -> subprocess.Popen[bytes]:
        """Start ``cellflow train`` in a process; what it says goes into NAME.log."""
        self.out.mkdir(parents=True, exist_ok=True)
        every = EVERY if epochs == EPOCHS else epochs
        with (self.out / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable, "-m", "cellflow", "train", "--fold", folds, "--data", str(self.data),
                    "--runs_dir", str(self.out / name), "--init", str(self.model), "--adam", "--schedule", "cosine",
                    "--n_epochs", str(epochs), "--eval_every", str(every), "--batch_size", "2", "--bsize", "64",
                    "--min_train_masks", "1", "--device", "cpu", "--amp", "off", "--threads", "1",
                    "--learning_rate", str(RATE if epochs == EPOCHS else 0.005), *more,
                ],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def run(self, name: str) -> RunFolder:
        """Folder of a run."""
        return RunFolder(self.out / name / "exp")

    def fresh(self) -> None:
        """Forget what is kept of the images, so that the start has something to write."""
        shutil.rmtree(self.data / "cache", ignore_errors=True)


@dataclass
class Trial:
    """One training that was disturbed."""

    name: str
    hit: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


# What is killed, and when


@dataclass
class Watch:
    """A training under way."""

    training: Training
    trial: Trial
    client: subprocess.Popen[bytes]
    rng: np.random.Generator
    seen: dict[int, int] = field(default_factory=dict)
    kills: Counter[int] = field(default_factory=Counter)
    pids: set[int] = field(default_factory=set)

    @property
    def run(self) -> RunFolder:
        """Its run."""
        return self.training.run(self.trial.name)

    def wait_for(self, phase: str) -> tuple[int, psutil.Process] | None:
        """Wait for a moment of a phase in any fold that may still be hit; the fold and its process."""
        until = time.monotonic() + PATIENCE
        while self.client.poll() is None and time.monotonic() < until:
            for fold in self.rng.permutation(FOLDS).tolist():
                if self.kills[fold] >= AT_MOST:
                    continue
                process = self.trainer(fold)
                pause = None if process is None else self.pause(phase, fold, process)
                if process is not None and pause is not None:
                    time.sleep(pause)
                    return fold, process
            time.sleep(0.001)
        return None

    def trainer(self, fold: int) -> psutil.Process | None:
        """The process that trains a fold."""
        files = self.run.fold(fold)
        with suppress(OSError, ValueError, IndexError, psutil.Error):
            pid = int(files.lock.read_text().split()[1])
            if pid in self.pids or is_locked(files.lock):
                self.pids.add(pid)
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    return process
        return None

    def is_saving(self, files: FoldFolder, process: psutil.Process) -> bool:
        """Whether a process writes a state or a model now; what one before it has left is older."""
        with suppress(OSError, psutil.Error):
            written = [path.stat().st_mtime for path in files.path.glob(".????????.tmp.pt")]
            return any(when > process.create_time() for when in written)
        return False

    def pause(self, phase: str, fold: int, process: psutil.Process) -> float | None:
        """Seconds to a moment of the phase if that has come, in this fold, else None."""
        files, seconds = self.run.fold(fold), self.training.seconds
        epoch = self.last_epoch(files)
        if phase == "saving":
            return float(self.rng.uniform(0, 0.005)) if self.is_saving(files, process) else None
        if epoch is None:
            return float(self.rng.uniform(0, seconds["start"])) if phase == "start" else None
        if epoch == self.seen.get(fold) or phase == "start":
            return None
        if phase == "end":
            return float(self.rng.uniform(0, seconds["end"])) if epoch == EPOCHS else None
        is_evaluated = (epoch + 1) % EVERY == 0
        if epoch == EPOCHS or is_evaluated != (phase == "evaluation"):
            return None
        self.seen[fold] = epoch
        if phase == "steps":
            return float(self.rng.uniform(0, seconds["steps"]))
        return seconds["steps"] + float(self.rng.uniform(0, seconds["evaluation"]))

    def last_epoch(self, files: FoldFolder) -> int | None:
        """The epoch that was logged last since the fold was (re)started; None where none was."""
        text = files.log.read_text() if files.log.exists() else ""
        now = text[text.rfind("images train, ") :] if "images train, " in text else ""
        lines = EPOCH_LINE.findall(now)
        return int(lines[-1][1]) if lines else None

    def kill(self, phase: str, victim: str) -> None:
        """Kill something of a fold in a phase."""
        found = self.wait_for(phase)
        if found is None:
            return
        fold, process = found
        with suppress(psutil.Error):
            worker = process.parent()
            targets = {"worker": [worker], "fold": [process], "worker and fold": [worker, process]}
            for target in targets[victim]:
                if target is None or target.pid == 1:  # its worker was killed before it
                    return
                target.send_signal(signal.SIGKILL)
            self.kills[fold] += 1
            self.trial.hit.append((phase, victim))


def disturb_workers(
    training: Training, name: str, address: str, plan: Sequence[tuple[str, str]],
    rng: np.random.Generator, expected: dict[str, Any],
) -> Trial:  # fmt: skip
    """A training in which workers and folds are killed."""

    def disturb(watch: Watch) -> None:
        for phase, victim in sorted(plan, key=lambda item: PHASES.index(item[0])):
            watch.kill(phase, victim)

    return disturbed(training, name, address, disturb, rng, expected)


def disturb_client(
    training: Training, name: str, address: str, phase: str, rng: np.random.Generator,
    expected: dict[str, Any],
) -> Trial:  # fmt: skip
    """A training whose command is killed, and repeated at once."""

    def disturb(watch: Watch) -> None:
        if watch.wait_for(phase) is not None and watch.client.poll() is None:
            watch.client.kill()
            watch.client.wait()
            watch.trial.hit.append((phase, "command"))
            watch.client = training.start(name, "--scheduler", address)

    return disturbed(training, name, address, disturb, rng, expected)


def disturbed(
    training: Training, name: str, address: str, disturb: Callable[[Watch], None],
    rng: np.random.Generator, expected: dict[str, Any],
) -> Trial:  # fmt: skip
    """A training to which something is done, and what became of it."""
    training.fresh()
    trial, started = Trial(name), time.monotonic()
    watch = Watch(training, trial, training.start(name, "--scheduler", address), rng)
    try:
        disturb(watch)
        code = watch.client.wait(PATIENCE)
    finally:
        stop(watch.client)
    trial.seconds = time.monotonic() - started
    if code:
        trial.wrong.append(f"the command ended with {code}")
    until = time.monotonic() + GONE_SECONDS
    while (left := still_training(watch.run)) and time.monotonic() < until:
        time.sleep(0.1)
    trial.wrong += [f"process {pid} still runs" for pid in left]
    trial.wrong += differences(training.data, watch.run, expected)
    return trial


def still_training(run: RunFolder) -> list[int]:
    """Processes that train a fold of a run."""
    found = []
    for files in run.fold_folders():
        if is_locked(files.lock):
            found.append(int(files.lock.read_text().split()[1]))
    return found


# All of it


def prepared(folder: Path) -> Training:
    """Images of three folds, and a narrow network to start from; what an earlier call has made is kept."""
    source, data, model = folder / "source", folder / "data", folder / "start.pt"
    training = Training(data, folder / "trained.pt", folder / "out")
    if training.model.is_file():
        shutil.rmtree(training.out, ignore_errors=True)
        return training
    rows = []
    (source / "images").mkdir(parents=True)
    for item in synthetic_dataset(12, shape=(128, 128), seed=5, per_group=1):
        imsave(source / "images" / f"{item.id}.png", item.image, check_contrast=False)
        write_labels(source / "masks" / f"{item.id}.tif", item.labels)
        rows.append({"id": item.id, "cell_type": item.cell_type, "group": item.group})
    pd.DataFrame(rows).to_csv(source / "table.csv", index=False)
    cellflow.prepare(PrepareConfig(source=source, out=data, table=source / "table.csv"))
    cellflow.make_folds(FoldsConfig(data=data, k=FOLDS))
    torch.manual_seed(3)
    save_model_file(model, UNet(diam_mean=17.0, widths=(8, 16, 32, 64)), {})
    first = Training(data, model, training.out)
    finish(first.start("start", folds="0", epochs=WARM_UP), training.out / "start.log")
    save_model_file(training.model, load_model_file(first.run("start").fold(0).best).net, {})
    return training


def finish(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a command that nothing happens to."""
    if process.wait(PATIENCE):
        raise SystemExit(log.read_text())


def undisturbed(training: Training) -> dict[str, Any]:
    """What a run holds if nothing happens, in one process; how long its parts took is noted."""
    name = "undisturbed"
    training.fresh()
    finish(training.start(name), training.out / f"{name}.log")
    times: dict[str, list[float]] = {"start": [], "steps": [], "evaluation": []}
    for files in training.run(name).fold_folders():
        text = files.log.read_text()
        lines = [
            (pd.Timestamp(when.replace(",", ".")), int(n)) for when, n in EPOCH_LINE.findall(text)
        ]
        began = pd.Timestamp(text[: text.find(" INFO")].replace(",", "."))
        times["start"].append((lines[0][0] - began).total_seconds())
        for (before, _), (now, epoch) in pairwise(lines):
            kind = "evaluation" if epoch % EVERY == 0 else "steps"
            times[kind].append((now - before).total_seconds())
    start, steps, both = (float(np.median(times[kind])) for kind in times)
    seconds = {"start": start, "steps": steps, "evaluation": max(both - steps, 0.01), "end": 1.0}
    training.seconds.update(seconds)
    return files_of(training.data, training.run(name))


def planned(kills: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Phases and victims of so many kills, each as often as the others."""
    all_of_them = [(PHASES[i % len(PHASES)], VICTIMS[i % len(VICTIMS)]) for i in range(kills)]
    return [all_of_them[place] for place in rng.permutation(kills)]


def run(training: Training, kills: int, clients: int, seed: int) -> list[tuple[str, Trial]]:
    """All trials, with where the workers were."""
    rng = np.random.default_rng(seed)
    expected = undisturbed(training)
    print({name: round(value, 2) for name, value in training.seconds.items()}, flush=True)
    trials: list[tuple[str, Trial]] = []
    with cluster() as address:
        places = (("local:2", "local:2"), ("tcp://", address))
        left, number = planned(kills, rng), 0
        while left and number < kills:
            place, text = places[number % 2]
            plan, left = left[:TOGETHER], left[TOGETHER:]
            trial = disturb_workers(training, f"workers_{number}", text, plan, rng, expected)
            left += (Counter(plan) - Counter(trial.hit)).elements()  # moments that did not come
            trials.append((place, trial))
            print(trials[-1], flush=True)
            number += 1
        for number in range(clients):
            place, text = places[number % 2]
            phase = PHASES[number % len(PHASES)]
            trial = disturb_client(training, f"client_{number}", text, phase, rng, expected)
            trials.append((place, trial))
            print(trials[-1], flush=True)
    return trials


def table(trials: Sequence[tuple[str, Trial]]) -> str:
    """The trials as a table of Markdown."""
    lines = [
        "| workers | kills | in the phases | result | s |",
        "| --- | ---: | --- | --- | ---: |",
    ]
    for place, trial in trials:
        result = "; ".join(trial.wrong) or "equal"
        lines.append(
            f"| {place} | {len(trial.hit)} | {', '.join(map(': '.join, trial.hit))} | {result} | {trial.seconds:.0f} |"
        )
    hit = [item for _, trial in trials for item in trial.hit]
    equal = sum(not trial.wrong for _, trial in trials)
    phases, victims = Counter(phase for phase, _ in hit), Counter(victim for _, victim in hit)
    lines += [
        "",
        f"{len(hit)} kills ({', '.join(f'{phase} {phases[phase]}' for phase in PHASES)}; "
        f"{', '.join(f'{name} {count}' for name, count in victims.items())}); "
        f"{equal} of {len(trials)} runs are equal.",
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
    training = prepared(args.folder.resolve())
    print(table(run(training, args.kills, args.clients, args.seed)))


if __name__ == "__main__":
    main()

"""Commands that are killed, or whose disk fails, and that are called again: do they end as if nothing had happened?

    python benchmarks/kills.py FOLDER [--kills 500] [--failing 40] [--full 4] [--seed 1] [--commands train oof ...]

Each command that writes is called on small made-up data in ``FOLDER/work``, again and again from the same state:

- ``--kills``: killed (SIGKILL), so often over all, in turn at a random moment of its time and at a random step that
  changes the disk: a write, sync, rename, removal, new folder.
- ``--failing``: so many of those steps, or all where there are fewer, fail instead, in turn with EIO, once, and with
  ENOSPC, from there on.
- ``--full``: on a file system of its own (a tmpfs, which only root may mount) that is full after so many shares of what
  the command writes.

What can be read then must be whole, and a failure of the disk must be said with the name of a file. The same command
again must leave what an undisturbed one leaves, to the byte but for times, and nothing else.
"""

from __future__ import annotations

import argparse
import errno
import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import forked
import kill_cases
import numpy as np
from forked import Ended, Fault
from kill_cases import CASES, Case
from kill_checks import differences, files_of, unreadable

ROOM = 256 << 20
PAGE = 4096
NAMED = re.compile(r"cellflow: .*(/|cellflow-data|exp\.zip)")
"""The last words of a command, with the name of a file or folder."""
EXISTS = re.compile("(exists|is there) already")
"""What a command that replaces nothing says if the one that was killed had got to its end."""
KINDS = ("differing", "leftover", "lock", "unreadable", "silent")


PICTURES = re.compile(r"differing: \S+/(val|train)_batch\w*\.png\b")
"""A training does without them where the disk is full, and says so."""


@dataclass
class Trial:
    """A command that was disturbed; what was wrong then, each beginning with one of `KINDS`."""

    case: str
    fault: str
    wrong: list[str] = field(default_factory=list)


@dataclass
class Bench:
    """Where commands run, and what they leave undisturbed."""

    folder: Path
    expected: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: dict[str, Ended] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def fresh(self, case: Case) -> None:
        """Put the folder into the state that a command finds."""
        for path in self.work.iterdir() if self.work.exists() else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self.folder / "before" / case.finds, self.work, dirs_exist_ok=True)

    def undisturbed(self, case: Case) -> None:
        """Run a command twice, which must leave the same."""
        for _ in range(2):
            self.fresh(case)
            ended = forked.run(case.words, self.work)
            if ended.code:
                raise SystemExit(f"cellflow {' '.join(case.words)} failed:\n{ended.said}")
            found = files_of(self.work, case.of_the_day)
            self.expected.setdefault(case.name, found)
            if wrong := self.differences(case):
                raise SystemExit(f"{case.name}, undisturbed: {'; '.join(wrong)}")
            self.ended[case.name] = ended

    def differences(self, case: Case) -> list[str]:
        """In what the folder is not as an undisturbed command leaves it."""
        return differences(self.work, self.expected[case.name], case.of_the_day)

    def kill(self, case: Case, fault: Fault) -> bool:
        """Kill a command and call it again; whether it was killed, and had not ended before."""
        self.fresh(case)
        ended = forked.run(case.words, self.work, fault)
        if ended.killed:
            self.look(case, Trial(case.name, f"{fault} {ended.hit}"), spared=None)
        return ended.killed

    def fail(self, case: Case, fault: Fault) -> None:
        """Let the disk fail under a command, and call it again."""
        self.fresh(case)
        ended = forked.run(case.words, self.work, fault)
        self.look(case, Trial(case.name, f"{fault} {ended.hit}", self.silence(case, ended)))

    def look(self, case: Case, trial: Trial, spared: re.Pattern[str] | None = PICTURES) -> None:
        """See what there is, call the command again, and see what there is then but for what may lack."""
        trial.wrong += unreadable(self.work)
        self.make_room()
        again = forked.run(case.words, self.work)
        if again.code and not EXISTS.search(again.said):
            trial.wrong.append(f"differing: ended with {again.code}: {last_words(again.said)}")
        wrong = self.differences(case)
        trial.wrong += [line for line in wrong if spared is None or not spared.match(line)]
        if trial.wrong:
            kept = self.folder / "wrong" / str(len(self.trials))
            shutil.copytree(self.work, kept / "work")
            shutil.copy(self.folder / "said.txt", kept)
            print(f"{case.name}, {trial.fault}: {'; '.join(trial.wrong)}", flush=True)
        self.trials.append(trial)

    def silence(self, case: Case, ended: Ended) -> list[str]:
        """What is wrong with how a failure of the disk was told."""
        if "Traceback" in ended.said:
            return [f"silent: a traceback: {last_words(ended.said)}"]
        if ended.code:
            named = NAMED.search(ended.said)
            return [] if named else [f"silent: no file is named: {last_words(ended.said)}"]
        # It could do without what failed, which lacks then, or was only to be removed.
        lacks = self.differences(case)
        told = re.search("could not be|did not record", ended.said)
        return [f"silent: {line}" for line in lacks if not told and not line.startswith("lock")]

    @contextmanager
    def own_disk(self) -> Iterator[bool]:
        """Work on a file system of its own; false where none may be mounted."""
        options = ["-t", "tmpfs", "-o", f"size={ROOM}", "cellflow-kills", str(self.work)]
        tool = shutil.which("mount")
        mounted = tool is not None and subprocess.run([tool, *options]).returncode == 0
        try:
            yield mounted
        finally:
            if mounted:
                subprocess.run(["umount", str(self.work)], check=True)

    def make_room(self, left: int | None = None) -> None:
        """Leave so much room on a disk of our own, by default plenty; other disks stay as they are."""
        if self.work.is_mount():
            facts = os.statvfs(self.work)
            used = (facts.f_blocks - facts.f_bfree) * facts.f_frsize
            size = ROOM if left is None else used + left
            options = ["-o", f"remount,size={size}", str(self.work)]
            subprocess.run(["mount", *options], check=True)

    def fill(self, case: Case, count: int) -> None:
        """Call a command on a disk that is full after so many shares of what it writes."""
        self.fresh(case)
        before = size_of(self.work)
        forked.run(case.words, self.work)
        needed = max(PAGE, size_of(self.work) - before)
        for share in range(count):
            self.make_room()
            self.fresh(case)
            left = needed * share // count // PAGE * PAGE
            self.make_room(left)
            ended = forked.run(case.words, self.work)
            self.look(case, Trial(case.name, f"{left} bytes left", self.silence(case, ended)))


def size_of(folder: Path) -> int:
    """Bytes that files take, in whole pages."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*"))


def last_words(text: str) -> str:
    """The end of what a command said, on one line."""
    return " | ".join(text.strip().splitlines()[-3:])[-600:]


def kill_faults(ended: Ended, rng: np.random.Generator) -> Iterator[Fault]:
    """Kills at random moments and at random steps, in turn."""
    while True:
        yield Fault(seconds=float(rng.uniform(0, ended.seconds)))
        yield Fault(step=int(rng.integers(1, len(ended.steps) + 1)))


def disk_faults(ended: Ended, count: int) -> Iterator[Fault]:
    """Failures of every step, or of so many spread over all."""
    places = np.linspace(1, len(ended.steps), min(count, len(ended.steps)))
    for number, place in enumerate(places.round().astype(int).tolist()):
        yield Fault(step=place, code=(errno.ENOSPC, errno.EIO)[number % 2])


def kill_all(
    bench: Bench, cases: Sequence[Case], count: int, seed: int, seconds: float = math.inf
) -> None:
    """So many kills over all commands, by their shares, as far as the time goes."""
    ends = np.cumsum([case.share for case in cases])
    numbers = np.diff(np.round(count * ends / ends[-1]).astype(int), prepend=0)
    rng, until = np.random.default_rng(seed), time.monotonic() + seconds
    faults = [kill_faults(bench.ended[case.name], rng) for case in cases]
    for turn in rng.permutation(np.repeat(np.arange(len(cases)), numbers)):
        while time.monotonic() < until and not bench.kill(cases[turn], next(faults[turn])):
            pass


def fail_all(bench: Bench, cases: Sequence[Case], count: int, seconds: float = math.inf) -> None:
    """Failures of so many steps of every command, in any order, as far as the time goes."""
    until = time.monotonic() + seconds
    faults = [
        (case, fault)
        for case in cases
        for fault in disk_faults(bench.ended[case.name], math.ceil(count * case.share))
    ]
    for place in np.random.default_rng(0).permutation(len(faults)):
        if time.monotonic() < until:
            bench.fail(*faults[place])


def table(title: str, trials: Sequence[Trial]) -> str:
    """The trials by command, as a table of Markdown."""
    lines = [f"| command | {title} | equal | {' | '.join(KINDS)} |", "| --- |" + " ---: |" * 7]
    for name in [*dict.fromkeys(trial.case for trial in trials), "all"]:
        mine = [trial for trial in trials if name in (trial.case, "all")]
        counts = [sum(any(w.startswith(kind) for w in t.wrong) for t in mine) for kind in KINDS]
        numbers = [len(mine), sum(not trial.wrong for trial in mine), *counts]
        lines.append(f"| {name} | {' | '.join(map(str, numbers))} |")
    return "\n".join(lines)


def report(bench: Bench, title: str) -> int:
    """Print what became of the trials, which are done with then; how many were wrong."""
    wrong = sum(bool(trial.wrong) for trial in bench.trials)
    print(table(title, bench.trials), "\n", flush=True)
    bench.trials.clear()
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--failing", type=int, default=40)
    parser.add_argument("--full", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=math.inf, help="of kills, and of failures")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--commands", nargs="+", default=list(CASES), choices=list(CASES))
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    forked.start_server("warm")
    cases = [CASES[name] for name in args.commands]
    bench, wrong = Bench(args.folder.resolve()), 0
    kill_cases.make_states(bench.folder, [case.finds for case in cases])
    for case in cases:
        bench.undisturbed(case)
    if args.kills:
        kill_all(bench, cases, args.kills, args.seed, 60 * args.minutes)
        wrong += report(bench, "kills")
    if args.failing:
        fail_all(bench, cases, args.failing, 60 * args.minutes)
        wrong += report(bench, "failures")
    if args.full:
        with bench.own_disk() as mounted:
            for case in cases if mounted else ():
                bench.fill(case, args.full)
        wrong += report(bench, "full disks") if mounted else 0
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()

"""Commands that are killed, or whose disk fails, and that are called again: do they end as if nothing had happened?

    python benchmarks/kills.py FOLDER [--kills 500] [--failing 40] [--tmpfs 4] [--seed 1] [--commands train oof ...]

Each command that writes is called on small made-up data in ``FOLDER/work``, again and again from the same state: it is
killed (SIGKILL) at a random moment of its time or at a random step that changes the disk (a write, sync, rename,
removal, new folder); with ``--failing`` such a step fails instead (EIO once; ENOSPC from there on, as on a full disk),
and with ``--tmpfs`` the folder is a file system of its own that is really full. What can be read then must be whole.
The same command again must leave what an undisturbed one leaves, to the byte but for times, and nothing else.
"""

from __future__ import annotations

import argparse
import errno
import json
import re
import shutil
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import forked
import kill_cases
import numpy as np
import pandas as pd
import same_runs
import tifffile
import yaml
from forked import Ended, Fault
from kill_cases import CASES, Case
from skimage.io import imread

from cellflow.io.flow_store import FlowStore
from cellflow.nn.checkpoint import load_state
from cellflow.storage.locks import is_locked
from cellflow.tracking import read_journal

OF_THE_DAY = re.compile(
    r'20\d\d-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?( UTC|\+00:00)?|"(seconds|free_disk)": ([\d.]+|\{[^}]*\})'
)
"""Times in pages and records."""
NAMED_ONLY = ("said.txt", "log.txt", ".lock", "history.png", "tracking.json", "environment.json")
"""Files that are only to be there: they say when, where and how fast."""
FAILED = re.compile(r"cellflow: (.*)", re.DOTALL)
EXISTS = "exists already"
"""What commands that replace nothing say when the one that was killed had got to its end."""


@dataclass
class Trial:
    """A command that was disturbed, and what was wrong then."""

    case: str
    fault: str
    wrong: list[str] = field(default_factory=list)


# What is compared


def content(path: Path) -> Any:
    """What is compared of a file."""
    if path.name in NAMED_ONLY or path.suffix == ".log":
        return None
    if path.name == "events.jsonl":
        return what_happened(path)
    if path.name in ("metadata.json", "queue.json", "report.html"):
        return OF_THE_DAY.sub("", path.read_text())
    return same_runs.content(path)


def what_happened(path: Path) -> list[str]:
    """Epochs and ends of a journal, each once, however often a fold was started."""
    rows = [event for event in read_journal(path) if event["event"] in ("epoch", "end")]
    ends = {event["fold"]: event for event in rows if event["event"] == "end"}
    epochs = [event for event in rows if event["event"] == "epoch"]
    found = [same_runs.without_times(event | {"time": 0}) for event in (*ends.values(), *epochs)]
    return sorted(json.dumps(event, sort_keys=True) for event in found)


def files_of(work: Path) -> dict[str, Any]:
    """Everything in a folder: files with what is compared of them, and empty folders."""
    found: dict[str, Any] = {}
    for path in sorted(work.rglob("*")):
        name = str(path.relative_to(work))
        if path.is_file():
            found[name] = content(path)
        elif not any(path.iterdir()):
            found[name + "/"] = None
    return found


def differences(work: Path, expected: dict[str, Any]) -> list[str]:
    """In what a folder is not as it should be."""
    found = files_of(work)
    extra = sorted(found.keys() - expected.keys())
    wrong = [f"{'lock' if '.lock' in name else 'leftover'}: {name}" for name in extra]
    wrong += [f"differing: {name} is missing" for name in sorted(expected.keys() - found.keys())]
    both = sorted(found.keys() & expected.keys())
    wrong += [
        f"differing: {name}{where(found[name], expected[name])}"
        for name in both
        if not same_runs.is_same(found[name], expected[name])
    ]
    return wrong + [f"lock: {path} is held" for path in work.rglob(".*lock*") if is_locked(path)]


def where(found: Any, expected: Any) -> str:
    """Where two texts begin to differ."""
    if not (isinstance(found, str | bytes) and isinstance(expected, type(found))):
        return ""
    pairs = zip(found, expected, strict=False)
    at = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(found), len(expected)))
    parts = [text[max(0, at - 60) : at + 60] for text in (found, expected)]
    return f": {parts[0]!r} instead of {parts[1]!r}"


# What must be whole at any moment


def _read_csv(path: Path) -> None:
    pd.read_csv(path)


def _read_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def _read_page(path: Path) -> None:
    assert path.read_text().rstrip().endswith("</html>")


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: json.loads(path.read_text()),
    ".geojson": lambda path: json.loads(path.read_text()),
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
    ".jsonl": read_journal,
    ".csv": _read_csv,
    ".pt": load_state,
    ".tif": tifffile.imread,
    ".png": imread,
    ".zip": _read_zip,
    ".html": _read_page,
}


def unreadable(work: Path) -> list[str]:
    """Artefacts that are there and cannot be read; hidden ones are nobody's yet."""
    wrong = []
    for path in sorted(work.rglob("*")):
        inside = path.relative_to(work).parts
        if any(part.startswith(".") or part.endswith(".zarr") for part in inside[:-1]):
            continue
        if inside[-1].startswith(".") or (path.is_dir() and path.suffix != ".zarr"):
            continue
        try:
            if path.suffix == ".zarr":
                store = FlowStore(path)
                for name in store:
                    store.read(name)
            elif path.suffix in READERS:
                READERS[path.suffix](path)
        except Exception as error:  # whatever a reader may say
            wrong.append(f"unreadable: {path.relative_to(work)}: {error!r:.200}")
    return wrong


# What is done


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
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.folder / "before" / case.finds, self.work)

    def undisturbed(self, case: Case) -> None:
        """Run a command twice: what differs between two of them would be no one's fault."""
        for _ in range(2):
            self.fresh(case)
            ended = forked.run(case.words, self.work)
            if ended.code:
                raise SystemExit(f"cellflow {' '.join(case.words)} failed:\n{ended.said}")
            if wrong := differences(self.work, self.expected.get(case.name, files_of(self.work))):
                raise SystemExit(f"{case.name}, undisturbed: {'; '.join(wrong)}")
            self.expected[case.name], self.ended[case.name] = files_of(self.work), ended

    def disturb(self, case: Case, fault: Fault) -> Trial | None:
        """Call a command to which something happens, then again; None where it had ended before."""
        self.fresh(case)
        trial, expected = Trial(case.name, str(fault)), self.expected[case.name]
        ended = forked.run(case.words, self.work, fault)
        if fault.code is None and not ended.killed:
            return None
        if fault.code is not None:
            trial.wrong += self.loudness(ended, expected)
        self.finish(case, trial)
        return trial

    def finish(self, case: Case, trial: Trial) -> None:
        """Look at what is there, call the command again, and look again."""
        trial.wrong += unreadable(self.work)
        again = forked.run(case.words, self.work)
        if again.code and EXISTS not in again.said:
            trial.wrong.append(f"differing: ended with {again.code}: {last_words(again.said)}")
        trial.wrong += differences(self.work, self.expected[case.name])
        if trial.wrong:
            kept = self.folder / "wrong" / str(len(self.trials))
            shutil.copytree(self.work, kept / "work")
            shutil.copy(self.folder / "said.txt", kept)
        self.trials.append(trial)

    def loudness(self, ended: Ended, expected: dict[str, Any]) -> list[str]:
        """What is wrong with how a failure of the disk was told."""
        if "Traceback" in ended.said:
            return [f"silent: a traceback: {last_words(ended.said)}"]
        if ended.code == 0:  # it could do without, and must then be complete or say what lacks
            lacks = differences(self.work, expected)
            told = "could not" in ended.said or "space" in ended.said or "error" in ended.said
            return [f"silent: {line}" for line in lacks if not told]
        said = FAILED.findall(ended.said)
        if not said or "/" not in said[-1]:
            return [f"silent: no file is named: {last_words(ended.said)}"]
        return []


def last_words(text: str) -> str:
    """The end of what a command said, on one line."""
    return " | ".join(text.strip().splitlines()[-3:])[-600:]


def kill_faults(bench: Bench, case: Case, rng: np.random.Generator) -> Iterator[Fault]:
    """Kills at random moments and at random steps, in turn."""
    ended = bench.ended[case.name]
    while True:
        yield Fault(seconds=float(rng.uniform(0, ended.seconds)))
        yield Fault(step=int(rng.integers(1, len(ended.steps) + 1)))


def disk_faults(bench: Bench, case: Case, count: int) -> Iterator[Fault]:
    """Failures of every step, or of so many spread over all."""
    steps = len(bench.ended[case.name].steps)
    for number, at in enumerate(sorted(set(np.linspace(1, steps, min(count, steps)).round().astype(int).tolist()))):
        yield Fault(step=at, code=(errno.ENOSPC, errno.EIO)[number % 2])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--failing", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--commands", nargs="+", default=list(CASES), choices=list(CASES))
    args = parser.parse_args()
    forked.start_server("warm")
    args.folder.mkdir(parents=True)
    cases = [CASES[name] for name in args.commands]
    bench = Bench(args.folder.resolve())
    kill_cases.make_states(bench.folder, [case.finds for case in cases])
    rng = np.random.default_rng(args.seed)
    for case in cases:
        bench.undisturbed(case)
        print(case.name, round(bench.ended[case.name].seconds, 2), len(bench.ended[case.name].steps), flush=True)
        faults = kill_faults(bench, case, rng)
        n = 0
        for fault in faults:
            if n >= args.kills / len(cases): break
            t = bench.disturb(case, fault)
            if t is not None:
                n += 1
                if t.wrong: print("   ", t.fault, t.wrong, flush=True)
        for fault in disk_faults(bench, case, args.failing) if args.failing else ():
            t = bench.disturb(case, fault)
            if t.wrong: print("   ", t.fault, t.wrong, flush=True)


if __name__ == "__main__":
    main()

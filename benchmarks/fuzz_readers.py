"""Every reader of files against damaged copies of a valid one: what is neither read nor refused in our words?

    python benchmarks/fuzz_readers.py [--seconds 20] [--cases 100000] [--jobs 2] [--seed 1] [--readers PNG TIFF]
    python benchmarks/fuzz_readers.py --readers "COCO results" --seed 1 --only 1234
    python benchmarks/fuzz_readers.py --readers GeoJSON --atheris

The readers and their files are those of ``tests/storage/readers.py``, the damages those of ``tests/storage/fuzz.py``;
the first case is the file with a tail of zeros of 3 GB. Processes read them, many cases each; one that crashes, or
reads for more than 5 seconds of its own time, or 30 on the clock, is ended and replaced. Wrong is an error that is
not one of cellflow's or does not name the file, a crash, a case of more than 5 seconds, and more than 1 GB of memory
on top of what the process held before. ``--only`` repeats one case; the
damaged file stays. ``--atheris`` (``pip install atheris``) lets libFuzzer choose the bytes of one reader, by the lines
of Python that they reach.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "storage"), str(TESTS / "io")]

SECONDS, CLOCK, MEGABYTES = 5.0, 30.0, 1000.0
ROOM = 6 * 2**30
"""Bytes of addresses that a process gets beyond those it starts with: what claims more fails at once."""
TAIL = 3 * 10**9
WATCHED = ("cellflow.io", "cellflow.storage")
"""Whose lines guide atheris."""
START = 60.0
"""Seconds in which a process starts."""


@dataclass
class Tally:
    """What became of the cases of one reader."""

    name: str
    cases: int = 0
    refused: int = 0
    read: int = 0
    slowest: float = 0.0
    memory: float = 0.0
    findings: list[str] = field(default_factory=list)

    def row(self) -> str:
        """As a row of the table."""
        numbers = f"{self.cases:,} | {self.refused:,} | {self.read:,} | {self.slowest:.2f} | {self.memory:.0f}"
        return f"| {self.name} | {numbers} | {len(self.findings)} |"


def memory(name: str) -> float:
    """A figure of this process in MB, by its name in ``/proc/self/status``."""
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1024


def peak_from_here() -> None:
    """Let the peak of the memory be that from now on."""
    Path("/proc/self/clear_refs").write_text("5")


class Cases:
    """The damaged copies of what one reader reads."""

    def __init__(self, name: str, seed: int, folder: Path) -> None:
        from readers import READERS

        self.reader = READERS[name]
        self.seed, self.place = [seed, zlib.crc32(name.encode())], self.reader.make(folder)
        self.files = {path: path.read_bytes() for path in self.reader.files(self.place)}

    @contextlib.contextmanager
    def laid(self, number: int) -> Iterator[Path]:
        """Lay a case in its place; the file that is damaged."""
        import numpy as np
        from fuzz import damage

        rng = np.random.default_rng([*self.seed, number])
        path = list(self.files)[int(rng.integers(len(self.files)))]
        if number:
            path.write_bytes(damage(self.files[path], rng))
        else:
            os.truncate(path, TAIL)
        yield path
        path.write_bytes(self.files[path])


def work(name: str, seed: int, first: int, to: Connection, folder: Path) -> None:
    """Read case after case, until the process is ended."""
    from readers import WrongError, check

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)  # what libraries in C say
    os.dup2(null, 1)
    logging.disable()
    warnings.simplefilter("ignore")
    cases = Cases(name, seed, folder)
    if not check(cases.reader, cases.place):
        raise SystemExit(f"{name}: the valid file is not read")
    room = int(memory("VmSize") * 2**20) + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    to.send(None)
    for number in range(first, 2**40):
        with cases.laid(number):
            peak_from_here()
            before, started, wrong, whole = memory("VmRSS"), time.process_time(), "", False
            try:
                whole = check(cases.reader, cases.place)
            except WrongError as error:
                wrong = str(error)
            to.send((number, whole, time.process_time() - started, memory("VmHWM") - before, wrong))


def scratch() -> str | None:
    """A folder in memory where there is one: cases are written and read by the thousand."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def fuzz(name: str, options: argparse.Namespace) -> Tally:
    """Run the cases of one reader until its time or their number is over."""
    tally, spent, following = Tally(name), 0.0, 0
    context = multiprocessing.get_context("forkserver")
    while spent < options.seconds and tally.cases < options.cases:
        receiver, sender = context.Pipe(duplex=False)
        folder = Path(tempfile.mkdtemp(prefix="cellflow-fuzz-", dir=scratch()))
        process = context.Process(target=work, args=(name, options.seed, following, sender, folder))
        process.start()
        sender.close()
        try:
            if not receiver.poll(START):
                raise SystemExit(f"{name}: no process starts")
            receiver.recv()
        except EOFError:
            process.join()
            raise SystemExit(f"{name}: a process ended with {process.exitcode}") from None
        started = time.monotonic()
        following = _watch(
            tally, receiver, process, following, started + options.seconds - spent, options
        )
        spent += time.monotonic() - started
        process.kill()
        process.join()
        shutil.rmtree(folder)
    return tally


def _watch(
    tally: Tally,
    receiver: Connection,
    process: Any,
    following: int,
    until: float,
    options: argparse.Namespace,
) -> int:
    """Take the results of a process until it ends, hangs, or the time is over; the case to go on with."""
    repeat = f"--readers {tally.name!r} --seed {options.seed} --only"
    while time.monotonic() < until and tally.cases < options.cases:
        try:
            answered = _answered(receiver, process.pid)
            result = receiver.recv() if answered else None
        except EOFError:
            process.join()
            result, answered = None, True
        tally.cases += 1
        if result is None:
            how = f"ended with {process.exitcode}" if answered else f"took over {SECONDS:g} s"
            tally.findings.append(f"{how}; {repeat} {following}")
            tally.slowest = max(tally.slowest, 0.0 if answered else SECONDS)
            return following + 1
        number, whole, seconds, peak, wrong = result
        tally.read, tally.refused = tally.read + whole, tally.refused + (not whole and not wrong)
        tally.slowest, tally.memory = max(tally.slowest, seconds), max(tally.memory, peak)
        if peak > MEGABYTES:
            wrong = wrong or f"{peak:.0f} MB"
        if seconds > SECONDS:
            wrong = wrong or f"{seconds:.1f} s"
        if wrong:
            tally.findings.append(f"{wrong}; {repeat} {number}")
        following = number + 1
    return following


def _answered(receiver: Connection, pid: int) -> bool:
    """Whether a process answers before its time is over."""
    until = time.monotonic() + CLOCK
    try:
        busy = psutil.Process(pid).cpu_times()
        limit = busy.user + busy.system + SECONDS
        while not receiver.poll(1.0):
            busy = psutil.Process(pid).cpu_times()
            if busy.user + busy.system > limit or time.monotonic() > until:
                return False
    except psutil.NoSuchProcess:  # its end is read from the pipe
        pass
    return True


def repeat(name: str, seed: int, number: int) -> None:
    """Read one case in this process, with the whole of the error."""
    from readers import check

    cases = Cases(name, seed, Path(tempfile.mkdtemp(prefix="cellflow-case-")))
    with cases.laid(number) as path:
        kept = path.with_name(f"case-{number}-{path.name}")
        kept.write_bytes(path.read_bytes()[: 2**24])
        print(f"{kept}: {kept.stat().st_size:,} bytes: {kept.read_bytes()[:300]!r}")
        print("read" if check(cases.reader, cases.place) else "refused")


def guided(name: str, seconds: float) -> None:
    """Let libFuzzer choose the bytes of the first file of a reader; it ends where something is wrong."""
    import atheris

    root = Path(__file__).resolve().parents[1]
    paths = [path.relative_to(root).with_suffix("") for path in root.glob("cellflow/**/*.py")]
    modules = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    others = [item for item in modules if not item.startswith(WATCHED)]  # numba takes no counters
    packages = ["cellflow", "json", "csv", "pickletools", "roifile", "zipfile", "yaml"]
    with atheris.instrument_imports(include=packages, exclude=others):
        from readers import READERS, check

    logging.disable()
    reader, folder = (
        READERS[name],
        Path(tempfile.mkdtemp(prefix="cellflow-atheris-", dir=scratch())),
    )
    place = reader.make(folder)
    path = reader.files(place)[0]
    corpus = Path(tempfile.mkdtemp(prefix="cellflow-corpus-", dir=scratch()))
    (corpus / "valid").write_bytes(path.read_bytes())

    def one(data: bytes) -> None:
        path.write_bytes(data)
        check(reader, place)

    flags = [
        f"-max_total_time={seconds:g}",
        "-timeout=5",
        "-rss_limit_mb=2000",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *flags, "-max_len=20000", str(corpus)], one)
    atheris.Fuzz()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="for each reader")
    parser.add_argument("--cases", type=int, default=100_000, help="at most, for each reader")
    parser.add_argument("--jobs", type=int, default=2, help="readers at a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="repeat this case")
    parser.add_argument(
        "--atheris", action="store_true", help="guided by the lines that are reached"
    )
    parser.add_argument("--readers", nargs="*", help="those whose names begin so; all without it")
    options = parser.parse_args(argv)
    if options.atheris:  # which sees what is imported from here on
        guided(options.readers[0], options.seconds)
        return 0
    from readers import READERS

    wanted = tuple(options.readers or [""])
    names = [name for name in READERS if name.startswith(wanted)]
    if options.only is not None:
        repeat(names[0], options.seed, options.only)
        return 0
    multiprocessing.set_forkserver_preload(["readers", "fuzz"])  # which take seconds to import
    tallies = []
    print("| reader | cases | refused | read | slowest, s | memory, MB | findings |")
    print("|---|---|---|---|---|---|---|")
    with ThreadPoolExecutor(options.jobs) as pool:
        for tally in pool.map(lambda name: fuzz(name, options), names):
            tallies.append(tally)
            print(tally.row(), flush=True)
    total = sum(tally.cases for tally in tallies)
    print(f"\n{total:,} cases of {len(tallies)} readers, seed {options.seed}")
    for tally in tallies:
        for text in tally.findings[:20]:
            print(f"- {text}")
    return int(any(tally.findings for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())

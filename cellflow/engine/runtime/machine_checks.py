"""What cellflow finds on this machine, and what to type where something is missing."""

from __future__ import annotations

import importlib.metadata
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from cellflow.config.checks import check_config
from cellflow.config.host import ChecksConfig
from cellflow.environment import amp_type, detect_host, host_defaults, take_snapshot
from cellflow.environment.snapshot import Snapshot

__all__ = ["OPTIONAL_PARTS", "Check", "Checks", "OptionalPart", "check_snapshot", "run_checks"]

NEWEST_PYTHON = (3, 13)
"""The newest Python that the tests pass with."""
LITTLE_MEMORY = 4 * 2**30
LITTLE_DISK = 5 * 2**30
GIB = 2**30

_CUDA_TORCH = "install a build of torch for CUDA, see https://pytorch.org/get-started/locally"

Verdict = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class OptionalPart:
    """A part that is installed on demand: its packages, its extra, and what it is for."""

    extra: str
    packages: tuple[str, ...]
    purpose: str

    @property
    def command(self) -> str:
        """What installs it."""
        return f"pip install 'cellflow[{self.extra}]'"


OPTIONAL_PARTS = (
    OptionalPart("sheet", ("gspread",), "--sheet"),
    OptionalPart("kaggle", ("kaggle", "six"), "cellflow publish"),
    OptionalPart("onnx", ("onnx",), "cellflow export --to onnx"),
    OptionalPart("bioimageio", ("bioimageio.core",), "cellflow export --to bioimageio"),
    OptionalPart("napari", ("napari",), "the plugin for napari"),
    OptionalPart("dask", ("distributed",), "--scheduler local:N or tcp://HOST:PORT"),
    OptionalPart("slurm", ("dask-jobqueue",), "--scheduler slurm:N"),
    OptionalPart("slides", ("openslide-python",), "SVS, NDPI and other slides"),
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    what, found : str
        Its name, and what there is.
    verdict : str
        ok, note (works, but could be better) or problem (something will fail).
    advice : str
        What to type or to do; empty where nothing is to be done.
    """

    what: str
    found: str
    verdict: Verdict = "ok"
    advice: str = ""


def _check(what: str, found: str, bad: object, advice: str, verdict: Verdict = "note") -> Check:
    """A check with verdict and advice where something is bad."""
    return Check(what, found, verdict, advice) if bad else Check(what, found)


@dataclass(frozen=True)
class Checks:
    """All checks, in the order in which people read them."""

    rows: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing will fail."""
        return all(row.verdict != "problem" for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"ok": self.ok, "checks": [asdict(row) for row in self.rows]}


def run_checks(config: ChecksConfig) -> Checks:
    """Look at this machine; changes nothing on it.

    Examples
    --------
    >>> from cellflow import ChecksConfig, run_checks
    >>> [check.what for check in run_checks(ChecksConfig()).rows][:3]
    ['cellflow', 'python', 'packages']
    """
    check_config(config)
    return check_snapshot(take_snapshot())


def check_snapshot(snapshot: Snapshot) -> Checks:
    """Checks of a snapshot of this machine, and of what no snapshot holds: threads, folders, packages."""
    return Checks(
        (
            *_software(snapshot),
            *_hardware(snapshot),
            _threads(snapshot),
            *_folders(snapshot),
            _kernel_cache(),
            *(_optional(part) for part in OPTIONAL_PARTS),
        )
    )


def _software(snapshot: Snapshot) -> Iterator[Check]:
    versions = snapshot.versions
    own = versions.get("cellflow", "not installed")
    if snapshot.commit:
        own += f", commit {snapshot.commit[:12]}" + (" with changes" if snapshot.dirty else "")
    yield Check("cellflow", own)
    yield _python(snapshot)
    shown = [name for name in ("torch", "numpy", "numba", "pandas", "openvino") if name in versions]
    unmet = list(_unmet_requirements())
    found = "; ".join(unmet) or ", ".join(f"{name} {versions[name]}" for name in shown)
    yield _check("packages", found, unmet, "pip install --upgrade cellflow", "problem")
    host = detect_host(snapshot)
    yield Check("host", f"{host.name}: {host.reason}")


def _python(snapshot: Snapshot) -> Check:
    found = f"{snapshot.python} on {snapshot.platform}"
    newest = ".".join(map(str, NEWEST_PYTHON))
    if tuple(map(int, snapshot.python.split(".")[:2])) > NEWEST_PYTHON:
        advice = f"where something fails, try Python {newest}"
        return Check("python", f"{found}; tested up to {newest}", "note", advice)
    return Check("python", found)


def _unmet_requirements() -> Iterator[str]:
    """Requirements of cellflow that are missing or of a version that does not fit."""
    for text in importlib.metadata.requires("cellflow") or []:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        found = _version(needed.name)
        if found is None:
            yield f"{needed.name} is missing"
        elif not needed.specifier.contains(found, prereleases=True):
            yield f"{needed.name}{needed.specifier} is needed, found {found}"


def _hardware(snapshot: Snapshot) -> Iterator[Check]:
    yield _device(snapshot)
    amp = amp_type(snapshot)
    yield Check("mixed precision", f"{amp.type}: {amp.reason}")
    yield _engine(snapshot)
    cores = f"{snapshot.usable_cores} of {snapshot.cpu_count}, {snapshot.cpu}"
    yield Check("cores", cores)
    memory = snapshot.usable_memory
    if memory is None:
        yield Check("memory", "unknown")
        return
    total = f" of {snapshot.memory / GIB:.1f} GiB" if snapshot.memory else ""
    advice = "train with --batch_size 2 --workers 0"
    yield _check("memory", f"{memory / GIB:.1f} GiB{total}", memory < LITTLE_MEMORY, advice)


def _device(snapshot: Snapshot) -> Check:
    if snapshot.gpus:
        names = [
            gpu.name + (f" ({gpu.memory / GIB:.0f} GiB)" if gpu.memory else "")
            for gpu in snapshot.gpus
        ]
        return Check("device", "cuda: " + ", ".join(names))
    if not snapshot.driver_gpus:
        return Check("device", "mps: Apple's GPU" if snapshot.mps else "cpu: no GPU found")
    there = ", ".join(snapshot.driver_gpus)
    if "CUDA_VISIBLE_DEVICES" in snapshot.variables:
        hidden = snapshot.variables["CUDA_VISIBLE_DEVICES"]
        found = f"cpu: CUDA_VISIBLE_DEVICES={hidden!r} hides {there}"
        return Check("device", found, "note", "unset CUDA_VISIBLE_DEVICES")
    if "cuda" not in snapshot.versions:
        found = f"cpu: torch is built without CUDA and cannot use {there}"
        return Check("device", found, "problem", _CUDA_TORCH)
    found = f"cpu: torch (CUDA {snapshot.versions['cuda']}) cannot use {there}"
    return Check("device", found, "problem", "nvidia-smi shows whether the driver is old or broken")


def _engine(snapshot: Snapshot) -> Check:
    """What runs networks for predictions, and whether it makes use of the processor."""
    import torch

    from cellflow.nn.runners import choose_engine

    on_gpu = bool(snapshot.gpus) or snapshot.mps
    engine = choose_engine("auto", torch.device("cuda" if on_gpu else "cpu"))
    if engine != "torch":
        return Check("engine", f"{engine} for predictions, torch for training")
    if not on_gpu and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        found = "torch, which makes no use of this processor's vector instructions"
        return Check("engine", found, "note", "install another build of torch, or run elsewhere")
    return Check("engine", "torch")


def _threads(snapshot: Snapshot) -> Check:
    import torch

    from cellflow.config import RuntimeConfig
    from cellflow.engine.runtime.machine import choose_machine
    from cellflow.numeric._jit import thread_count

    cores = snapshot.usable_cores
    workers = host_defaults(detect_host(snapshot), snapshot).workers
    if workers is None:
        workers = choose_machine(RuntimeConfig()).workers
    torchs, kernels = torch.get_num_threads(), thread_count()
    found = f"torch {torchs}, kernels {kernels}, {workers} workers for crops"
    advice = f"export OMP_NUM_THREADS={cores} CELLFLOW_THREADS={cores}"
    return _check("threads", found, max(torchs, kernels) > cores, advice)


def _folders(snapshot: Snapshot) -> Iterator[Check]:
    """Where data and results go unless flags or a config file say otherwise."""
    defaults = host_defaults(detect_host(snapshot), snapshot)
    here = Path(snapshot.folder)
    data = here / defaults.data
    if str(data) in snapshot.datasets:
        yield Check("dataset", str(data))
    else:
        place = str(defaults.data_out)
        out = "" if place == "cellflow-data" else f" --out {shlex.quote(place)}"
        yield Check("dataset", f"{data}, not there yet", advice=f"cellflow prepare SOURCE{out}")
    for what in ("runs", "predictions", "ensembles"):
        yield _writable(what, here / getattr(defaults, f"{what}_dir"))
    yield _disk(here / defaults.runs_dir)
    for note in defaults.notes:
        yield Check("note", note, "note")


def _writable(what: str, folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return Check(what, str(folder))
    except OSError as error:
        found = f"{folder} cannot be written ({error.strerror})"
        return Check(what, found, "problem", f"choose another folder with --{what}_dir")


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(_existing(folder)).free
    found = f"{free / GIB:.1f} GiB for {folder}"
    advice = "free some space, or choose another disk with --runs_dir"
    return _check("free disk", found, free < LITTLE_DISK, advice)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _kernel_cache() -> Check:
    """Where compiled kernels are kept, asked of one of them: numba looks for a folder when it is made."""
    from cellflow.numeric import _diffusion

    folder = _diffusion._center.stats.cache_path  # type: ignore[attr-defined]
    if folder:
        return Check("kernel cache", str(folder))
    found = "no folder can be written: every process compiles for itself, for seconds"
    return Check("kernel cache", found, "note", "export NUMBA_CACHE_DIR=FOLDER")


def _optional(part: OptionalPart) -> Check:
    found = {name: _version(name) for name in part.packages}
    if None in found.values():
        return Check(part.extra, f"not installed, needed for {part.purpose}", advice=part.command)
    return Check(part.extra, f"{found[part.packages[0]]}, for {part.purpose}")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

"""Look at the machine: the only part that is not a pure function."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from cellflow.environment.places import DATA, INPUT, LASTING, PATHS, VARIABLES
from cellflow.environment.snapshot import Gpu, Snapshot
from cellflow.storage.records import read_json

__all__ = ["cgroup_limits", "prepared_datasets", "take_snapshot"]

_DATA_FORMAT = "cellflow-dataset"
_PACKAGES = (
    "cellflow", "cellpose", "imagecodecs", "llvmlite", "numba", "numpy", "opencv-python-headless",
    "openvino", "pandas", "scikit-image", "scikit-learn", "scipy", "tifffile", "torch", "zarr",
)  # fmt: skip
_CPU_FLAGS = ("amx_bf16", "amx_tile", "avx2", "avx512_bf16", "avx512f", "bf16")
_SEARCH_DEPTH = 5  # /kaggle/input/datasets/OWNER/NAME, and a folder or two inside
_SEARCH_ENTRIES = 500


def take_snapshot(folder: Path = Path(), *, quick: bool = False) -> Snapshot:
    """Look at the machine.

    Parameters
    ----------
    folder : Path
        Working folder.
    quick : bool
        Leave out what takes time: torch, versions and git. GPUs are then counted, not described. Enough
        for `detect_host` and `host_defaults`.
    """
    here = folder.resolve()
    paths = tuple(path for path in PATHS if os.path.isdir(path))  # noqa: PTH112 - never raises
    cgroup_cpus, cgroup_memory = cgroup_limits()
    cpu, flags = _processor()
    driver_gpus = _driver_gpus()
    gpus, mps, extra = _quick_gpus(driver_gpus) if quick else _torch_gpus()
    commit, dirty = (None, False) if quick else _git_state(Path(__file__).resolve().parents[2])
    return Snapshot(
        folder=str(here),
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
        paths=paths,
        datasets=tuple(sorted(set(_datasets(here, paths)))),
        free_disk=_free_disk(here, paths),
        cpu_count=os.cpu_count() or 1,
        affinity=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        cgroup_cpus=cgroup_cpus,
        memory=_memory(),
        cgroup_memory=cgroup_memory,
        cpu=cpu,
        cpu_flags=flags,
        gpus=gpus,
        driver_gpus=driver_gpus,
        mps=mps,
        platform=platform.platform(),
        python=platform.python_version(),
        versions={} if quick else _versions() | extra,
        commit=commit,
        dirty=dirty,
        hostname=platform.node(),
    )


def cgroup_limits(root: Path = Path("/")) -> tuple[float | None, int | None]:
    """Cores and bytes that the container of this process may use, cgroup version 1 or 2; None: no limit.

    A limit of any group above counts too. Inside a container the path of the group may not exist; its
    limits are then those at the mount itself.
    """
    cpus: list[float] = []
    memory: list[int] = []
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        controllers, _, group = line.partition(":")[2].partition(":")
        if controllers == "":
            for level in _levels(mount, group):
                quota, _, period = _read(level / "cpu.max").partition(" ")
                cpus += _ratio(quota, period)
                memory += _whole(_read(level / "memory.max"))
        if "cpu" in controllers.split(","):
            for level in _levels(mount / controllers, group, mount / "cpu"):
                quota = _read(level / "cpu.cfs_quota_us")
                cpus += _ratio(quota, _read(level / "cpu.cfs_period_us"))
        if "memory" in controllers.split(","):
            for level in _levels(mount / "memory", group):
                memory += _whole(_read(level / "memory.limit_in_bytes"))
    real = [limit for limit in memory if limit < 2**60]  # version 1 writes a huge number for "none"
    return min(cpus, default=None), min(real, default=None)


def _datasets(here: Path, paths: tuple[str, ...]) -> Iterator[str]:
    """Prepared datasets: the working folder's own, a lasting one, and what is attached on Kaggle."""
    bases = [base for pairs in LASTING.values() for root, base in pairs if root in paths]
    for path in (here / DATA, *(Path(base) / DATA for base in bases)):
        if _is_dataset(path):
            yield str(path)
    if INPUT in paths:
        yield from prepared_datasets(Path(INPUT))


def prepared_datasets(folder: Path, *, depth: int = _SEARCH_DEPTH) -> Iterator[str]:
    """Datasets that `cellflow prepare` made, up to `depth` folders down; long folders are not read to their end."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in islice(entries, _SEARCH_ENTRIES):
            if not entry.is_dir():
                continue
            if _is_dataset(Path(entry.path)):
                yield entry.path
            elif depth > 1:
                yield from prepared_datasets(Path(entry.path), depth=depth - 1)


def _is_dataset(path: Path) -> bool:
    """Whether `cellflow prepare` made a folder; other tools write a dataset.json too."""
    return (read_json(path / "dataset.json") or {}).get("format") == _DATA_FORMAT


def _free_disk(here: Path, paths: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for path in (str(here), *paths):
        with suppress(OSError):
            found[path] = shutil.disk_usage(path).free
    return found


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None  # Windows


def _processor() -> tuple[str, tuple[str, ...]]:
    """Model of the processor, and those of its flags that decide about speed and precision."""
    lines: dict[str, str] = {}
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        key, _, value = line.partition(":")
        lines.setdefault(key.strip().lower(), value.strip())
    flags = set((lines.get("flags") or lines.get("features") or "").split())
    name = lines.get("model name") or platform.processor() or platform.machine()
    if sys.platform == "darwin":
        name = _output("sysctl", "-n", "machdep.cpu.brand_string") or name
    return name, tuple(flag for flag in _CPU_FLAGS if flag in flags)


def _driver_gpus() -> tuple[str, ...]:
    """Names of NVIDIA GPUs, from the driver's own files: costs nothing."""
    names = []
    with suppress(OSError):
        for gpu in sorted(Path("/proc/driver/nvidia/gpus").iterdir()):
            models = [line for line in _read(gpu / "information").splitlines() if "Model:" in line]
            names.append(models[0].partition(":")[2].strip() if models else "NVIDIA GPU")
    return tuple(names)


def _quick_gpus(names: tuple[str, ...]) -> tuple[tuple[Gpu, ...], bool, dict[str, str]]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = [item for item in visible.split(",") if item.strip() not in ("", "-1")]
        names = names[: len(named)]
    return tuple(Gpu(name) for name in names), False, {}


def _torch_gpus() -> tuple[tuple[Gpu, ...], bool, dict[str, str]]:
    """GPUs as torch sees them, whether Apple's is there, and versions of CUDA and cuDNN."""
    try:
        import torch
    except (ImportError, OSError):
        return (), False, {}
    extra = {"cuda": torch.version.cuda or ""}
    gpus = []
    if torch.cuda.is_available():
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        extra["cudnn"] = str(cudnn or "")
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            gpus.append(Gpu(facts.name, facts.total_memory, (facts.major, facts.minor)))
    known = {key: value for key, value in extra.items() if value}
    return tuple(gpus), torch.backends.mps.is_available(), known


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _git_state(checkout: Path) -> tuple[str | None, bool]:
    """Commit of cellflow's own checkout, and whether tracked files differ from it."""
    if not (checkout / ".git").exists():
        return None, False
    commit = _output("git", "-C", str(checkout), "rev-parse", "HEAD")
    if not commit:
        return None, False
    status = ("status", "--porcelain", "--untracked-files=no")
    return commit, bool(_output("git", "-C", str(checkout), *status))


def _output(*command: str) -> str:
    """What a program prints; nothing where it is missing, fails or hangs."""
    settings = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, env=settings, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _levels(mount: Path, group: str, other: Path | None = None) -> Iterator[Path]:
    """Folders of a control group and of all groups above it, up to the mount."""
    start = mount if mount.exists() or other is None else other
    parts = [part for part in group.split("/") if part not in ("", "..")]
    for count in range(len(parts), -1, -1):
        yield start.joinpath(*parts[:count])


def _ratio(quota: str, period: str) -> list[float]:
    return [int(quota) / int(period)] if quota.isdecimal() and period.isdecimal() else []


def _whole(text: str) -> list[int]:
    return [int(text)] if text.isdecimal() else []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

"""From a snapshot to a host, its defaults and its record. Pure functions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from cellflow.amp import AmpType, auto_amp
from cellflow.environment.places import DATA, DRIVES, INPUT, LASTING, HostName
from cellflow.environment.snapshot import Snapshot
from cellflow.errors import ConfigError

__all__ = ["Host", "HostDefaults", "amp_type", "detect_host", "environment_record", "host_defaults"]

_NODE_LOCAL = ("/tmp", "/var/tmp", "/dev/shm")
_MAX_WORKERS = 8


@dataclass(frozen=True)
class Host:
    """The kind of place a machine is, and what it was told by."""

    name: HostName
    reason: str


@dataclass(frozen=True)
class HostDefaults:
    """Defaults on a host; flags and config files go before.

    Attributes
    ----------
    data : Path
        Dataset folder to read.
    data_out : Path
        Dataset folder that `prepare` writes.
    runs_dir, predictions_dir, ensembles_dir : Path
        Folders for results. Relative ones lie in the working folder.
    workers : int or None
        Processes that prepare crops; None leaves it to the device.
    notes : tuple of str
        What a person should know about these.
    """

    data: Path
    data_out: Path
    runs_dir: Path
    predictions_dir: Path
    ensembles_dir: Path
    workers: int | None = None
    notes: tuple[str, ...] = ()


def detect_host(snapshot: Snapshot) -> Host:
    """The host that a snapshot was taken on; the most specific one wins.

    Raises
    ------
    ConfigError
        If ``CELLFLOW_HOST`` is none of the hosts.
    """
    found = snapshot.variables
    if chosen := found.get("CELLFLOW_HOST", "").strip().lower():
        for name in get_args(HostName):
            if name == chosen:
                return Host(name, f"CELLFLOW_HOST is {chosen}")
        known = ", ".join(get_args(HostName))
        raise ConfigError(f"CELLFLOW_HOST: expected one of {known}; found {chosen!r}")
    if "SLURM_JOB_ID" in found:
        return Host("slurm", f"SLURM_JOB_ID is {found['SLURM_JOB_ID']}")
    if "KAGGLE_KERNEL_RUN_TYPE" in found:
        return Host("kaggle", f"KAGGLE_KERNEL_RUN_TYPE is {found['KAGGLE_KERNEL_RUN_TYPE']}")
    for variable in ("PAPERSPACE_NOTEBOOK_REPO_ID", "PAPERSPACE_FQDN"):
        if variable in found:
            return Host("paperspace", f"{variable} is set")
    image = "COLAB_RELEASE_TAG" in found
    if image and ("COLAB_BACKEND_VERSION" in found or "COLAB_JUPYTER_IP" in found):
        return Host("colab", f"COLAB_RELEASE_TAG is {found['COLAB_RELEASE_TAG']}")
    if "/home/jl_fs" in snapshot.paths:
        return Host("jarvislabs", "/home/jl_fs is there")
    if image:
        return Host("plain", "Colab's or Kaggle's image (COLAB_RELEASE_TAG), outside of both")
    return Host("plain", "no sign of Colab, Kaggle, Paperspace, JarvisLabs or Slurm")


def host_defaults(host: Host, snapshot: Snapshot) -> HostDefaults:
    """Folders and workers for a host: what lasts is chosen for results, what is granted for workers.

    Where the working folder itself lasts, results lie in it, as on any machine.
    """
    base, notes = _results_base(host, snapshot)
    own = base / DATA
    data, here = own, Path(snapshot.folder)
    if str(here / own) not in snapshot.datasets:
        attached = [path for path in snapshot.datasets if _inside(path, INPUT)]
        if str(here / DATA) in snapshot.datasets:  # prepared before, or copied to the fast disk
            data = Path(DATA)
        elif len(attached) == 1:
            data = Path(attached[0])
        elif attached:
            text = f"{len(attached)} prepared datasets under {INPUT}; choose one with --data: "
            notes.append(text + ", ".join(attached))
    return HostDefaults(
        data=data,
        data_out=own,
        runs_dir=base / "runs",
        predictions_dir=base / "predictions",
        ensembles_dir=base / "ensembles",
        workers=_workers(host, snapshot),
        notes=tuple(notes),
    )


def amp_type(snapshot: Snapshot) -> AmpType:
    """What ``--device auto --amp auto`` comes to."""
    if snapshot.gpus:
        return auto_amp("cuda", capability=snapshot.gpus[0].capability)
    return auto_amp("mps" if snapshot.mps else "cpu", cpu_flags=snapshot.cpu_flags)


def environment_record(
    snapshot: Snapshot, host: Host, *, label: str | None = None
) -> dict[str, Any]:
    """Content of environment.json: JSON types, always the same keys, no secrets.

    `label` is what people call the machine (``--environment``); without it the host's name.
    """
    plain = snapshot.to_dict()
    same = (
        "folder", "commit", "dirty", "hostname", "platform", "python", "versions", "gpus", "free_disk", "variables",
        "cpu", "cpu_flags",
    )  # fmt: skip
    return {
        "schema": "cellflow-environment",
        "version": 1,
        "environment": label or host.name,
        "host": asdict(host),
        **{key: plain[key] for key in same},
        "cores": snapshot.cpu_count,
        "usable_cores": snapshot.usable_cores,
        "memory": snapshot.memory,
        "usable_memory": snapshot.usable_memory,
        "amp": asdict(amp_type(snapshot)),
    }


def _inside(path: str | Path, root: str) -> bool:
    return Path(path).is_relative_to(root)


def _results_base(host: Host, snapshot: Snapshot) -> tuple[Path, list[str]]:
    """Folder for results, and what to know about it; the working folder is ``.``."""
    if host.name == "slurm":
        return _slurm_base(snapshot)
    there = [pair for pair in LASTING.get(host.name, ()) if pair[0] in snapshot.paths]
    if not there:
        return Path(), []
    root, base = there[0]
    notes = []
    if host.name == "colab" and root not in DRIVES:
        notes.append(
            "Google Drive is not mounted, and everything else goes with the machine. In a cell: "
            "from google.colab import drive; drive.mount('/content/drive')"
        )
    return (Path() if _inside(snapshot.folder, root) else Path(base)), notes


def _slurm_base(snapshot: Snapshot) -> tuple[Path, list[str]]:
    """The working folder, unless it lies on a disk of the node, which is wiped after the job."""
    found = snapshot.variables
    local = [found[name] for name in ("SLURM_TMPDIR", "TMPDIR") if found.get(name)]

    def lasts(path: str) -> bool:
        return bool(path) and not any(_inside(path, root) for root in (*local, *_NODE_LOCAL))

    submitted, scratch = found.get("SLURM_SUBMIT_DIR", ""), found.get("SCRATCH", "")
    if lasts(snapshot.folder):
        return Path(), []
    if lasts(submitted):
        return Path(submitted), []
    if lasts(scratch):
        return Path(scratch) / "cellflow", []
    return Path(), [
        f"{snapshot.folder} lies on a disk of the node, which is wiped after the job; give a lasting "
        "--runs_dir"
    ]


def _workers(host: Host, snapshot: Snapshot) -> int | None:
    """Cores for each GPU, at most 8; None where training is on the CPU, or the machine is one's own."""
    if host.name == "plain" or not snapshot.gpus:
        return None
    return max(1, min(_MAX_WORKERS, snapshot.usable_cores // len(snapshot.gpus)))

"""Python wheels of cellflow and all it needs, so that a notebook without internet can install it."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from cellflow.engine.publishing.rebuilt_wheels import installed, make_own_wheel, make_wheel
from cellflow.errors import RunError

__all__ = ["collect_wheels"]

_log = logging.getLogger(__name__)

_ON_KAGGLE = frozenset({"torch"})
"""What Kaggle has, in a build for its own GPUs; with what only it needs."""
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


@dataclass(frozen=True)
class _Target:
    """A Python on Linux, as Kaggle's notebooks have it."""

    python: str

    def is_here(self) -> bool:
        """Whether what is installed here runs there."""
        linux = sys.platform == "linux" and platform.machine() == "x86_64"
        return linux and self.python == _this_python()

    def environment(self) -> dict[str, str]:
        """What markers of requirements ask for."""
        return {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": "x86_64",
            "os_name": "posix",
        }


def collect_wheels(
    folder: Path,
    *,
    which: Literal["missing", "all"] = "all",
    python: str | None = None,
    cache: Path | None = None,
) -> list[Path]:
    """Put into a folder all that ``pip install --no-index --find-links FOLDER cellflow`` takes.

    The versions are those installed here, which are known to work. pip downloads them from its index;
    where it cannot, they are made again from the installed files.

    Parameters
    ----------
    folder : Path
        Where the wheels go, as links into the cache where the disk allows it.
    which : {"missing", "all"}
        ``missing`` leaves out torch and what only torch needs: Kaggle has them, and with CUDA they
        are gigabytes.
    python : str or None
        Python version of the target, such as 3.12; by default this one. The target is Linux on x86-64.
    cache : Path or None
        Folder that keeps wheels for the next time; by default ``cellflow/wheels`` in the user's
        cache folder.

    Returns
    -------
    list of Path
        The wheels, sorted by name.

    Raises
    ------
    RunError
        If pip finds no wheel of a package, and none can be made of what is installed.
    """
    target = _Target(python or _this_python())
    cache = (cache or _user_cache()) / f"linux-{target.python}"
    folder.mkdir(parents=True, exist_ok=True)
    own = make_own_wheel(folder)
    needed = _needed(target, _ON_KAGGLE if which == "missing" else frozenset())
    kept = _kept(cache)
    lacking = [package for package in needed if _key(package) not in kept]
    if lacking:
        _fill(cache, lacking, target)
        kept = _kept(cache)
    return sorted([own, *(_place(kept[_key(package)], folder) for package in needed)])


def _this_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cellflow" / "wheels"


def _needed(target: _Target, without: Collection[str]) -> list[Distribution]:
    """Installed packages that cellflow needs on the target, itself left out."""
    found: dict[str, Distribution] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    waiting = list(_requirements("cellflow", target, frozenset({""})))
    while waiting:
        name, extras = waiting.pop()
        if name not in without and (name, extras) not in done:
            done.add((name, extras))
            found[name] = _installed(name)
            waiting += _requirements(name, target, extras)
    return [found[name] for name in sorted(found)]


def _requirements(
    name: str, target: _Target, extras: frozenset[str]
) -> Iterable[tuple[str, frozenset[str]]]:
    """Names that a package requires on the target, with the extras that it asks of them."""
    environment = target.environment()
    for line in _installed(name).requires or []:
        asked = Requirement(line)
        marker = asked.marker
        if marker is None or any(marker.evaluate({**environment, "extra": e}) for e in extras):
            yield canonicalize_name(asked.name), frozenset({"", *asked.extras})


def _installed(name: str) -> Distribution:
    try:
        return installed(name)
    except PackageNotFoundError:
        raise RunError(
            f"The package {name}, which cellflow needs on Linux, is not installed here, so the version that "
            f"fits is not known. Install it with: {sys.executable} -m pip install {name}"
        ) from None


def _public(version: str) -> str:
    """A version without its local part: 2.13.0+cpu is asked for as 2.13.0."""
    return version.partition("+")[0]


def _key(package: Distribution) -> tuple[str, str]:
    return canonicalize_name(package.name), _public(package.version)


def _kept(cache: Path) -> dict[tuple[str, str], Path]:
    """Wheels in the cache by name and version."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(cache.glob("*.whl")):
        try:
            name, version, _, _ = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        found[name, version.public] = path
    return found


def _fill(cache: Path, packages: list[Distribution], target: _Target) -> None:
    """Bring wheels of packages into the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    try:
        _download(cache, packages, target)
    except RunError as error:
        if not target.is_here():
            raise
        _log.info("pip could not download wheels, so they are made from what is installed")
        _log.debug("%s", error)
        for package in packages:
            make_wheel(package, cache)


def _download(cache: Path, packages: list[Distribution], target: _Target) -> None:
    """Wheels of the installed versions from pip's index."""
    pins = [f"{name}=={version}" for name, version in map(_key, packages)]
    there = ["--python-version", target.python, "--implementation", "cp"]
    there += [word for name in _PLATFORMS for word in ("--platform", name)]
    with TemporaryDirectory(dir=cache) as folder:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--only-binary=:all:", "--retries", "1", "--timeout", "20",
            "--dest", folder, *([] if target.is_here() else there), *pins,
        ]  # fmt: skip
        _log.info("wheels of %d packages for Python %s on Linux", len(pins), target.python)
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise RunError(
                f"No wheels for Python {target.python} on Linux, and here is Python {_this_python()} on "
                f"{platform.system()}. pip says: {said[-1] if said else 'nothing'}\nRepeat this with "
                "internet, or with PIP_FIND_LINKS set to a folder of such wheels; or publish with another "
                "--wheels_python, or with --wheels none."
            )
        for path in Path(folder).glob("*.whl"):
            path.replace(cache / path.name)


def _place(wheel: Path, folder: Path) -> Path:
    """A wheel in a folder, as a link where the disk allows it."""
    path = folder / wheel.name
    if not path.exists():
        try:
            path.hardlink_to(wheel)
        except OSError:
            shutil.copy2(wheel, path)
    return path

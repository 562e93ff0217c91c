"""Python wheels of cellflow and all it needs, so that a notebook without internet can install it."""

from __future__ import annotations

import logging
import platform
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable
from importlib.metadata import Distribution, PackageNotFoundError, PathDistribution, distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from zipfile import Path as ZipPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cellflow
from cellflow.engine.publishing.rebuilt_wheel import rebuilt_wheel
from cellflow.errors import PackageError

__all__ = ["collect_wheels"]

_log = logging.getLogger(__name__)

_ON_KAGGLE = frozenset({"torch"})
"""What Kaggle has, in a build for its own GPUs; with what only it needs."""
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


_LINUX = {
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
}
"""What markers of requirements ask for, besides the version of Python."""


def collect_wheels(
    folder: Path, *, which: Literal["missing", "all"] = "all", python: str | None = None
) -> list[Path]:
    """Put into a folder all that ``pip install --no-index --find-links FOLDER cellflow`` takes.

    The versions are those installed here, which are known to work. pip brings the wheels, from its index or
    its cache; where it cannot, they are made again from the installed files. What comes out is sorted by name.

    ``missing`` leaves out torch and what only torch needs: Kaggle has them, and with CUDA they are gigabytes. The
    target is Linux on x86-64 with a version of `python` such as 3.12, by default this one.

    Raises
    ------
    PackageError
        If pip finds no wheel of a package, and none can be made of what is installed.
    """
    target = python or _this_python()
    folder.mkdir(parents=True, exist_ok=True)
    needed = _needed(
        _facts_of(_cellflow_wheel(folder)), target, _ON_KAGGLE if which == "missing" else ()
    )
    try:
        _download(folder, needed, target)
    except PackageError as error:
        if not _runs_here(target):
            raise
        _log.info("pip could not download wheels, so they are made from what is installed")
        _log.debug("%s", error)
        for package in needed:
            rebuilt_wheel(package, folder)
    return sorted(folder.glob("*.whl"))


def _this_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _runs_here(target: str) -> bool:
    """Whether what is installed here runs on a Python of Kaggle's."""
    here = (sys.platform, platform.machine(), _this_python())
    return here == ("linux", "x86_64", target)


def _cellflow_wheel(folder: Path) -> Path:
    """The wheel of the cellflow that runs: built from its source tree; from its files where it has none."""
    root = Path(cellflow.__file__).parent
    project = root.parent / "pyproject.toml"
    if not project.is_file() or 'name = "cellflow"' not in project.read_text(encoding="utf-8"):
        return rebuilt_wheel(distribution("cellflow"), folder)
    # A copy: setuptools leaves build/ where it builds, and takes along what lies there.
    with TemporaryDirectory() as copy:
        shutil.copytree(root, Path(copy) / root.name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (project, project.with_name("README.md")):
            shutil.copy2(path, copy)
        # setuptools as installed, where it is new enough; else pip brings it
        for isolation in (["--no-build-isolation"], []):
            said = _pip("wheel", *isolation, "--wheel-dir", str(folder), copy)
            if not said:
                return next(iter(folder.glob("cellflow-*.whl")))
    raise PackageError(
        f"No wheel can be built from {root.parent}. pip says: {said}\nRepeat this with: {sys.executable} -m pip "
        "install pip 'setuptools>=77'; or publish with --wheels none.",
        path=root.parent,
    )


def _facts_of(wheel: Path) -> Distribution:
    """What a wheel says of its package."""
    facts = "-".join(wheel.name.split("-")[:2]) + ".dist-info/"
    return PathDistribution(ZipPath(wheel, facts))


def _needed(own: Distribution, target: str, without: Collection[str]) -> list[Distribution]:
    """Installed packages that a package needs on the target, itself left out."""
    found: dict[str, Distribution] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    waiting = list(_requirements(own, target, frozenset({""})))
    while waiting:
        name, extras = waiting.pop()
        if name not in without and (name, extras) not in done:
            done.add((name, extras))
            found[name] = _installed(name)
            waiting += _requirements(found[name], target, extras)
    return [found[name] for name in sorted(found)]


def _requirements(
    package: Distribution, target: str, extras: frozenset[str]
) -> Iterable[tuple[str, frozenset[str]]]:
    """Names that a package requires on the target, with the extras that it asks of them."""
    environment = _LINUX | {"python_version": target, "python_full_version": f"{target}.0"}
    for line in package.requires or []:
        asked = Requirement(line)
        marker = asked.marker
        if marker is None or any(marker.evaluate({**environment, "extra": e}) for e in extras):
            yield canonicalize_name(asked.name), frozenset({"", *asked.extras})


def _installed(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise PackageError(
            f"The package {name}, which cellflow needs on Linux, is not installed here, so the version that "
            f"fits is not known. Install it with: {sys.executable} -m pip install {name}",
            expected=name,
        ) from None


def _download(folder: Path, packages: list[Distribution], target: str) -> None:
    """Wheels of the installed versions from pip's index."""
    # a version without its local part: 2.13.0+cpu is asked for as 2.13.0
    pins = [f"{package.name}=={package.version.partition('+')[0]}" for package in packages]
    there = ["--python-version", target, "--implementation", "cp"]
    there += [word for name in _PLATFORMS for word in ("--platform", name)]
    _log.info("wheels of %d packages for Python %s on Linux", len(pins), target)
    said = _pip(
        *("download", "--only-binary=:all:", "--dest", str(folder)),
        *([] if _runs_here(target) else there),
        *pins,
    )
    if said:
        raise PackageError(
            f"No wheels for Python {target} on Linux, and here is Python {_this_python()} on "
            f"{platform.system()}. pip says: {said}\nRepeat this with "
            "internet, or with PIP_FIND_LINKS set to a folder of such wheels; or publish with another "
            "--wheels_python, or with --wheels none."
        )


def _pip(command: str, *words: str) -> str:
    """Run pip on single packages; its last error, and nothing where all went well."""
    plain = ["--quiet", "--disable-pip-version-check", "--no-deps", "--retries", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", command, *plain, "--timeout", "20", *words],
        capture_output=True,
        text=True,
    )
    errors = [line for line in done.stderr.splitlines() if line.strip()]
    return (errors[-1] if errors else "nothing") if done.returncode else ""

"""Wheels made again from installed packages, file by file as their RECORD lists them.

That takes no internet. Only the files of the wheel go in, unchanged: what has another hash than its
RECORD says is refused, what the installer added is left out.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tomllib
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from packaging.requirements import Requirement
from packaging.tags import parse_tag
from packaging.utils import canonicalize_name

import cellflow
from cellflow.errors import RunError
from cellflow.storage.atomic import atomic_path

__all__ = ["installed", "make_own_wheel", "make_wheel"]

_ADDED = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")
"""Facts that an installer adds to those of the wheel; RECORD is written anew."""
_EARLY = (1980, 1, 1, 0, 0, 0)
"""Time of all files in a wheel, so that the same files are the same wheel."""


@dataclass(frozen=True)
class _File:
    """A file and its place in the wheel."""

    name: str
    path: Path
    digest: str = ""

    def __post_init__(self) -> None:
        if not self.digest:
            object.__setattr__(self, "digest", _digest(self.path, "sha256"))


def installed(name: str) -> Distribution:
    """An installed package; the facts of its installation go before those of a source tree on the path.

    Raises
    ------
    PackageNotFoundError
        If it is not installed.
    """
    found = (package for package in distributions(name=name) if package.read_text("WHEEL"))
    return next(found, None) or distribution(name)


def make_wheel(package: Distribution, folder: Path) -> Path:
    """Make the wheel of an installed package.

    Raises
    ------
    RunError
        If the installation does not list its files, is editable, or has been changed since.
    """
    if not package.files or not package.read_text("WHEEL") or _is_editable(package):
        raise RunError(
            f"{package.name} is installed in a way that no wheel can be made of: it does not list its files. "
            f"Install it with: {_reinstall(package)}"
        )
    path = folder / f"{_stem(package)}-{_tags(package)}.whl"
    _write(path, package, _recorded(package))
    return path


def make_own_wheel(folder: Path) -> Path:
    """Make cellflow's own wheel: from the source tree where the installation is editable.

    Raises
    ------
    RunError
        If the requirements have changed since it was installed.
    """
    package = installed("cellflow")
    path = folder / f"{_stem(package)}-py3-none-any.whl"
    if not _is_editable(package):
        _write(path, package, _recorded(package))
        return path
    root = Path(cellflow.__file__).parent
    _check_requirements(package, root.parent / "pyproject.toml")
    facts = [file for file in _recorded(package) if ".dist-info/" in file.name]
    _write(path, package, [*_sources(root), *facts])
    return path


def _is_editable(package: Distribution) -> bool:
    facts = json.loads(package.read_text("direct_url.json") or "{}")
    return bool(facts.get("dir_info", {}).get("editable"))


def _reinstall(package: Distribution) -> str:
    pin = f"{package.name}=={package.version.partition('+')[0]}"
    return f"{sys.executable} -m pip install --force-reinstall --no-deps {pin}"


def _stem(package: Distribution) -> str:
    """Name and version as they begin the file name of a wheel."""
    return f"{package.name.replace('-', '_')}-{package.version.replace('-', '_')}"


def _tags(package: Distribution) -> str:
    """Tags as they end the file name of a wheel, such as py3-none-any."""
    lines = (package.read_text("WHEEL") or "").splitlines()
    words = [line.partition(":")[2].strip() for line in lines if line.startswith("Tag:")]
    tags = [tag for word in words for tag in parse_tag(word)]
    parts: list[Iterable[str]] = [
        {tag.interpreter for tag in tags},
        {tag.abi for tag in tags},
        {tag.platform for tag in tags},
    ]
    return "-".join(".".join(sorted(part)) for part in parts)


def _sources(root: Path) -> Iterator[_File]:
    """Files of cellflow's source tree."""
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        skipped = any(part.startswith(".") or part == "__pycache__" for part in parts)
        if path.is_file() and path.suffix != ".pyc" and not skipped:
            yield _File("/".join((root.name, *parts)), path)


def _recorded(package: Distribution) -> Iterator[_File]:
    """Files that an installed package came with, unchanged since."""
    commands = {entry.name for entry in package.entry_points}
    for file in package.files or []:
        name, path = _name_in_wheel(file, _stem(package)), Path(str(package.locate_file(file)))
        if name is None or ("/scripts/" in name and path.stem in commands):
            continue
        if file.hash is None or _digest(path, file.hash.mode) != file.hash.value:
            raise RunError(
                f"{path} is not what {package.name} {package.version} was installed with, so no wheel is "
                f"made of it. Install it again with: {_reinstall(package)}"
            )
        yield _File(name, path, file.hash.value if file.hash.mode == "sha256" else "")


def _name_in_wheel(file: PurePosixPath, stem: str) -> str | None:
    """Where a file stood in the wheel it came from; None for what the installer has added."""
    parts = [part for part in file.parts if part != ".."]
    own = len(file.parts) == 2 and file.parent.name.endswith(
        ".dist-info"
    )  # not of vendored packages
    if file.suffix == ".pyc" or (own and file.name in _ADDED):
        return None
    if len(parts) == len(file.parts):
        return str(file)
    if parts[0] in ("bin", "Scripts"):
        return "/".join((f"{stem}.data/scripts", *parts[1:]))
    return "/".join((f"{stem}.data/data", *parts))


def _digest(path: Path, mode: str) -> str:
    """Hash as RECORD has it; empty where there is no file."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, mode).digest()
    except FileNotFoundError:
        return ""
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def _write(path: Path, package: Distribution, files: Iterable[_File]) -> None:
    """Write files as a wheel, with a RECORD of their hashes."""
    rows, facts = [], f"{_stem(package)}.dist-info"
    with (
        atomic_path(path) as temporary,
        ZipFile(temporary, "w", ZIP_DEFLATED, compresslevel=1) as wheel,
    ):
        for file in files:
            stat = file.path.stat()
            entry = ZipInfo(file.name, _EARLY)
            entry.compress_type = ZIP_DEFLATED
            entry.external_attr = (0o100000 | stat.st_mode & 0o777) << 16
            entry.file_size = stat.st_size
            with file.path.open("rb") as source, wheel.open(entry, "w") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            rows.append(f'"{file.name}",sha256={file.digest},{stat.st_size}')
            if file.name.endswith(".dist-info/WHEEL") and file.name.count("/") == 1:
                facts = file.name.partition("/")[0]
        rows.append(f"{facts}/RECORD,,")
        wheel.writestr(ZipInfo(f"{facts}/RECORD", _EARLY), "\n".join(rows) + "\n")


def _check_requirements(package: Distribution, project: Path) -> None:
    """An editable installation knows the requirements of the day it was made."""
    if not project.exists():
        return
    facts = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    asked = [Requirement(line) for line in package.requires or []]
    then = {canonicalize_name(item.name) for item in asked if "extra" not in str(item.marker)}
    now = {canonicalize_name(Requirement(line).name) for line in facts["dependencies"]}
    if facts["version"] != package.version or then != now:
        raise RunError(
            f"cellflow was installed before {project} last changed, so its wheel would ask for the wrong "
            f"packages. Install it again with: {sys.executable} -m pip install -e {project.parent}"
        )

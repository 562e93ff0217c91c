"""A wheel made again from an installed package, which pip cannot do: for machines without an index.

Only the files of the package go in, as its RECORD lists them: what has another hash is refused. Scripts and
data outside of the packages are left out.
"""

from __future__ import annotations

import hashlib
import json
import sys
from base64 import urlsafe_b64encode
from importlib.metadata import Distribution, PackagePath
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from packaging.tags import parse_tag

from cellflow.errors import PackageError

__all__ = ["rebuilt_wheel"]

_ADDED = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")
"""Facts that an installer adds to those of the wheel; RECORD is written anew."""


def rebuilt_wheel(package: Distribution, folder: Path) -> Path:
    """Make the wheel of an installed package, refused if it is editable, lists no files, or was changed since."""
    facts = json.loads(package.read_text("direct_url.json") or "{}")
    if not package.read_text("WHEEL") or facts.get("dir_info", {}).get("editable"):
        raise PackageError(
            f"{package.name} is installed in a way that no wheel can be made of: it does not list its files. "
            f"Install it with: {_reinstall(package)}"
        )
    stem = f"{package.name.replace('-', '_')}-{package.version}"
    files = [file for file in package.files or [] if _is_part(file)]
    for file in files:
        _check(package, file)
    record = next(f.parent for f in files if f.parent.name.endswith(".dist-info")) / "RECORD"
    rows = [f'"{f}",{f.hash.mode}={f.hash.value},{f.size}' for f in files if f.hash]
    path = folder / f"{stem}-{_tags(package)}.whl"
    with ZipFile(path, "w", ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as wheel:
        for file in files:
            wheel.write(str(file.locate()), str(file))
        wheel.writestr(str(record), "\n".join([*rows, f"{record},,"]) + "\n")
    return path


def _is_part(file: PackagePath) -> bool:
    """Whether a file was in the wheel that was installed, and is not one of a vendored package's facts."""
    added = file.name in _ADDED and len(file.parts) == 2 and ".dist-info" in file.parts[0]
    return not (added or ".." in file.parts or file.suffix == ".pyc")


def _check(package: Distribution, file: PackagePath) -> None:
    path = Path(str(file.locate()))
    if path.is_file() and file.hash is not None:
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, file.hash.mode).digest()
        if urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value:
            return
    raise PackageError(
        f"{path} is not what {package.name} {package.version} was installed with, so no wheel is "
        f"made of it. Install it again with: {_reinstall(package)}",
        path=path,
    )


def _reinstall(package: Distribution) -> str:
    pin = f"{package.name}=={package.version.partition('+')[0]}"
    return f"{sys.executable} -m pip install --force-reinstall --no-deps {pin}"


def _tags(package: Distribution) -> str:
    """Tags as they end the file name of a wheel, such as py3-none-any."""
    lines = (package.read_text("WHEEL") or "").splitlines()
    words = [line.partition(":")[2].strip() for line in lines if line.startswith("Tag:")]
    tags = [tag for word in words for tag in parse_tag(word)]
    parts = zip(*((tag.interpreter, tag.abi, tag.platform) for tag in tags), strict=True)
    return "-".join(".".join(sorted(set(part))) for part in parts)

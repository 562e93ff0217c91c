"""Whether workers run the same code as the process that sends them tasks."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["differences", "install_command", "versions"]

_PACKAGES = ("cellflow", "torch", "numpy", "numba")
"""What decides about results; other packages may differ."""
_CODE = "cellflow's files"
_DIGITS = 12


@cache
def versions() -> Mapping[str, str]:
    """Versions that decide about results, and a digest of cellflow's own files: a checkout changes while
    its version does not.
    """
    found = {name: _version(name) for name in _PACKAGES}
    return {"python": f"{sys.version_info[0]}.{sys.version_info[1]}"} | found | {_CODE: _code()}


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """What is other there than here, such as ``torch 2.6.0 (here 2.7.1)``."""
    return [
        f"{name} {there.get(name, 'missing')} (here {value})"
        for name, value in here.items()
        if there.get(name) != value
    ]


def install_command() -> str:
    """What installs on a worker what is here; builds for other devices count as the same."""
    found = {name: value.partition("+")[0] for name, value in versions().items()}
    words = " ".join(f"{name}=={found[name]}" for name in _PACKAGES)
    return f"Python {platform.python_version()}: pip install {words}"


def _version(name: str) -> str:
    try:
        return version(name).partition("+")[0]  # torch 2.7.1+cpu and 2.7.1+cu126 work together
    except PackageNotFoundError:
        return "missing"


def _code() -> str:
    package = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0")
        digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()[:_DIGITS]

"""One text about a machine that a person can paste into an issue."""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from packaging.requirements import Requirement

__all__ = ["fault_report", "without_names"]

VARIABLES = ("CELLFLOW_", "CUDA_", "GLIBC_", "KMP_", "MKL_", "NUMBA_", "OMP_", "PYTORCH_", "TORCH_")
"""How the names of variables begin that change what cellflow does."""
_HARMLESS = re.compile(
    r"\d{1,4}(,\d{1,4})*|\d{1,4}\.\d{1,3}|on|off|yes|no|true|false|auto|torch|openvino|cpu|cuda|mps",
    re.IGNORECASE,
)
_SECRET = re.compile("TOKEN|KEY|SECRET|PASS|USER", re.IGNORECASE)
# over blanks and commas as long as a separator follows in the line: too much is better than too little
_PATH = re.compile(
    r"(?<![\w</])~?/(?!/)(?:[^\n'\"]*/)?[^\s,;'\"()]*"
    r"|(?<!\w)(?:[A-Za-z]:\\|\\\\)(?:[^\n'\"]*\\)?[^\s,;'\"()]*"
)
_DEVICE = re.compile(r"\b(GPU|MIG)-[0-9a-f-]{8,}")


def fault_report(checks: str) -> str:
    """What was found, versions of all packages, and variables, as a Markdown block without names.

    Parameters
    ----------
    checks : str
        What `run_checks` found, as people read it.
    """
    parts = [
        without_names(checks),
        "packages: " + ", ".join(f"{name} {version}" for name, version in _packages()),
        "variables: " + (", ".join(_variables(os.environ)) or "none that count"),
    ]
    return "\n".join(["```", *parts, "```"])


def without_names(text: str) -> str:
    """A text with `<path>`, `<user>` and `<host>` where such a thing was named."""
    with suppress(OSError, RuntimeError):
        for folder in (Path.cwd(), Path.home()):  # blanks in them would end a path too early
            if len(folder.parts) > 1:
                text = text.replace(str(folder), "/~")
    text = _DEVICE.sub("<device>", _PATH.sub("<path>", text))
    names = {"<host>": socket.gethostname(), "<user>": ""}
    with suppress(OSError, KeyError):  # a container without an entry for its user
        names["<user>"] = getpass.getuser()
    for sign, name in names.items():
        if len(name) > 1:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", sign, text)
    return text


def _packages() -> Iterator[tuple[str, str]]:
    """What cellflow needs or can use, with the version that is installed."""
    names = {Requirement(text).name for text in importlib.metadata.requires("cellflow") or ()}
    for name in sorted(names - {"cellflow"}, key=str.lower):
        with suppress(importlib.metadata.PackageNotFoundError):
            yield name, importlib.metadata.version(name)


def _variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Variables that count, with values that are numbers or words of a switch; of others only that they are set."""
    for name in sorted(environ):
        if name.startswith(VARIABLES):
            value = environ[name]
            is_shown = _HARMLESS.fullmatch(value) and not _SECRET.search(name)
            yield f"{name}={value}" if is_shown else f"{name} is set"

"""Cellpose 3, which results are compared with where it is installed."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

import pytest


class Oracle:
    """A module of cellpose 3; the test that first asks it for something is skipped where there is none."""

    def __init__(self, module: str):
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_mock_name":  # pytest looks whether this is a test
            raise AttributeError(name)
        try:
            found = importlib.metadata.version("cellpose")
        except importlib.metadata.PackageNotFoundError:
            found = "none"
        if not found.startswith("3."):
            pytest.skip(f"compares with cellpose 3, which wants NumPy below 2.1; found {found}")
        return getattr(importlib.import_module(f"cellpose.{self._module}"), name)

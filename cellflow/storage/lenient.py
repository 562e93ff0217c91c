"""JSON that may be missing or damaged: what cannot be read is None or empty."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from cellflow.storage.records import load_json

__all__ = ["read_json"]


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, with numbers that JSON does not know as None; None where there is no such file."""
    try:
        found = load_json(path, parse_constant=lambda _: None)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def dict_or_empty(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def number_or_none(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None

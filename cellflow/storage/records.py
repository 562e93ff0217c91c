"""Records that cellflow keeps as JSON or YAML.

Whatever is wrong with one is a ValueError (`load_json`, `load_yaml`); or, for those who go on without it, what
cannot be read is None or empty (`read_json` and what follows it).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

__all__ = ["LARGEST", "dict_or_empty", "load_json", "load_yaml", "number_or_none", "read_json"]


LARGEST = 2**26
"""Bytes of a JSON file that is read: none that cellflow writes comes near, and a damaged one may have any size."""
_LARGEST_YAML, _MOST_ITEMS = 2**22, 50_000
"""Of YAML, whose parser takes seconds for so many lines and items: the settings of a command that was given thousands
of files. (The one in C is ten times as fast, and dies of deep nesting.)"""


def load_json(path: Path, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """What a JSON file holds.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is not UTF-8 or not JSON, is nested too deeply, or larger than any record.
    """
    text = _read_text(path, LARGEST)
    try:
        return json.loads(text, parse_constant=parse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def load_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is not UTF-8 or not YAML, is nested too deeply, or larger than any settings.
    """
    text = _read_text(path, _LARGEST_YAML)
    items = sum(map(text.count, "\n,[{"))
    if items > _MOST_ITEMS:
        raise ValueError(f"it has {items:,} lines and items, at most {_MOST_ITEMS:,} are read")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except (RecursionError, TypeError, AttributeError, KeyError, OverflowError) as error:
        # what PyYAML lets through: keys that are lists, dates and numbers that are none
        raise ValueError(f"not YAML ({error!r:.80})") from None


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, with numbers that JSON does not know as None; None where there is none that can be read."""
    try:
        found = load_json(path, parse_constant=lambda _: None)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _read_text(path: Path, most: int) -> str:
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"it has {size:,} bytes, at most {most:,} are read")
    return path.read_text(encoding="utf-8")


def dict_or_empty(value: Any) -> dict[str, Any]:
    """A dictionary; an empty one for anything else."""
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

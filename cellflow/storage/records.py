"""Records that cellflow keeps as JSON or YAML: whatever is wrong with one is a ValueError."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

__all__ = ["load_json", "load_yaml"]


def load_json(path: Path, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """What a JSON file holds.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is not UTF-8 or not JSON, or is nested too deeply.
    """
    text = path.read_text(encoding="utf-8")
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
        If it is not UTF-8 or not YAML, or is nested too deeply.
    """
    text = path.read_text(encoding="utf-8")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except (RecursionError, TypeError, AttributeError, KeyError, OverflowError) as error:
        # what PyYAML lets through: keys that are lists, dates and numbers that are none
        raise ValueError(f"not YAML ({error!r:.80})") from None

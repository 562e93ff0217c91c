"""Checks of configs, and configs as plain values."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

from cellflow.errors import ConfigError


def check_config(config: Any) -> None:
    """Raise one ConfigError with every problem of a config and of the groups inside it."""
    found = _problems(config)
    if found:
        raise ConfigError.from_problems(found)


def _problems(config: Any) -> list[str]:
    found = list(config.problems())
    for item in dataclasses.fields(config):
        group = getattr(config, item.name)
        if dataclasses.is_dataclass(group):
            found += _problems(group)
    return found


def config_to_dict(config: Any) -> dict[str, Any]:
    """Config as plain nested dictionaries of YAML types."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(config))
    return plain


def config_differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two config dictionaries, as `name: old -> new`, one line each."""
    lines: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += config_differences(before, after, prefix=f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before} -> {after}")
    return lines


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def seed_problems(seed: int) -> list[str]:
    """What is wrong with a seed."""
    if 0 <= seed < 2**63:
        return []
    return [f"--seed must not be negative and below 2**63, found {seed}"]


def positive(name: str, value: float) -> list[str]:
    """What is wrong with a value that must be above 0."""
    return [] if 0 < value < math.inf else [f"--{name} must be positive, found {value}"]


def share(name: str, value: float) -> list[str]:
    """What is wrong with a share: at least 0 and below 1."""
    return [] if 0 <= value < 1 else [f"--{name} must be at least 0 and below 1, found {value}"]


def not_negative(name: str, value: float) -> list[str]:
    """What is wrong with a value that may be 0."""
    return [] if 0 <= value < math.inf else [f"--{name} must not be negative, found {value}"]


def seconds_of(text: str) -> float | None:
    """Seconds of a duration such as 8h, 1h30m, 90m, 45s or 3600; None when it is none."""
    parts = re.fullmatch(
        r"(?:(?P<h>[\d.]+)h)?(?:(?P<m>[\d.]+)m(?:in)?)?(?:(?P<s>[\d.]+)s?)?", text.strip().lower()
    )
    try:
        hours, minutes, seconds = (float(parts[key] or 0) if parts else 0.0 for key in "hms")
    except ValueError:
        return None
    return (hours * 3600 + minutes * 60 + seconds) or None


def is_number(text: str) -> bool:
    """Whether a text is a whole number that is not negative."""
    return text.isascii() and text.isdecimal()


def listed_paths(config: Any, name: str) -> None:
    """Turn one path, or None, into a tuple of paths; for ``__post_init__`` of a config."""
    value = getattr(config, name)
    if value is None or isinstance(value, str | Path):
        object.__setattr__(config, name, () if value is None else (Path(value),))


def at_least_one(name: str, value: int) -> list[str]:
    """What is wrong with a count."""
    return [] if value >= 1 else [f"--{name} must be at least 1, found {value}"]


def name_problems(name: str) -> list[str]:
    """What is wrong with a name that becomes a folder."""
    allowed = name and all(letter.isalnum() or letter in "._+-" for letter in name)
    if allowed and name.strip(".") and not name.startswith("-"):
        return []
    return [f"--name may have letters, digits and . _ + -, found {name!r}"]

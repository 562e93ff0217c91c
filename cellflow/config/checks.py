"""Checks of configs, and configs as plain values."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from cellflow.errors import ConfigError, shorten

_LETTERS = 200
"""Of a value in a message."""
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Rule:
    """What the values of a setting must be, in the annotation of its field: ``k: Annotated[int, COUNT]``.

    Of a list every value must be so; None is always allowed.
    """

    words: str
    fits: Callable[[Any], bool]

    def problems(self, name: str, value: Any) -> list[str]:
        """What is wrong with the value of a setting."""
        values = value if isinstance(value, tuple) else (value,)
        return [
            f"--{name} {self.words}, found {shorten(repr(item), _LETTERS)}"
            for item in values
            if item is not None and not self.fits(item)
        ]


POSITIVE = Rule("must be positive", lambda value: 0 < value < math.inf)
NOT_NEGATIVE = Rule("must not be negative", lambda value: 0 <= value < math.inf)
MICROMETRES = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*(?:um|µm|μm)\s*")
"""A length with its unit, such as 12um."""
DIAMETER = Rule(
    "must be positive: pixels, or micrometres such as 12um",
    lambda value: (
        0 < value < math.inf
        if not isinstance(value, str)
        else (found := MICROMETRES.fullmatch(value)) is not None and float(found[1]) > 0
    ),
)
COUNT = Rule("must be at least 1", lambda value: value >= 1)
SHARE = Rule("must be at least 0 and below 1", lambda value: 0 <= value < 1)
SEED = Rule("must be at least 0 and below 2**63", lambda value: 0 <= value < 2**63)
CHANNEL = Rule(
    "must be 0 or more, or the name of a channel",
    lambda value: bool(value.strip()) if isinstance(value, str) else value >= 0,
)
NOT_EMPTY = Rule("must not be empty; leave it out instead", lambda value: value.strip() != "")
NAME_FILTER = Rule(
    "must be an ending such as _masks, or have one * for the id after what stands before it: mask_*",
    lambda value: value.count("*") <= (value[:1] != "*") and not {"/", "\\"} & set(value),
)
_LONGEST_NAME = 200
"""Bytes: file systems take 255, and names of folders that are replaced have some more around them."""
FOLDER_NAME = Rule(
    f"may have letters, digits and . _ + -, {_LONGEST_NAME} bytes at most",
    lambda value: bool(
        re.fullmatch(r"[\w.+][\w.+-]*", value)
        and value.strip(".")
        and len(value.encode()) <= _LONGEST_NAME
    ),
)

SCHEDULER = Rule(
    "is local:N for N processes of this machine, tcp://HOST:PORT (or tls://) of a Dask cluster, "
    "slurm or slurm:N for N jobs, or is left out for this process alone",
    lambda value: not value or scheduler_parts(value) is not None,
)


def scheduler_parts(text: str) -> tuple[str, str] | None:
    """Kind and rest of where tasks run: (local, 4), (tcp, tcp://host:8786), (slurm, 1); None when it is neither."""
    text = text.strip()
    if re.fullmatch(r"(tcp|tls)://(\[[^\]\s]+\]|[^:/\s]+):\d{1,5}", text):
        return text[:3], text
    parts = re.fullmatch(r"(?:(local):|(slurm)(?::|$))([1-9]\d{0,5})?", text)
    if parts is None or (parts[1] and not parts[3]) or text.endswith(":"):
        return None
    return parts[1] or parts[2], parts[3] or "1"


def check_config(config: Any) -> None:
    """Raise one ConfigError with every problem of a config and of the groups inside it."""
    found = _problems(config)
    if found:
        raise ConfigError.from_problems(found)


def _problems(config: Any) -> list[str]:
    """What breaks a rule of its field, what the config itself finds, and the same of its groups."""
    cls: Any = type(config)  # mypy takes no class for hashable
    hints = _hints(cls)
    values = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    found = [
        problem
        for name, value in values.items()
        for rule in getattr(hints[name], "__metadata__", ())
        if isinstance(rule, Rule)
        for problem in rule.problems(name, value)
    ]
    found += config.problems() if hasattr(config, "problems") else []
    return found + [
        problem
        for value in values.values()
        if dataclasses.is_dataclass(value)
        for problem in _problems(value)
    ]


@cache
def _hints(cls: Any) -> Mapping[str, Any]:
    return get_type_hints(cls, include_extras=True)


def chosen(value: T | None) -> T:
    """The value of a setting that may be left open to a recipe, once `train` has filled it."""
    if value is None:
        raise ConfigError("A setting was left open to the recipe, which has not been applied.")
    return value


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


def seconds_of(text: str) -> float | None:
    """Seconds of a duration such as 8h, 1h30m, 90m or 45s; None when it is none. A bare number has no unit."""
    parts = re.fullmatch(
        r"(?:(?P<h>[\d.]+)h)?(?:(?P<m>[\d.]+)m(?:in)?)?(?:(?P<s>[\d.]+)s(?:ec)?)?",
        text.strip().lower(),
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


def named_twice(runs: tuple[str, ...]) -> list[str]:
    """What is wrong with a list of runs."""
    twice = len(set(runs)) < len(runs)
    return [f"a run is named twice: {' '.join(runs)}"] if twice else []

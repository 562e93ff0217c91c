"""Sizes of files, times, counts and names as people read them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

__all__ = [
    "duration_text",
    "few_lines",
    "few_text",
    "flag_text",
    "plural",
    "size_text",
    "type_text",
]

FEW = 5
"""Names that a message gives of many."""


def size_text(size: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def duration_text(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def flag_text(flag: str, *values: str) -> str:
    """A flag with its values as they can be typed: in quotes where a shell needs them, a first one that begins with a
    hyphen behind an equals sign.
    """
    return f"{flag}{'=' if values[0].startswith('-') else ' '}{shlex.join(values)}"


def type_text(cell_type: object) -> str:
    """A cell type as tables show it; images without one are a kind of their own."""
    return str(cell_type) or "(none)"


def plural(count: int, noun: str) -> str:
    """A count with its noun: 1 image, 2 images."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def few_text(names: Iterable[Any]) -> str:
    """The first names of many, and how many more there are."""
    every = [str(name) for name in names]
    more = f" and {len(every) - FEW} more" if len(every) > FEW else ""
    return ", ".join(every[:FEW]) + more


def few_lines(lines: Iterable[str], most: int) -> str:
    """Items of a message, a line each; of more than `most` the first, and how many more there are."""
    every = [f"  - {line}" for line in lines]
    more = [f"  and {len(every) - most} more"] if len(every) > most else []
    return "\n".join(every[:most] + more)

"""Values of all kinds as plain ones, which JSON, YAML, trackers and pages hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["flatten", "plain", "round_score"]


def plain(value: Any) -> Any:
    """Value as JSON has it: NumPy scalars as Python's, nan and infinity as None, the rest as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if callable(getattr(value, "tolist", None)):
        return plain(value.tolist())
    return str(value)


def flatten(
    values: Mapping[str, Any], separator: str = ".", prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings with their path as name."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, separator, f"{prefix}{key}{separator}")
        else:
            yield f"{prefix}{key}", value


def round_score(value: Any) -> float | None:
    """Score with five decimals for people; None where there is none."""
    known = isinstance(value, int | float) and math.isfinite(value)
    return round(float(value), 5) if known else None

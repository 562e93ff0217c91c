"""Scores as trackers show them."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["round_score"]


def round_score(value: Any) -> float | None:
    """Score with five decimals for people; None where there is none."""
    known = isinstance(value, int | float) and math.isfinite(value)
    return round(float(value), 5) if known else None

"""What `cellflow eda` prints: what the dataset holds, and the hints of its page."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

__all__ = ["eda_text"]

_SIGNS = {"warning": "!", "note": "-", "good": "+"}


def eda_text(hints: Sequence[Any]) -> str:
    """Every `Hint` of a dataset, what deserves a look first, each with what to type."""
    return "\n".join(_lines(hint) for hint in hints)


def _lines(hint: Any) -> str:
    text = fill(f"{_SIGNS[hint.kind]} {hint.about}: {hint.text}", 110, subsequent_indent="  ")
    return f"{text}\n    {hint.command}" if hint.command else text

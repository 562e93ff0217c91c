"""What `cellflow eda` prints: what the dataset holds, and the hints of its page."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Protocol

__all__ = ["eda_text"]

_SIGNS = {"warning": "!", "note": "-", "good": "+"}


class Advice(Protocol):
    """A hint, see `cellflow.report.pages.eda.Hint`."""

    @property
    def kind(self) -> str: ...
    @property
    def about(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def command(self) -> str: ...


def eda_text(hints: Sequence[Advice]) -> str:
    """The hints, what deserves a look first, each with what to type."""
    return "\n".join(_lines(hint) for hint in hints)


def _lines(hint: Advice) -> str:
    text = fill(f"{_SIGNS[hint.kind]} {hint.about}: {hint.text}", 110, subsequent_indent="  ")
    return f"{text}\n    {hint.command}" if hint.command else text

"""Tables for a terminal of 80 columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["interval", "key_text", "named_lines", "number", "text_table"]


def text_table(rows: Sequence[Sequence[str]], *, left: int = 0) -> str:
    """Rows of cells as lines, columns aligned: the one numbered `left` to the left, the others right.

    Parameters
    ----------
    rows : sequence of sequence of str
        Of one length; the first is the heading.
    left : int
        Column of names.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if place == left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def named_lines(lines: Mapping[str, str]) -> str:
    """Texts with their names in front, a line each."""
    return "\n".join(f"{name:11}{text}" for name, text in lines.items())


def key_text(meanings: Mapping[str, str]) -> str:
    """What headings mean, a line each."""
    return "\n".join(f"{name:<10}{text}" for name, text in meanings.items())


def number(value: float, digits: int = 4, sign: str = "") -> str:
    """A number, or a dash where it is not known."""
    return "-" if math.isnan(value) else f"{value:{sign}.{digits}f}"


def interval(low: float, high: float, sign: str = "") -> str:
    """An interval, or a dash where it is not known."""
    return "-" if math.isnan(low) else f"{low:{sign}.4f} to {high:{sign}.4f}"

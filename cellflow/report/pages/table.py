"""A table of a page, whose rows are sorted by a click on a column's title."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Column", "Table"]


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes
    ----------
    key : str
        Of the rows.
    title : str
    digits : int or None
        Of its numbers after the point; None for text and whole numbers.
    says : str
        What the column is, shown when its title is pointed at.
    """

    key: str
    title: str
    digits: int | None = None
    says: str = ""


@dataclass(frozen=True)
class Table:
    """What `macros.html` shows with ``table(...)``.

    Attributes
    ----------
    title : str
        What the rows are: its caption.
    columns : sequence of Column
    rows : sequence of mapping
        By the keys of the columns; a key that is missing shows as unknown. ``href`` links the first cell
        to a place of the page.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]

"""A table of a page, whose rows are sorted by a click on a column's title."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cellflow.storage.plain_values import plain

__all__ = ["Column", "Table", "rows_of"]


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

    @property
    def numeric(self) -> frozenset[str]:
        """Keys of the columns of numbers, which stand on the right; what is unknown stands below them."""
        found = set[str]()
        for column in self.columns:
            known = [plain(row.get(column.key)) for row in self.rows]
            known = [value for value in known if value is not None and value != ""]
            if known and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known):
                found.add(column.key)
        return frozenset(found)


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as `Table` takes them; what is not a number is unknown."""
    return [plain(row) for row in frame.to_dict("records")]

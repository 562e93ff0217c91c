"""CSV tables with line numbers, so that a message can say where a problem lies."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cellflow.errors import DataError

__all__ = ["Row", "read_rows"]

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the runs of one large cell are a long field


@dataclass(frozen=True)
class Row:
    """One row of a table and the line of the file it starts at (the header is line 1)."""

    line: int
    values: dict[str, str]


def read_rows(path: Path, required: tuple[str, ...]) -> tuple[list[str], Iterator[Row]]:
    """Open a CSV table with a header.

    Parameters
    ----------
    path : Path
        UTF-8, with or without a byte order mark, comma separated.
    required : tuple of str
        Columns that must be there.

    Returns
    -------
    columns : list of str
    rows : iterator of Row
        Read while iterated over; empty lines are passed over. All values are text, stripped.

    Raises
    ------
    DataError
        If the file cannot be read, has no header or lacks a column; while iterating, if a row has
        another number of values than the header.
    """
    path = Path(path)
    rows = _read(path)
    columns = next(rows, (1, []))[1]
    missing = [name for name in required if name not in columns]
    if missing:
        raise DataError(
            f"{path} line 1: expected the columns {', '.join(required)}; "
            f"not found: {', '.join(missing)}. Found: {', '.join(columns) or 'no header'}."
        )
    if len(set(columns)) < len(columns):
        twice = sorted({name for name in columns if columns.count(name) > 1})
        raise DataError(f"{path} line 1: the column {', '.join(twice)} is there more than once.")
    return columns, _with_names(rows, columns, path)


def _read(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            line = 1
            for values in reader:
                if values:
                    yield line, [value.strip() for value in values]
                line = reader.line_num + 1
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text. Save the table as CSV UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"{path} line {line}: not a CSV table ({error}).") from error


def _with_names(
    rows: Iterator[tuple[int, list[str]]], columns: list[str], path: Path
) -> Iterator[Row]:
    for line, values in rows:
        if len(values) != len(columns):
            raise DataError(
                f"{path} line {line}: expected {len(columns)} values, found {len(values)}."
            )
        yield Row(line, dict(zip(columns, values, strict=True)))

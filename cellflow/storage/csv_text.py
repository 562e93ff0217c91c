"""CSV text that reads back as what was written."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["csv_writer", "write_frame"]


class _Lines:
    r"""Ends lines with \n for a writer that was told \r\n.

    A csv.writer puts text into quotes if it holds one of the characters that end its lines. Told \n
    alone, it leaves a single \r in a value bare, and that ends the line for whoever reads it.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.removesuffix("\r\n") + "\n")


def csv_writer(file: TextIO) -> Any:
    """A `csv.writer` on a file that was opened with ``newline=""``; lines end with a line feed."""
    return csv.writer(_Lines(file), lineterminator="\r\n")


def write_frame(file: TextIO, frame: pd.DataFrame, *, header: bool = True) -> None:
    """Write a table without its index; a missing number is an empty field, the text nan is nan."""
    lines: Any = _Lines(file)
    frame.to_csv(lines, index=False, header=header, lineterminator="\r\n")

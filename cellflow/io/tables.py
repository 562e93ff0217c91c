"""Tables: the one reader of CSV, with line numbers so that a message can say where a problem lies.

Text stays the text it is (empty, NA, nan, None, 007, 1e5); a column holds numbers where the caller says
so. `read_rows` streams tables of runs, which are large; `read_frame` gives a `DataFrame`.
"""

from __future__ import annotations

import csv
import gzip
import io
import logging
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io._damage import unreadable
from cellflow.storage.sizes import plural

__all__ = ["Row", "find_table", "read_frame", "read_rows", "whole_number"]

LONGEST = 2**26
"""Characters of a line, and of a field: the runs of one large cell are long, and damage may have no end of line."""
csv.field_size_limit(LONGEST)

_log = logging.getLogger(__name__)

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_UNNAMED = re.compile(r"(Unnamed: [\d.]+(_level_\d+)?)?")
"""Columns without a name, and what pandas calls them: most often an index that was saved with a table."""
_SEP = re.compile(r"sep=.?", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")
_MAX_NAMED = 10
_PADDING = 512
"""Zeros that no gzip ends in, but one that was written to a disk without its content."""
_ALSO_CALLED = {
    "id": ("imageid", "image_id", "image", "img", "filename", "file_name", "file"),
    "annotation": (
        "mask",
        "encodedpixels",
        "encoded_pixels",
        "rle",
        "mask_rle",
        "predicted",
        "segmentation",
    ),
}


@dataclass(frozen=True)
class Row:
    """One row of a table and the line of the file it starts at (the header is line 1)."""

    line: int
    values: dict[str, str]


_NOTHING = frozenset({"-1", "-1.0", "nan", "none", "null", "na", "n/a", "<na>", "[]"})


def without_mark(runs: str) -> str:
    """The runs of a cell; empty where people and programs write something else for an image without cells."""
    return "" if runs.lower() in _NOTHING else runs


def read_rows(
    path: Path,
    required: tuple[str, ...],
    *,
    options: Mapping[str, str] | None = None,
    exact: bool = False,
) -> tuple[list[str], Iterator[Row]]:
    """Open a table with a header.

    Parameters
    ----------
    path : Path
        CSV in UTF-8 or UTF-16, with or without a byte order mark, plain or gzipped. Separated by commas;
        by semicolons, tabs or vertical bars where only then the header has the required columns.
    required : tuple of str
        Columns that must be there.
    options : mapping, optional
        Command line option that names a required column, by the column, for messages.
    exact : bool
        Keep blanks around values: for tables that nobody but cellflow writes.

    Returns
    -------
    columns : list of str
        Those with a name; others are left out, with a warning.
    rows : iterator of Row
        Read while iterated over; empty lines, and rows without any value, are passed over.

    Raises
    ------
    DataError
        If the file cannot be read, has no header or lacks a column; while iterating, if a row has
        another number of values than the header.
    """
    path = Path(path)
    separator = _separator(path, required)
    rows = _read(path, separator, exact=exact)
    header = [name.strip() for name in next(rows, (1, []))[1]]
    _check_header(path, header, required, options or {})
    kept = [place for place, name in enumerate(header) if not _UNNAMED.fullmatch(name)]
    if len(kept) < len(header):
        count = len(header) - len(kept)
        _log.info("%s: %s without a name left out", path, plural(count, "column"))
    return [header[place] for place in kept], _with_names(rows, header, kept, path)


def read_frame(path: Path, required: Sequence[str] = (), *, text: Collection[str]) -> pd.DataFrame:
    """Read a table that cellflow wrote: columns of text as they are, all others as numbers.

    Parameters
    ----------
    path : Path
        As `read_rows` takes it.
    required : sequence of str
        Columns that must be there.
    text : collection of str
        Columns that are text, whatever it looks like. An empty one is an empty text.

    Returns
    -------
    DataFrame
        Numbers are int64 where all of a column are whole, else float64; an empty field is nan.

    Raises
    ------
    DataError
        As `read_rows`, and if something else stands where a number is expected.
    """
    columns, rows = read_rows(path, tuple(required), exact=True)
    found = list(rows)
    values: dict[str, NDArray[np.generic] | pd.Series[str]] = {}
    for name in columns:
        column = [row.values[name] for row in found]
        if name in text:
            values[name] = pd.Series(column, dtype=str)
        else:
            values[name] = _numbers(path, name, column, [row.line for row in found])
    return pd.DataFrame(values, columns=columns)


def find_table(folder: Path, name: str) -> Path | None:
    """A table of a folder, plain or gzipped (``train.csv`` or ``train.csv.gz``); None if there is none."""
    found = (folder / f"{name}{ending}" for ending in ("", ".gz"))
    return next((path for path in found if path.is_file()), None)


def whole_number(text: str) -> int | None:
    """A whole number as tables have it, ``64`` or ``64.0``; None for anything else."""
    text = text.strip()
    return int(text.partition(".")[0]) if _WHOLE.fullmatch(text) else None


def _separator(path: Path, required: tuple[str, ...]) -> str:
    """What separates the columns: commas, unless the header has the required columns with another.

    Where it has them with none, what makes the most columns of it: a message shows their names.
    """
    columns = {}
    for separator, words in _SEPARATORS.items():
        header = {name.strip() for name in next(_read(path, separator), (1, []))[1]}
        if header >= set(required):
            if separator != ",":
                _log.info("%s: columns are separated by %s", path, words)
            return separator
        columns[separator] = len(header)
    return max(columns, key=lambda separator: columns[separator])


def _check_header(
    path: Path, header: list[str], required: tuple[str, ...], options: Mapping[str, str]
) -> None:
    missing = [name for name in required if name not in header]
    if missing:
        text = (
            f"{path} line 1: expected the columns {', '.join(required)}; "
            f"not found: {', '.join(missing)}. Found: {_some(header) or 'no header'}."
            f"{_advice(header, missing, options)}"
        )
        raise DataError(text, path=path, line=1, expected=required, found=tuple(header))
    named = [name for name in header if not _UNNAMED.fullmatch(name)]
    twice = sorted(name for name, count in Counter(named).items() if count > 1)
    if twice:
        text = f"{path} line 1: the column {', '.join(twice)} is there more than once. Rename or remove one."
        raise DataError(text, path=path, line=1, found=twice)


def _advice(header: list[str], missing: list[str], options: Mapping[str, str]) -> str:
    """What to do about columns that are not there: capitals differ, or an option names them."""
    plain = {name.casefold(): name for name in header}
    close = {name: plain[name.casefold()] for name in missing if name.casefold() in plain}
    if close:
        text = f" Capitals count: rename {', '.join(f'{b} to {a}' for a, b in close.items())}"
        ways = [f"{options[a]} {b}" for a, b in close.items() if a in options]
        return f"{text}, or say {' '.join(ways)}." if ways else f"{text}."
    ways = [f"{options[name]} {_meant(header, name)}" for name in missing if name in options]
    return f" Where they have other names, say which: {' '.join(ways)}." if ways else ""


def _meant(header: list[str], name: str) -> str:
    """The column that other programs and competitions call so; NAME where there is none."""
    also = _ALSO_CALLED.get(name, ())
    return next((column for column in header if column.casefold() in also), "NAME")


def _read(path: Path, separator: str, *, exact: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Rows with the lines they start at; whatever goes wrong in the file is a `DataError`."""
    line = 1
    try:
        with _open_text(path) as file:
            reader = csv.reader(_lines(file), delimiter=separator)
            for values in reader:
                if line == 1 and _SEP.fullmatch(separator.join(values)):
                    line = 2
                    continue  # what tells Excel the separator
                if any(value.strip() for value in values):
                    yield line, values if exact else [value.strip() for value in values]
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise DataError(_not_text(path, error), path=path) from error
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    except csv.Error as error:
        text = f"{path} line {line}: not a CSV table ({error})."
        raise DataError(text, path=path, line=line) from error


def _lines(file: TextIO) -> Iterator[str]:
    """Lines of a text, none of which is longer than any row."""
    while line := file.readline(LONGEST + 1):
        if len(line) > LONGEST:
            raise csv.Error(f"a line of more than {LONGEST:,} characters")
        yield line


@contextmanager
def _open_bytes(path: Path) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    with path.open("rb") as plain:
        if plain.read(2) == b"\x1f\x8b":
            _refuse_padding(path, plain)
            with gzip.open(plain) as unpacked:
                yield unpacked
        else:
            plain.seek(0)
            yield plain


def _refuse_padding(path: Path, packed: io.BufferedReader) -> None:
    """Refuse zeros behind a gzip, which the library passes over one at a time, for minutes if they are many.

    The file stands at its start afterwards.
    """
    size = packed.seek(0, io.SEEK_END)
    packed.seek(max(0, size - _PADDING))
    end = packed.read()
    if len(end) == _PADDING and not any(end):
        raise DataError(
            f"{path}: a gzip that ends in zeros; it was cut off. Copy it again.", path=path
        )
    packed.seek(0)


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    with _open_bytes(path) as file:
        start = file.peek(4)[:4]
        if start == b"PK\x03\x04":
            raise DataError(
                f"{path}: expected CSV text, found an Excel workbook or another zip archive. Save the "
                "table as CSV UTF-8.",
                path=path,
            )
        with io.TextIOWrapper(file, encoding=_encoding(start), newline="") as text:
            yield text


def _encoding(start: bytes) -> str:
    """Encoding of a text by its first bytes: a byte order mark, or the zero bytes of UTF-16."""
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    zeros = [byte == 0 for byte in start]
    if zeros == [False, True, False, True]:
        return "utf-16-le"
    return "utf-16-be" if zeros == [True, False, True, False] else "utf-8-sig"


def _not_text(path: Path, error: UnicodeDecodeError) -> str:
    """Say which line is in another encoding."""
    if error.encoding not in ("utf-8", "utf-8-sig"):
        return f"{path}: damaged UTF-16 text ({error.reason}). Save the table as CSV UTF-8."
    with suppress(OSError, EOFError, zlib.error), _open_bytes(path) as file:
        for number, line in enumerate(iter(partial(file.readline, LONGEST), b""), 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as found:
                shown = line.decode("latin-1")[max(0, found.start - 20) : found.end + 10].strip()
                return (
                    f"{path} line {number}: expected UTF-8 text, found the byte 0x{line[found.start]:02x} "
                    f"(in Latin-1: {shown!r}). Save the table as CSV UTF-8."
                )
    return f"{path}: expected UTF-8 text ({error.reason}). Save the table as CSV UTF-8."


def _with_names(
    rows: Iterator[tuple[int, list[str]]], header: list[str], kept: list[int], path: Path
) -> Iterator[Row]:
    for line, values in rows:
        if len(values) != len(header):
            text = f"{path} line {line}: expected {len(header)} values, found {len(values)}."
            raise DataError(text, path=path, line=line, expected=len(header), found=len(values))
        yield Row(line, {header[place]: values[place] for place in kept})


def _numbers(path: Path, name: str, column: list[str], lines: list[int]) -> NDArray[np.generic]:
    whole = [whole_number(text) if "." not in text else None for text in column]
    if column and None not in whole:
        return np.array(whole, dtype=np.int64)
    found = np.full(len(column), np.nan)
    for place, text in enumerate(column):
        try:
            found[place] = float(text or "nan")
        except ValueError:
            message = f"{path} line {lines[place]}: expected a number as {name}, found {text!r}."
            raise DataError(message, path=path, line=lines[place], found=text) from None
    return found


def _some(names: list[str]) -> str:
    shown = [name or "(no name)" for name in names[:_MAX_NAMED]]
    rest = len(names) - _MAX_NAMED
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")

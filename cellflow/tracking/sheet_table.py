"""A table in a Google Sheet whose rows are found by a key and whose columns are found by their names."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellflow.tracking.tracker import TrackerUnavailableError

__all__ = ["Row", "SheetTable"]

_BUSY = (429, 500, 502, 503, 504)
_QUOTA_REASONS = ("rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded")
_HEADER_ROWS = 20
"""The header is looked for in so many rows: people put titles above it."""
FIRST_WAIT, PATIENCE = 1.0, 90.0
"""Seconds before the second attempt when Google is busy, doubled each time; and seconds after which it is given up.
Quotas are per minute."""
ENDPOINT = "CELLFLOW_SHEETS_URL"
"""Environment variable for tests and proxies: where requests for Google go instead, without credentials."""
CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS"
_HOSTS = ("https://sheets.googleapis.com", "https://www.googleapis.com")
_TIMEOUT = 20.0


def connect() -> tuple[Any, str | None]:
    """Client of Google Sheets, and the account it speaks for where that is known.

    Raises
    ------
    TrackerUnavailableError
        If gspread or credentials are missing. No browser is opened and nobody is asked.
    """
    try:
        import gspread
    except ImportError:
        text = "the package gspread is missing; install it with: pip install 'cellflow[sheet]'"
        raise TrackerUnavailableError(text) from None
    url = os.environ.get(ENDPOINT, "").rstrip("/")
    if url:
        import requests

        nobody: Any = None
        client = gspread.Client(nobody, session=requests.Session(), http_client=_redirect(url))
        account = None
    else:
        credentials = _credentials()
        client = gspread.authorize(credentials)
        account = getattr(credentials, "service_account_email", None)
    client.set_timeout(_TIMEOUT)
    return client, account


def _redirect(base: str) -> Any:
    """Class of an HTTP client that speaks to another server than Google's."""
    from gspread.http_client import HTTPClient

    class Redirected(HTTPClient):
        def request(self, method: str, endpoint: str, *args: Any, **kwargs: Any) -> Any:
            for host in _HOSTS:
                endpoint = endpoint.replace(host, base, 1)
            return super().request(method, endpoint, *args, **kwargs)

    return Redirected


def _credentials() -> Any:
    """From the file that GOOGLE_APPLICATION_CREDENTIALS names, else from gspread's own places."""
    from gspread import auth

    usual = (auth.DEFAULT_SERVICE_ACCOUNT_FILENAME, auth.DEFAULT_AUTHORIZED_USER_FILENAME)
    named = os.environ.get(CREDENTIALS)
    for path in [Path(named).expanduser()] if named else map(Path, usual):
        if named or path.is_file():
            return _from_file(path, auth.DEFAULT_SCOPES)
    raise TrackerUnavailableError(
        f"there are no Google credentials; set {CREDENTIALS} to the key file of a service account, or "
        f"put that file at {usual[0]}"
    )


def _from_file(path: Path, scopes: list[str]) -> Any:
    """Credentials of a service account, or of a person who has logged in with gspread."""
    import google.oauth2.credentials
    import google.oauth2.service_account

    google_: Any = google  # its functions have no types
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("type") == "service_account":
            service_account = google_.oauth2.service_account.Credentials
            return service_account.from_service_account_info(content, scopes=scopes)
        return google_.oauth2.credentials.Credentials.from_authorized_user_info(content)
    except Exception as error:  # its text could hold a part of the file
        raise TrackerUnavailableError(
            f"the Google credentials in {path} cannot be used ({type(error).__name__}); expected the "
            "JSON key file of a service account"
        ) from None


@dataclass(frozen=True)
class Row:
    """Values of a row by column name.

    Attributes
    ----------
    key : str
        What the key column holds, unlike any other row's.
    values : dict
        Cells to write; None leaves the cell as it is.
    same : dict
        Columns that tell the row where its key is gone.
    keep : set of str
        Columns that are written only where the cell is empty.
    """

    key: str
    values: Mapping[str, str | float | int | None]
    same: Mapping[str, str] = field(default_factory=dict)
    keep: frozenset[str] = frozenset()


class SheetTable:
    """Rows that are added or updated. Whatever else people do in the sheet stays as it is.

    Parameters
    ----------
    target : str
        URL or name of the sheet; a URL with ``gid=`` names the tab, otherwise it is the first one.
    columns : sequence of str
        Names of the columns. Those that the header lacks are added at its right end.
    key : str
        Column of the keys.
    """

    def __init__(self, target: str, columns: Sequence[str], *, key: str):
        self._target, self._columns, self._key = target, columns, key
        self._client, self._account = connect()
        self._sheet: Any = None

    @property
    def url(self) -> str | None:
        """Link for people, once the sheet was opened."""
        return self._sheet.url if self._sheet is not None else None

    def upsert(self, rows: Sequence[Row]) -> None:
        """Update the rows that are there, add the others.

        An attempt starts with reading the sheet: a row that an earlier attempt has added, although its
        answer was lost, is then updated and not added again.
        """
        _patiently(lambda: self._upsert(rows))

    def _upsert(self, rows: Sequence[Row]) -> None:
        if self._sheet is None:
            self._sheet = self._open()
        grid: list[list[str]] = self._sheet.get_all_values()
        place, header = self._header(grid)
        changes = [
            change
            for row in rows
            if (number := self._find(grid, place, header, row)) is not None
            for change in self._changes(grid[number - 1], number, header, row)
        ]
        if changes:
            self._sheet.batch_update(changes, value_input_option="RAW")
        for row in rows:
            if self._find(grid, place, header, row) is None:
                self._append(place, header, row)

    def _changes(
        self, line: Sequence[str], number: int, header: Mapping[str, int], row: Row
    ) -> Iterator[dict[str, Any]]:
        """Cells of a row that are to change."""
        for name, value in self._cells(row).items():
            there = _cell(line, header, name)
            if value is not None and there != str(value) and not (name in row.keep and there):
                yield {"range": _a1(number, header[_fold(name)]), "values": [[value]]}

    def _cells(self, row: Row) -> dict[str, str | float | int | None]:
        return {**row.values, self._key: row.key}

    def _header(self, grid: list[list[str]]) -> tuple[int, dict[str, int]]:
        """Row of the header and column of each name, both from 1; missing names are written."""
        known = {_fold(name) for name in self._columns}
        counts = [len(known & set(map(_fold, line))) for line in grid[:_HEADER_ROWS]]
        place = counts.index(max(counts)) + 1 if counts else 1
        line = grid[place - 1] if grid else []
        header: dict[str, int] = {}
        for number, name in enumerate(line, start=1):
            header.setdefault(_fold(name), number)
        header.pop("", None)
        width = max(header.values(), default=0)
        missing = [name for name in self._columns if _fold(name) not in header]
        if missing:
            self._widen(width + len(missing))
            change = {"range": f"{_a1(place, width + 1)}:{_a1(place, width + len(missing))}"}
            self._sheet.batch_update([change | {"values": [missing]}], value_input_option="RAW")
            header |= {_fold(name): width + at for at, name in enumerate(missing, start=1)}
        return place, header

    def _widen(self, width: int) -> None:
        lacking = width - self._sheet.col_count
        if lacking > 0:
            self._sheet.add_cols(lacking)

    def _find(
        self, grid: list[list[str]], place: int, header: Mapping[str, int], row: Row
    ) -> int | None:
        """Number of a row, by its key; else of one without key that the other columns tell."""
        second = None
        for number, line in enumerate(grid[place:], start=place + 1):
            key = _cell(line, header, self._key)
            if key == row.key:
                return number
            if not key and row.same and second is None:
                alike = all(_cell(line, header, name) == value for name, value in row.same.items())
                second = number if alike else None
        return second

    def _append(self, place: int, header: Mapping[str, int], row: Row) -> None:
        """Add a row below the table, which is safe beside others who do so at the same time."""
        first, last = min(header.values()), max(header.values())
        values: list[Any] = [None] * (last - first + 1)
        for name, value in self._cells(row).items():
            values[header[_fold(name)] - first] = value
        answer = self._sheet.append_row(
            values,
            value_input_option="RAW",
            insert_data_option="INSERT_ROWS",
            table_range=f"{_a1(place, first)}:{_a1(place, last)}",
        )
        number, column = _corner(answer["updates"]["updatedRange"])
        if column != first:  # Google took a part of the columns for the table: put the row right
            wrong = f"{_a1(number, column)}:{_a1(number, column + len(values) - 1)}"
            right = f"{_a1(number, first)}:{_a1(number, last)}"
            self._widen(column + len(values) - 1)
            self._sheet.batch_clear([wrong])
            self._sheet.batch_update(
                [{"range": right, "values": [values]}], value_input_option="RAW"
            )

    def _open(self) -> Any:
        import gspread

        try:
            if "://" not in self._target:
                return self._client.open(self._target).sheet1
            book = self._client.open_by_url(self._target)
            tab = self._target.partition("gid=")[2].partition("&")[0]
            return book.get_worksheet_by_id(tab) if tab.isdecimal() else book.sheet1
        except gspread.WorksheetNotFound as error:
            raise TrackerUnavailableError(f"the Google Sheet has no such tab: {error}") from None
        except (gspread.SpreadsheetNotFound, PermissionError):
            whom = self._account or "the account that the credentials belong to"
            raise TrackerUnavailableError(
                f"there is no Google Sheet {self._target!r}, or it is not shared; "
                f"check --sheet, and share the sheet with {whom} as editor"
            ) from None


def _patiently(attempt: Callable[[], None]) -> None:
    """Try again while Google is busy, and for a shorter time while it cannot be reached.

    Not `gspread.BackOffHTTPClient`: it never gives up (a hundred answers 503 held it for 3.4 hours), it
    does not try again without a network, and it sends an append again whose answer was lost.
    """
    started, wait = time.monotonic(), FIRST_WAIT
    while True:
        try:
            return attempt()
        except Exception as error:
            pause = wait * random.uniform(1.0, 1.25)
            if time.monotonic() - started + pause > PATIENCE * _hope(error):
                raise
        time.sleep(pause)
        wait *= 2


def _hope(error: Exception) -> float:
    """How much of the patience an error is worth: all for quotas, a bit for the network, else none."""
    import gspread
    import requests

    if isinstance(error, gspread.exceptions.APIError):
        reasons = [item.get("reason") for item in error.error.get("errors", ())]
        busy = error.response.status_code in _BUSY
        return float(busy or any(reason in _QUOTA_REASONS for reason in reasons))
    return 0.1 if isinstance(error, requests.ConnectionError | requests.Timeout) else 0.0


def _cell(line: Sequence[str], header: Mapping[str, int], name: str) -> str:
    column = header[_fold(name)]
    return line[column - 1].strip() if column <= len(line) else ""


def _fold(name: str) -> str:
    """Name of a column without case and with single blanks."""
    return " ".join(name.split()).casefold()


def _a1(row: int, column: int) -> str:
    from gspread.utils import rowcol_to_a1

    return rowcol_to_a1(row, column)


def _corner(label: str) -> tuple[int, int]:
    """Row and column where a range such as 'Sheet 1'!A5:M5 begins."""
    from gspread.utils import a1_to_rowcol

    row, column = a1_to_rowcol(label.rpartition("!")[2].partition(":")[0].replace("$", ""))
    return row, column

"""A local server that speaks as much of Google's Sheets and Drive API as gspread needs for our rows.

Use it from any test: put this folder on ``sys.path``, then

    with FakeSheets("Season") as sheets:
        subprocess.run(..., env=os.environ | {"CELLFLOW_SHEETS_URL": sheets.url})
        sheets.records()          # a dict per row, by the names of the header
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Cell = str | int | float

KEY = "sheet-0001"


class FakeSheets:
    """One spreadsheet with one tab, in memory, behind HTTP in a thread.

    Attributes
    ----------
    grid : list of list
        Cells; change them as a person would. Shorter rows end in empty cells.
    columns : int
        Width of the tab. Writing beyond it is refused, as Google does.
    requests : list of str
        "METHOD path" of every request so far.
    failures : list of (status, headers)
        What the next requests get instead of an answer.
    lose_answers : int
        So many appends are carried out but answered with 503.
    shared : bool
        Whether the spreadsheet may be opened.
    """

    def __init__(self, title: str = "Season", grid: Sequence[Sequence[Cell]] = ()):
        self.title = title
        self.grid: list[list[Cell]] = [list(row) for row in grid]
        self.columns = max([26, *map(len, self.grid)])
        self.requests: list[str] = []
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.lose_answers = 0
        self.shared = True
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"sheets": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    @property
    def url(self) -> str:
        """Value of CELLFLOW_SHEETS_URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def link(self) -> str:
        """URL of the spreadsheet, as a person copies it from a browser."""
        return f"https://docs.google.com/spreadsheets/d/{KEY}/edit#gid=0"

    def records(self, header: int = 1) -> list[dict[str, Cell]]:
        """Rows below the header, by name of their columns."""
        names = [str(name) for name in self.grid[header - 1]]
        rows = [row + [""] * (len(names) - len(row)) for row in self.grid[header:]]
        return [dict(zip(names, row, strict=False)) for row in rows if any(row)]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> FakeSheets:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread.is_alive():
            self.stop()

    def read(self) -> list[list[str]]:
        rows = [[str(cell) for cell in row] for row in self.grid]
        rows = [
            row[: max((at + 1 for at, cell in enumerate(row) if cell), default=0)] for row in rows
        ]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def write(self, row: int, column: int, values: list[list[Any]]) -> None:
        """Write cells, counted from 0; null leaves a cell as it is."""
        for down, line in enumerate(values):
            while len(self.grid) <= row + down:
                self.grid.append([])
            target = self.grid[row + down]
            target.extend([""] * (column + len(line) - len(target)))
            for right, value in enumerate(line):
                if value is not None:
                    target[column + right] = value

    def append(self, box: tuple[int, int, int, int], values: list[list[Any]]) -> str:
        """Insert rows below the last table in a range; a column without any cell ends a table."""
        top, left, _, right = box
        table = [row for row in self.grid[top:]]
        end = next((at for at, row in enumerate(table) if not any(map(str, row))), len(table))
        table = table[:end]
        full = [
            any(len(row) > column and str(row[column]) for row in table)
            for column in range(right + 1)
        ]
        start = right
        while start > left and full[start - 1]:
            start -= 1
        for down in range(len(values)):
            self.grid.insert(top + end + down, [])
        self.write(top + end, start, values)
        return f"'Sheet1'!{_name(start)}{top + end + 1}:{_name(start + len(values[0]) - 1)}{top + end + len(values)}"


class _Handler(BaseHTTPRequestHandler):
    sheets: FakeSheets

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        with self.sheets.lock:
            self.sheets.requests.append(f"{self.command} {unquote(url.path)}")
            if self.sheets.failures:
                status, headers = self.sheets.failures.pop(0)
                self._send(status, _error(status, "try later"), headers)
                return
            try:
                status, content = self._route(unquote(url.path), parse_qs(url.query), body)
            except ValueError as error:
                status, content = 400, _error(400, str(error))
            self._send(status, content, {})

    def _route(self, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
        sheets = self.sheets
        if path == "/drive/v3/files":
            wanted = re.search(r'name = "(.*?)"', query["q"][0])
            found = [{"id": KEY, "name": sheets.title}] if sheets.shared else []
            return 200, {"files": [item for item in found if wanted and item["name"] == wanted[1]]}
        base = f"/v4/spreadsheets/{KEY}"
        if not path.startswith(base):
            return 404, _error(404, "Requested entity was not found.")
        if not sheets.shared:
            return 403, _error(403, "The caller does not have permission")
        given = json.loads(body or b"{}")
        if self.command == "GET":
            return 200, self._get(path.removeprefix(base))
        return self._post(path.removeprefix(base), given, query)

    def _get(self, rest: str) -> Any:
        sheets = self.sheets
        if rest.startswith("/values/"):
            return {"range": rest, "majorDimension": "ROWS", "values": sheets.read()}
        grid = {"rowCount": len(sheets.grid) + 100, "columnCount": sheets.columns}
        tab = {"sheetId": 0, "title": "Sheet1", "index": 0, "gridProperties": grid}
        return {
            "spreadsheetId": KEY,
            "properties": {"title": sheets.title},
            "sheets": [{"properties": tab}],
        }

    def _post(self, rest: str, given: Any, query: dict[str, list[str]]) -> tuple[int, Any]:
        sheets = self.sheets
        if rest == ":batchUpdate":
            for change in given["requests"]:
                sheets.columns = change["updateSheetProperties"]["properties"]["gridProperties"][
                    "columnCount"
                ]
            return 200, {"replies": [{}]}
        if rest == "/values:batchUpdate":
            _expect(given["valueInputOption"] == "RAW", "RAW values")
            for item in given["data"]:
                top, left, *_ = self._box(item["range"])
                self._fits(left + len(item["values"][0]))
                sheets.write(top, left, item["values"])
            return 200, {"responses": []}
        if rest == "/values:batchClear":
            for label in given["ranges"]:
                top, left, bottom, right = self._box(label)
                empty = [[""] * (right - left + 1)] * (bottom - top + 1)
                sheets.write(top, left, empty)
            return 200, {"clearedRanges": given["ranges"]}
        _expect(
            rest.startswith("/values/") and rest.endswith(":append"), f"a known path, found {rest}"
        )
        _expect(query["insertDataOption"] == ["INSERT_ROWS"], "rows to be inserted")
        box = self._box(rest.removeprefix("/values/").removesuffix(":append"))
        updated = sheets.append(box, given["values"])
        if sheets.lose_answers:
            sheets.lose_answers -= 1
            return 503, _error(503, "The service is currently unavailable.")
        return 200, {"spreadsheetId": KEY, "updates": {"updatedRange": updated}}

    def _box(self, label: str) -> tuple[int, int, int, int]:
        """Top, left, bottom and right of a range in A1 notation, from 0, all inclusive."""
        first, _, last = label.rpartition("!")[2].partition(":")
        top, left = _place(first)
        bottom, right = _place(last or first)
        self._fits(left + 1)
        return top, left, bottom, right

    def _fits(self, width: int) -> None:
        _expect(
            width <= self.sheets.columns,
            f"at most {self.sheets.columns} columns, exceeds grid limits",
        )

    def _send(self, status: int, content: Any, headers: dict[str, str]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _expect(fact: bool, what: str) -> None:
    if not fact:
        raise ValueError(f"expected {what}")


def _error(status: int, message: str) -> Any:
    return {"error": {"code": status, "message": message, "status": "X"}}


def _place(label: str) -> tuple[int, int]:
    found = re.fullmatch(r"([A-Z]+)(\d+)", label)
    _expect(found is not None, f"a cell, found {label}")
    assert found is not None
    column = 0
    for letter in found[1]:
        column = 26 * column + ord(letter) - 64
    return int(found[2]) - 1, column - 1


def _name(column: int) -> str:
    name, column = "", column + 1
    while column:
        column, rest = divmod(column - 1, 26)
        name = chr(65 + rest) + name
    return name

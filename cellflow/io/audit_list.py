"""The list of suspected annotations: written by `cellflow audit` and its page, marked by people, read again.

A row is a suspicion, with all that `cellflow prepare --audit` needs to act on it: ``proposal`` holds the cells
that ``fix`` puts in place, as runs (row-major, 1-indexed, of several cells with ``;`` between them), and ``check``
tells whether annotations and proposal are still those that were looked at. What was decided of a dataset stays in
its ``audited.csv``, so that no later audit asks again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cellflow.errors import DataError
from cellflow.io.tables import Row, read_rows, whole_number
from cellflow.storage.atomic import atomic_path
from cellflow.storage.csv_text import csv_writer
from cellflow.storage.hashing import hash_bytes

__all__ = [
    "COLUMNS", "DECIDED", "VERDICTS", "AuditRow", "Decision", "read_audit_list", "read_decisions", "row_check",
    "row_values", "write_audit_list", "write_decisions",
]  # fmt: skip

COLUMNS = (
    "id", "cell", "kind", "verdict", "suspicion", "reason", "fold", "cell_type", "box_y0", "box_x0", "box_y1",
    "box_x1", "predicted", "proposal", "check", "data_hash",
)  # fmt: skip
NEEDED = ("id", "cell", "kind", "verdict", "proposal", "check", "data_hash")
"""Without these nothing can be applied."""
VERDICTS = ("ok", "fix", "drop")
DECIDED = "audited.csv"
"""Of a dataset folder: what was decided of its annotations."""
_DECISION = ("id", "kind", "verdict", "annotations", "proposal")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
"""A spreadsheet takes text that begins so for a formula; it is written with an apostrophe in front."""


@dataclass(frozen=True)
class AuditRow:
    """A suspicion as the list has it.

    Attributes
    ----------
    id : str
        Image.
    cells : tuple of int
        Annotations, from 1 in the order of instances.csv; none where one is missing.
    kind : str
    proposal : tuple of str
        Cells that replace them, or are added, as runs; none where nothing is proposed.
    check : str
        `row_check` of the annotations and the proposal.
    data_hash : str
        Of the dataset that was looked at.
    verdict : str
        Empty, or one of `VERDICTS`.
    suspicion : float
        0 to 1.
    reason : str
        In words.
    fold : int
    cell_type : str
    box_yxyx : tuple of int
        First row and column, and those past the last, of all cells concerned.
    predicted : tuple of int
        Numbers in the run's out-of-fold masks.
    line : int
        In the file it was read from.
    """

    id: str
    cells: tuple[int, ...]
    kind: str
    proposal: tuple[str, ...]
    check: str
    data_hash: str
    verdict: str = ""
    suspicion: float = math.nan
    reason: str = ""
    fold: int = -1
    cell_type: str = ""
    box_yxyx: tuple[int, int, int, int] = (0, 0, 0, 0)
    predicted: tuple[int, ...] = ()
    line: int = 0


@dataclass(frozen=True)
class Decision:
    """What was decided of annotations, which are named by their pixels: their numbers change.

    Attributes
    ----------
    id, kind, verdict : str
        As in `AuditRow`.
    annotations, proposal : tuple of str
        Runs of the annotations that were looked at, and of what was proposed instead.
    """

    id: str
    kind: str
    verdict: str
    annotations: tuple[str, ...]
    proposal: tuple[str, ...]


def row_check(image_id: str, annotations: Sequence[str], proposal: Sequence[str]) -> str:
    """What tells whether the annotations (runs) and the proposal of a row are still the same."""
    texts = [image_id, str(len(annotations)), *annotations, *proposal]
    return hash_bytes(*(text.encode() for text in texts))


def row_values(row: AuditRow) -> dict[str, str]:
    """A row as text, by the columns of the file."""
    box = dict(zip(("box_y0", "box_x0", "box_y1", "box_x1"), map(str, row.box_yxyx), strict=True))
    return {
        "id": _guarded(row.id),
        "cell": " ".join(map(str, row.cells)),
        "kind": row.kind,
        "verdict": row.verdict,
        "suspicion": f"{row.suspicion:.4f}",
        "reason": _guarded(row.reason),
        "fold": str(row.fold),
        "cell_type": _guarded(row.cell_type),
        **box,
        "predicted": " ".join(map(str, row.predicted)),
        "proposal": ";".join(row.proposal),
        "check": row.check,
        "data_hash": row.data_hash,
    }


def write_audit_list(path: Path, rows: Iterable[AuditRow]) -> None:
    """Write the list, atomically."""
    _write(path, COLUMNS, map(row_values, rows))


def read_audit_list(path: Path) -> list[AuditRow]:
    """Read what `apply` goes by in a list, as it was written or as a spreadsheet saved it; the rest has its defaults.

    Raises
    ------
    DataError
        If it cannot be read, lacks a column, or a verdict or number of a cell is none; with the line.
    """
    return [_audit_row(path, row) for row in read_rows(path, NEEDED)[1]]


def write_decisions(path: Path, decisions: Iterable[Decision]) -> None:
    """Write what was decided of a dataset, atomically."""
    rows = (
        asdict(item) | {name: ";".join(getattr(item, name)) for name in ("annotations", "proposal")}
        for item in decisions
    )
    _write(path, _DECISION, rows)


def read_decisions(folder: Path) -> list[Decision]:
    """What was decided of a dataset so far; nothing where it was never audited.

    Raises
    ------
    DataError
        If the table is damaged.
    """
    path = folder / DECIDED
    if not path.is_file():
        return []
    rows = (row.values for row in read_rows(path, _DECISION, exact=True)[1])
    return [
        Decision(
            row["id"], row["kind"], row["verdict"], _runs(row["annotations"]), _runs(row["proposal"])
        )
        for row in rows
    ]  # fmt: skip


def _audit_row(path: Path, row: Row) -> AuditRow:
    values = row.values
    verdict = values["verdict"].lower()
    if verdict and verdict not in VERDICTS:
        raise _wrong(path, row, f"{' or '.join(VERDICTS)} as verdict, or nothing", verdict)
    cells = [whole_number(text) for text in values["cell"].split()]
    if any(number is None or number < 1 for number in cells):
        raise _wrong(path, row, "numbers of cells from 1 as cell", values["cell"])
    return AuditRow(
        id=_unguarded(values["id"]),
        cells=tuple(number for number in cells if number is not None),
        kind=values["kind"],
        proposal=_runs(values["proposal"]),
        check=values["check"],
        data_hash=values["data_hash"],
        verdict=verdict,
        reason=_unguarded(values.get("reason", "")),
        line=row.line,
    )


def _wrong(path: Path, row: Row, expected: str, found: str) -> DataError:
    text, name = f"{path} line {row.line}: expected {expected}, found {found!r}.", row.values["id"]
    facts: dict[str, Any] = {"path": path, "line": row.line, "id": _unguarded(name)}
    return DataError(text, **facts, expected=expected, found=found)


def _write(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv_writer(file)
        writer.writerow(columns)
        writer.writerows([row[name] for name in columns] for row in rows)


def _runs(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(";")) if text.strip() else ()


def _guarded(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _unguarded(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text

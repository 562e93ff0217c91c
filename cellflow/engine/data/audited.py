"""Marks of a label audit applied to the cells of a dataset, with an account of what was changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io.audit_list import (
    DECIDED,
    AuditRow,
    Decision,
    read_audit_list,
    read_decisions,
    row_check,
    write_decisions,
)
from cellflow.io.dataset import Dataset
from cellflow.io.problems import Problems
from cellflow.numeric.cell_faults import largest_parts
from cellflow.numeric.labels import instances_from_labels, labels_from_instances
from cellflow.numeric.rle import instances_from_rles, rle_decode, rle_encode, rles_from_instances
from cellflow.storage.sizes import plural
from cellflow.types import Instances

__all__ = ["AuditMarks", "keep_decisions"]


class AuditMarks:
    """Applies the marks of a list to one image after the other.

    The list is from the page of `cellflow audit`, or ``audit.csv`` with verdicts filled in. It is refused, with the
    lines, if it is of other data than the dataset, names an image or a cell that is not there, or says two things of
    one annotation.
    """

    def __init__(self, path: Path, dataset: Dataset) -> None:
        self._path = path
        self._rows: dict[str, list[AuditRow]] = {}
        self._lines: list[str] = []
        self._decisions = read_decisions(dataset.path)
        problems = Problems()
        ids = set(dataset.ids)
        for row in read_audit_list(path):
            if row.data_hash != dataset.hash:
                raise self._wrong(
                    row,
                    f"the list is of other data than {dataset.path}: expected data hash {dataset.hash}, found "
                    f"{row.data_hash or 'none'}. Audit a run that was trained on this dataset",
                )
            if row.id not in ids:
                problems.add(self._wrong(row, f"no image {row.id!r} in {dataset.path}"), row.id)
            elif row.verdict:
                self._rows.setdefault(row.id, []).append(row)
        problems.raise_if_any()

    def apply(self, image_id: str, instances: Instances) -> Instances:
        """The cells of an image after its marks."""
        rows = self._rows.get(image_id, [])
        if not rows:
            return instances
        own = rles_from_instances(instances)
        for row in rows:
            self._check(row, own)
        self._check_once(rows)
        changed, result = [row for row in rows if row.verdict != "ok"], instances
        if changed:
            runs = self._changed(changed, own, instances.shape)
            result = instances_from_rles(runs, instances.shape)
        self._lines.append(_account(image_id, rows, len(instances), len(result)))
        for row in rows:
            named = tuple(own[cell - 1] for cell in row.cells)
            self._decisions.append(Decision(row.id, row.kind, row.verdict, named, row.proposal))
        return result

    def lines(self) -> list[str]:
        """What was changed, a line for each image with marks."""
        return self._lines or [f"--audit {self._path}: nothing is marked, so nothing is changed."]

    def write_decisions(self, folder: Path) -> None:
        """Keep in a dataset what was decided, now and before."""
        write_decisions(folder / DECIDED, self._decisions)

    def _check(self, row: AuditRow, own: Sequence[str]) -> None:
        """Refuse a row that does not fit the annotations, or says what cannot be done."""
        if row.cells and max(row.cells) > len(own):
            raise self._wrong(row, f"no cell {max(row.cells)} in {row.id}, which has {len(own)}")
        named = [own[cell - 1] for cell in row.cells]
        if row_check(row.id, named, row.proposal) != row.check:
            raise self._wrong(
                row,
                f"the cells or the proposal are not those that were looked at in {row.id}: the row was changed, or "
                "cut by a spreadsheet (they hold 32,767 characters a field). Download the list again",
            )
        if row.verdict == "fix" and not row.proposal:
            raise self._wrong(row, f"nothing is proposed for {_named(row)}. Say ok or drop")
        if row.verdict == "drop" and not row.cells:
            text = f"no annotation to drop in {row.id}. Say ok to leave it so, or fix"
            raise self._wrong(row, text)

    def _check_once(self, rows: Sequence[AuditRow]) -> None:
        """Refuse two rows that name one annotation, or propose one cell, and do not both leave it as it is."""
        seen: dict[int | str, AuditRow] = {}
        for row in rows:
            named: list[int | str] = [*row.cells, *(row.proposal if row.verdict == "fix" else ())]
            for what in named:
                other = seen.setdefault(what, row)
                if other is not row and {row.verdict, other.verdict} != {"ok"}:
                    text = f"line {other.line} says {other.verdict} of {_named(other)} already"
                    raise self._wrong(row, f"{text}. Keep one of the two rows")

    def _changed(
        self, rows: Sequence[AuditRow], own: Sequence[str], shape: tuple[int, int]
    ) -> list[str]:
        """Runs of all cells: proposals stand where the first cell they replace stood, new ones come last."""
        gone = {cell for row in rows for cell in row.cells}
        taken = np.zeros(shape, dtype=np.bool_)
        for number, rle in enumerate(own, 1):
            if number not in gone:
                taken |= rle_decode(rle, shape)
        instead: dict[int, list[str]] = {}
        for row in rows:
            for rle in row.proposal if row.verdict == "fix" else ():
                free = _free(rle_decode(rle, shape), taken)
                if not free.any():
                    text = f"other annotations have all pixels of what is proposed in {row.id}"
                    raise self._wrong(row, f"{text}. Say ok or drop")
                taken |= free
                place = row.cells[0] if row.cells else len(own) + 1
                instead.setdefault(place, []).append(rle_encode(free))
        cells: list[str] = []
        for number in range(1, len(own) + 2):
            cells += instead.get(number, [])
            if number <= len(own) and number not in gone:
                cells.append(own[number - 1])
        return cells

    def _wrong(self, row: AuditRow, text: str) -> DataError:
        return DataError(
            f"{self._path} line {row.line}: {text}.", path=self._path, line=row.line, id=row.id
        )


def keep_decisions(source: Path, folder: Path) -> None:
    """Carry what was decided of a dataset over to one that is made of it."""
    decisions = read_decisions(source)
    if decisions:
        write_decisions(folder / DECIDED, decisions)


def _free(wanted: NDArray[np.bool_], taken: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A proposal without what other cells have; of what lies on both sides of a neighbour the largest part."""
    free = wanted & ~taken
    if free.any() and (free != wanted).any():
        free = labels_from_instances(largest_parts(instances_from_labels(free))) > 0
    return free


def _named(row: AuditRow) -> str:
    cells = ", ".join(map(str, row.cells))
    return f"cell {cells} of {row.id}" if row.cells else f"a new cell of {row.id}"


def _account(image_id: str, rows: Sequence[AuditRow], before: int, after: int) -> str:
    """What was changed in an image, in a line."""
    words = {"fix": "fixed", "added": "added", "drop": "dropped", "ok": "found right"}
    counts = Counter(
        "added" if row.verdict == "fix" and not row.cells else row.verdict for row in rows
    )
    parts = [f"{counts[verdict]} {word}" for verdict, word in words.items() if counts[verdict]]
    return f"--audit: {image_id}: {', '.join(parts)}; {plural(after, 'cell')}, before {before}"

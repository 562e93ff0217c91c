"""``folds.csv``: a plain ``id,fold`` table that people can edit or bring along."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.errors import DataError, FoldError
from cellflow.io.tables import read_rows
from cellflow.storage.atomic import write_csv, write_json
from cellflow.storage.hashing import hash_bytes

__all__ = [
    "RESERVED",
    "fold_facts_fit",
    "fold_table_hash",
    "read_fold_facts",
    "read_fold_table",
    "write_fold_table",
]

RESERVED = -1
"""Fold of images that are kept out of all folds."""

_MAX_PROBLEMS = 20
_REPLACES = "replaces"
"""Entry of ``folds.json`` that is there only while a table is being replaced."""


def read_fold_table(path: Path, ids: Sequence[str] | None = None) -> pd.Series[int]:
    """Read and check a fold table.

    Parameters
    ----------
    path : Path
        CSV with the columns id and fold.
    ids : sequence of str, optional
        Ids of all images of the dataset; without them ids are not checked.

    Returns
    -------
    Series of int64
        Fold by id, sorted by id; folds are 0..K-1 and -1 for reserved images.

    Raises
    ------
    FoldError
        With up to 20 problems and their lines: unknown, repeated or missing ids, folds that are not
        whole numbers of at least -1, numbers left out, fewer than two folds.
    """
    path = Path(path)
    if not path.is_file():
        raise FoldError(f"{path}: there is no fold table. Make one with `cellflow folds`.")
    folds: dict[str, int] = {}
    known = None if ids is None else set(ids)
    problems: list[str] = []
    try:
        for row in read_rows(path, ("id", "fold"))[1]:
            image_id, fold = row.values["id"], _fold_number(row.values["fold"])
            if known is not None and image_id not in known:
                problems.append(f"line {row.line}: unknown id {image_id!r}; remove the row")
            elif image_id in folds:
                problems.append(f"line {row.line}: the id {image_id!r} has a row already")
            elif fold is None:
                problems.append(
                    f"line {row.line}: expected a fold number (0, 1, ... or -1 for reserved), "
                    f"found {row.values['fold']!r}"
                )
            folds.setdefault(image_id, RESERVED if fold is None else fold)
    except DataError as error:
        raise FoldError(str(error)) from error
    problems += [
        f"the image {image_id!r} has no row; give it a fold, or -1 to keep it out of all"
        for image_id in sorted((known or set()) - folds.keys())
    ]
    if not problems:
        problems = _numbering_problems(set(folds.values()))
    if problems:
        raise FoldError(_joined(path, problems))
    return pd.Series(folds, dtype="int64", name="fold").rename_axis("id").sort_index()


def write_fold_table(path: Path, folds: pd.Series[int], facts: dict[str, Any]) -> None:
    """Write the table and, beside it as ``folds.json``, how it was made.

    The table comes last: until it is in its place, ``folds.json`` also holds the facts of the table that
    still stands, so that whoever reads after a kill gets the facts that belong to the table there is.
    """
    path = Path(path)
    new = {**facts, "hash": fold_table_hash(folds)}
    standing = _hash_of_file(path)
    replaces = {"facts": read_fold_facts(path), "hash": standing}
    write_json(path.with_suffix(".json"), new | ({_REPLACES: replaces} if standing else {}))
    write_csv(path, folds.sort_index().rename_axis("id").rename("fold").reset_index())
    if standing:
        write_json(path.with_suffix(".json"), new)


def read_fold_facts(path: Path) -> dict[str, Any]:
    """How the fold table at `path` was made; empty if nobody knows (a table brought along)."""
    path = Path(path)
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(facts, dict):
        return {}
    replaces = facts.pop(_REPLACES, None)
    if isinstance(replaces, dict) and isinstance(replaces.get("facts"), dict):
        standing = _hash_of_file(path)
        if standing == replaces.get("hash") != facts.get("hash"):
            return dict(replaces["facts"])  # the writing ended before the new table was there
    return facts


def fold_facts_fit(path: Path, folds: pd.Series[int] | None = None) -> bool:
    """Whether ``folds.json`` is of the table at `path`, and not of one that was there before.

    Parameters
    ----------
    path : Path
        The table, ``folds.csv``.
    folds : Series, optional
        The table as `read_fold_table` read it; read here if it is not given.

    Returns
    -------
    bool
        True where nothing is claimed: no ``folds.json``, or one without a hash.
    """
    claimed = read_fold_facts(path).get("hash")
    found = _hash_of_file(Path(path)) if folds is None else fold_table_hash(folds)
    return claimed is None or claimed == found


def fold_table_hash(folds: pd.Series[int]) -> str:
    """Hash of which image is in which fold, whatever the order of the rows."""
    lines = sorted(f"{image_id},{int(fold)}" for image_id, fold in folds.items())
    return hash_bytes("\n".join(lines).encode())


def _hash_of_file(path: Path) -> str | None:
    """Hash of a table; None where there is none that can be read."""
    try:
        return fold_table_hash(read_fold_table(path))
    except FoldError:
        return None


def _fold_number(text: str) -> int | None:
    try:
        fold = int(text)
    except ValueError:
        return None
    return fold if fold >= RESERVED else None


def _numbering_problems(found: set[int]) -> list[str]:
    folds = sorted(found - {RESERVED})
    if len(folds) >= 2 and folds == list(range(len(folds))):
        return []
    return [
        "expected at least two folds, numbered 0, 1, ... without leaving one out; "
        f"found {', '.join(map(str, folds)) or 'none'}"
    ]


def _joined(path: Path, problems: list[str]) -> str:
    rest = len(problems) - _MAX_PROBLEMS
    lines = [f"{path} does not fit its dataset:", *(f"  - {text}" for text in problems)]
    more = [f"  and {rest} more"] if rest > 0 else []
    lines = lines[: 1 + _MAX_PROBLEMS] + more
    return "\n".join([*lines, "Correct it, or make it new with `cellflow folds --overwrite`."])

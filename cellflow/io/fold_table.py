"""``folds.csv``: a plain ``id,fold`` table that people can edit or bring along."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.errors import DataError, FoldError
from cellflow.io.file_names import match_id
from cellflow.io.tables import read_rows, whole_number
from cellflow.storage.atomic import write_csv, write_json
from cellflow.storage.hashing import hash_bytes
from cellflow.storage.records import load_json
from cellflow.types import shorten

__all__ = ["RESERVED", "fold_table_hash", "read_fold_facts", "read_fold_table", "write_fold_table"]

RESERVED = -1
"""Fold of images that are kept out of all folds."""

_MAX_PROBLEMS = 20
_log = logging.getLogger(__name__)
_TEXT_FACTS = ("group", "stratify", "split", "hash")
_FACTS_REMEDY = (
    "Put the original back, make both anew with `cellflow folds --overwrite`, or remove the file if the "
    "table was made by hand."
)
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
        text = f"{path}: there is no fold table. Make one with: cellflow folds --data {shlex.quote(str(path.parent))}"
        raise FoldError(text, path=path)
    folds: dict[str, int] = {}
    known = None if ids is None else set(ids)
    problems: list[str] = []
    try:
        for row in read_rows(path, ("id", "fold"))[1]:
            image_id, fold = row.values["id"], whole_number(row.values["fold"])
            if known is not None and image_id not in known:
                meant = match_id(image_id, known)
                advice = "remove the row" if meant is None else f"write {_quoted(meant)}"
                problems.append(f"line {row.line}: unknown id {_quoted(image_id)}; {advice}")
            elif image_id in folds:
                problems.append(f"line {row.line}: the id {_quoted(image_id)} has a row already")
            elif fold is None or fold < RESERVED:
                problems.append(
                    f"line {row.line}: expected a fold number (0, 1, ... or -1 for reserved), "
                    f"found {_quoted(row.values['fold'], 40)}"
                )
            folds.setdefault(image_id, RESERVED if fold is None else fold)
    except DataError as error:
        raise FoldError(str(error), **error.facts) from error
    problems += [
        f"the image {_quoted(image_id)} has no row; give it a fold, or -1 to keep it out of all"
        for image_id in sorted((known or set()) - folds.keys())
    ]
    if not problems:
        problems = _numbering_problems(set(folds.values()))
    if problems:
        raise FoldError(_joined(path, problems), path=path)
    return pd.Series(folds, dtype="int64", name="fold").rename_axis("id").sort_index()


def write_fold_table(path: Path, folds: pd.Series[int], facts: dict[str, Any]) -> None:
    """Write the table and, beside it as ``folds.json``, how it was made.

    The table comes last: until it is in its place, ``folds.json`` also holds the facts of the table that
    still stands, so that whoever reads after a kill gets the facts that belong to the table there is.
    """
    path = Path(path)
    new = {**facts, "hash": fold_table_hash(folds)}
    standing = _hash_of_file(path)
    before: dict[str, Any] = {}
    with suppress(FoldError):  # facts that are damaged go with the table that is replaced
        before = _facts_file(path)
    replaces = {"facts": before, "hash": standing}
    write_json(path.with_suffix(".json"), new | ({_REPLACES: replaces} if standing else {}))
    write_csv(path, folds.sort_index().rename_axis("id").rename("fold").reset_index())
    if standing:
        write_json(path.with_suffix(".json"), new)


def read_fold_facts(path: Path) -> dict[str, Any]:
    """How the fold table at `path` was made; empty if nobody knows (a table brought along).

    What ``folds.json`` says of another table than the one that is there now does not count, with a
    warning: its kind of split, and that images need no groups, would be taken for those of this one. Where
    the number of folds is the same, the table may have been edited by hand: a column of groups is kept, and
    `edited` is true.

    Raises
    ------
    FoldError
        If ``folds.json`` beside it is damaged: without its column of groups, leaks would go unseen.
    """
    path = Path(path)
    facts = _facts_file(path)
    try:
        folds = read_fold_table(path)
    except FoldError:  # whoever needs the table itself is told what is wrong with it
        return {}
    count = len(set(map(int, folds)) - {RESERVED})
    same_size = count == (2 if facts.get("split") == "holdout" else facts.get("k", count))
    if same_size and facts.get("hash") in (None, fold_table_hash(folds)):
        return facts
    kept = facts.get("group") if same_size else None
    _tell_of_stale_facts(path, fold_table_hash(folds), kept)
    return {} if kept is None else {"group": kept, "edited": True}


def _facts_file(path: Path) -> dict[str, Any]:
    """What ``folds.json`` beside a table says; of the table that stands, where the writing of another ended."""
    file = path.with_suffix(".json")
    try:
        facts = load_json(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FoldError(f"{file}: cannot be read ({error}). {_FACTS_REMEDY}", path=file) from error
    if not isinstance(facts, dict):
        text = f"{file}: expected an object with group, split and hash, found {facts!r:.80}. {_FACTS_REMEDY}"
        raise FoldError(text, path=file, found=facts)
    replaces = facts.pop(_REPLACES, None)
    if isinstance(replaces, dict) and isinstance(replaces.get("facts"), dict):
        standing = _hash_of_file(path)
        if standing == replaces.get("hash") != facts.get("hash"):
            facts = dict(replaces["facts"])  # the writing ended before the new table was there
    for key in _TEXT_FACTS:
        if not isinstance(facts.get(key), str | None):
            text = f"{file}: expected {key} to be a text or null, found {facts[key]!r:.80}. {_FACTS_REMEDY}"
            raise FoldError(text, path=file, found=facts[key])
    return facts


@cache  # once for each state of a file, however many steps of a command read it
def _tell_of_stale_facts(path: Path, table_hash: str, kept: str | None) -> None:
    what = (
        f"all but its column of groups, {kept}, is" if kept else "its groups and kind of split are"
    )
    _log.warning(
        "%s tells of another split than %s holds now (hash %s), so %s left aside. Remove it; or make both "
        "anew with `cellflow folds --group COLUMN --overwrite`; or, if you only moved images by hand, take "
        'the line with "hash" out of it to keep all it says.',
        *(path.with_suffix(".json"), path.name, table_hash, what),
    )


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


def _numbering_problems(found: set[int]) -> list[str]:
    folds = sorted(found - {RESERVED})
    if len(folds) >= 2 and folds == list(range(len(folds))):
        return []
    return [
        "expected at least two folds, numbered 0, 1, ... without leaving one out; "
        f"found {', '.join(map(str, folds)) or 'none'}"
    ]


def _quoted(text: str, length: int = 80) -> str:
    """A value in quotes, short enough for a list of many."""
    return shorten(repr(text), length)


def _joined(path: Path, problems: list[str]) -> str:
    rest = len(problems) - _MAX_PROBLEMS
    lines = [f"{path} does not fit its dataset:", *(f"  - {text}" for text in problems)]
    more = [f"  and {rest} more"] if rest > 0 else []
    lines = lines[: 1 + _MAX_PROBLEMS] + more
    return "\n".join([*lines, "Correct it, or make it new with `cellflow folds --overwrite`."])

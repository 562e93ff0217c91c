"""What every reader of annotated images hands to `cellflow prepare`, and a list of problems."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cellflow.errors import DataError
from cellflow.io.images import IMAGE_SUFFIXES
from cellflow.io.tables import read_rows
from cellflow.storage.sizes import few_text
from cellflow.types import Instances

__all__ = [
    "Problems",
    "Source",
    "SourceImage",
    "check_id",
    "match_id",
    "read_image_table",
]


@dataclass(frozen=True)
class SourceImage:
    """One annotated image where it was found.

    Attributes
    ----------
    id : str
        Name without ending.
    file : Path
        The image.
    read_instances : callable
        From the ``(H, W)`` of the pixels to the cells; raises `DataError` where they do not fit.
    columns : dict of str to str
        What else is known of the image.
    """

    id: str
    file: Path
    read_instances: Callable[[tuple[int, int]], Instances]
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """All images of a source and the layout they were found in."""

    layout: str
    images: list[SourceImage]


class Problems:
    """Collects messages so that one error can report many of them, in one line for each cause."""

    limit = 20

    def __init__(self) -> None:
        self._causes: list[list[tuple[str, str]]] = []

    def add(self, message: object, name: str = "") -> None:
        """Keep a message; at the limit of causes, raise at once.

        Parameters
        ----------
        message : str or error
        name : str
            Whom it is about. Messages that differ in this name and in numbers only have one cause: the
            first is shown, and the names of the others.
        """
        new = str(message), name
        for found in self._causes:
            if _same_cause(found[0], new):
                found.append(new)
                return
        self._causes.append([new])
        if len(self._causes) >= self.limit:
            self.raise_if_any()

    def __len__(self) -> int:
        return sum(len(found) for found in self._causes)

    def raise_if_any(self) -> None:
        """Raise one `DataError` with a line for each cause, if there is one."""
        lines = [_one_line(found) for found in self._causes]
        if len(lines) == 1:
            raise DataError(lines[0])
        if lines:
            head = f"{len(self)} problems:"
            if len(lines) >= self.limit:
                head = f"The first {len(self)} problems:"
            raise DataError("\n".join([head, *(f"  - {text}" for text in lines)]))


def _same_cause(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether two messages, each with the name it is about, say the same of two names."""
    words, others = one[0].split(), other[0].split()
    return len(words) == len(others) and all(
        a == b or _without(a, one[1]) == _without(b, other[1])
        for a, b in zip(words, others, strict=True)
    )


def _without(word: str, name: str) -> str:
    """A word without numbers and without a name, unless that is part of a longer name."""
    if name:
        word = re.sub(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", "<>", word)
    return re.sub(r"[0-9]+", "#", word)


def _one_line(found: list[tuple[str, str]]) -> str:
    text, first = found[0]
    names = sorted({name for _, name in found} - {first})
    if len(found) == 1:
        return text
    others = f" ({few_text(names)})" if names else ""
    return f"{text} The same for {len(found) - 1} more{others}."


def check_id(image_id: str) -> str | None:
    """Say what is wrong with an id as a file name; None if it is fine."""
    if not image_id or image_id != image_id.strip():
        return f"the id {image_id!r} is empty or has blanks around it"
    if any(letter in '/\\:*?"<>|' or not letter.isprintable() for letter in image_id):
        return (
            f"the id {image_id!r} cannot be a file name: it holds one of "
            '/ \\ : * ? " < > | or a control character'
        )
    if image_id[0] == "." or len(image_id.encode()) > 200:
        return f"the id {image_id!r} cannot be a file name: it starts with a dot or is too long"
    return None


def match_id(text: str, known: Iterable[str]) -> str | None:
    """Find an id of a table among the images' ids; `NAME.png` is taken for `NAME`."""
    if text in known:
        return text
    stem, suffix = Path(text).stem, Path(text).suffix.lower()
    return stem if suffix in IMAGE_SUFFIXES and stem in known else None


def read_image_table(
    path: Path, id_column: str, ids: set[str], problems: Problems
) -> dict[str, dict[str, str]]:
    """Read a table of one row per image.

    Returns
    -------
    dict
        From id to the other columns. Unknown, repeated and missing ids go to `problems`.
    """
    _, rows = read_rows(path, (id_column,), options={id_column: "--id_column"})
    table: dict[str, dict[str, str]] = {}
    for row in rows:
        text = row.values.pop(id_column)
        image_id = match_id(text, ids)
        if image_id is None:
            problems.add(
                f"{path} line {row.line}: unknown id {text!r}: no image of that name. "
                "Remove the row or add the image.",
                text,
            )
        elif image_id in table:
            problems.add(f"{path} line {row.line}: the id {text!r} has a row already.", text)
        else:
            table[image_id] = row.values
    for image_id in sorted(ids - table.keys()):
        problems.add(f"{path}: the image {image_id} has no row. Add one.", image_id)
    return table

"""What `cellflow suggest` says at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cellflow.storage.sizes import few_text, plural
from cellflow.types import shorten

__all__ = ["suggestion_text"]

_LETTERS = 32
"""Of an id; the table has the whole of it."""


class Suggestion(Protocol):
    """What was suggested, see `cellflow.engine.prediction.suggest.SuggestResult`."""

    @property
    def page(self) -> Path: ...
    @property
    def table(self) -> Path: ...
    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def looked_at(self) -> int: ...
    @property
    def left_out(self) -> Mapping[str, str]: ...
    @property
    def next(self) -> str: ...


def suggestion_text(result: Suggestion) -> str:
    """Which images to annotate next, what was passed over, and where to look."""
    looked = f"of {plural(result.looked_at, 'image')} that were looked at"
    lines = [
        f"To annotate next, {looked}: {few_text([shorten(name, _LETTERS) for name in result.ids])}"
        if result.ids
        else f"Nothing to annotate {looked}."
    ]
    if result.left_out:
        name, why = next(iter(result.left_out.items()))
        lines.append(
            f"Left out: {plural(len(result.left_out), 'image')} with a copy that is annotated or suggested, such "
            f"as {name}, which {why}"
        )
    lines.append(f"Written: {result.page}, {result.table}")
    if result.ids:
        lines.append(f"Next: {result.next}")
    return "\n".join(lines)

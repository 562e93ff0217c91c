"""What `cellflow pseudo` says at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pandas as pd

from cellflow.storage.sizes import plural
from cellflow.types import shorten

__all__ = ["pseudo_text"]

_LETTERS = 32
"""Of an id; the table has the whole of it."""


class Labelled(Protocol):
    """What was labelled, see `cellflow.engine.prediction.pseudo.PseudoResult`."""

    @property
    def folder(self) -> Path: ...
    @property
    def images(self) -> int: ...
    @property
    def parts(self) -> Mapping[str, pd.DataFrame]: ...
    @property
    def left_out(self) -> Mapping[str, str]: ...
    @property
    def next(self) -> str: ...


def pseudo_text(result: Labelled) -> str:
    """How many cells each fold may learn from, what was passed over, and what to type next."""
    lines = [f"Labelled: {plural(result.images, 'image')}"]
    for part, table in result.parts.items() if result.images else ():
        found, kept = int(table["found"].sum()), int(table["cells"].sum())
        lines.append(
            f"  {part}: {kept} of {found} cells trusted, {table['ignored'].mean():.1%} of the pixels ignored"
        )
    if result.left_out:
        name, why = next(iter(result.left_out.items()))
        lines.append(
            f"Left out: {plural(len(result.left_out), 'image')} of the dataset, such as "
            f"{shorten(name, _LETTERS)}, which {why}"
        )
    lines.append(f"Written: {result.folder}")
    if result.images:
        lines.append(f"Next: {result.next}")
    return "\n".join(lines)

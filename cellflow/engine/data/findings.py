"""What `cellflow verify` found: facts, and a row for everything that is wrong or worth a look."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cellflow.types import one_line

__all__ = ["Finding", "Verification", "in_order"]


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    kind : str
        What it is, in a few words; the same for all of a kind.
    id : str
        Id of the image, or name of the file or fold; empty for the whole.
    reason : str
        What is so of this one.
    wrong : bool
        Whether it is wrong, and not only worth a look.
    cell : int or None
        Number of the cell, from 1, in the order of the source, cells of the same pixels counted once.
    """

    kind: str
    id: str
    reason: str
    wrong: bool = False
    cell: int | None = None


@one_line
@dataclass(frozen=True, eq=False)
class Verification:
    """Everything that was found.

    Attributes
    ----------
    place : Path
        What was read.
    facts : dict of str to str
        What it is, and what was checked, in words, by what it is about.
    findings : tuple of Finding
        In the order in which they are told.
    next : str
        The command that comes next.
    images : DataFrame or None
        Of data a row for each image that can be used, by id: size, channels, dtype, n_instances,
        median_diameter, pixel_hash and the columns of the source.
    group : str or None
        Column of what belongs together.
    """

    place: Path
    facts: dict[str, str]
    findings: tuple[Finding, ...]
    next: str = ""
    images: pd.DataFrame | None = None
    group: str | None = None

    @property
    def problems(self) -> int:
        """How many of the findings are wrong."""
        return sum(item.wrong for item in self.findings)

    @property
    def table(self) -> pd.DataFrame:
        """A row for each finding: kind, verdict ("problem" or "note"), id, cell (empty for none), reason."""
        rows = [
            (
                item.kind, "problem" if item.wrong else "note", item.id,
                "" if item.cell is None else str(item.cell), item.reason,
            )
            for item in self.findings
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=["kind", "verdict", "id", "cell", "reason"])


def in_order(findings: Iterable[Finding], kinds: Iterable[str]) -> tuple[Finding, ...]:
    """Findings sorted by their kinds, problems of a kind first."""
    place = {kind: number for number, kind in enumerate(kinds)}
    return tuple(sorted(findings, key=lambda item: (place[item.kind], not item.wrong)))

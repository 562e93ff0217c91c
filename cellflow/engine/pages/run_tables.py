"""Reading what there is of a run: what is missing is empty, what is damaged is noted, and the rest is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.engine.runs.state import TEXT_COLUMNS
from cellflow.engine.runs.thresholds import Thresholds, read_thresholds
from cellflow.errors import CellflowError
from cellflow.io.tables import read_frame
from cellflow.storage.records import load_json
from cellflow.storage.run_folder import RunFolder

__all__ = []


@dataclass
class RunTables:
    """Files of a run, and what is wrong with those that could not be read.

    Attributes
    ----------
    run : RunFolder
    problems : list of str
        A sentence for each damaged file.
    """

    run: RunFolder
    problems: list[str] = field(default_factory=list)

    def table(self, path: Path, columns: Sequence[str]) -> pd.DataFrame | None:
        """A table with these columns at least; None where there is none that can be read."""
        if not path.exists():
            return None
        try:
            return read_frame(path, list(columns), text=TEXT_COLUMNS)
        except (CellflowError, OSError) as error:
            self._note(path, error)
            return None

    def grid(self, path: Path) -> pd.DataFrame | None:
        """A table as text, whose columns may have the same name; None where there is none that can be read."""
        if not path.exists():
            return None
        try:
            found = pd.read_csv(path, header=None, dtype=str, keep_default_na=False)
        except (ValueError, OSError) as error:  # the errors of pandas are of the first kind
            self._note(path, error)
            return None
        rows = found.iloc[1:].reset_index(drop=True)
        return rows.set_axis([str(name) for name in found.iloc[0]], axis="columns")

    def json(self, path: Path) -> dict[str, Any]:
        """An object; empty where there is none that can be read."""
        if not path.exists():
            return {}
        try:
            found = load_json(path, parse_constant=lambda _: None)
        except (OSError, ValueError) as error:
            self._note(path, error)
            return {}
        if isinstance(found, dict):
            return found
        self._note(path, f"expected an object, found {type(found).__name__}")
        return {}

    def thresholds(self, path: Path) -> Thresholds | None:
        """Calibrated thresholds; None where there are none that can be read."""
        if not path.exists():
            return None
        try:
            return read_thresholds(path)
        except CellflowError as error:
            self._note(path, error)
            return None

    def record(self) -> dict[str, Any]:
        """What the run was started with; empty where that cannot be read."""
        try:
            return self.run.read_record()
        except CellflowError as error:
            self._note(self.run.record_path, error)
            return {}

    def _note(self, path: Path, why: object) -> None:
        text = str(why)
        name = str(path)
        if path.is_relative_to(self.run.path):
            name = path.relative_to(self.run.path).as_posix()
        short = text.replace(str(path), name)
        self.problems.append(short if name in short else f"{name}: {short}")

"""Reading what there is of a run: what is missing is empty, what is damaged is noted, and the rest is shown.

And what was made with its models besides its cross-validation: calibrated ensembles, predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from cellflow.engine.runs.state import TEXT_COLUMNS
from cellflow.engine.runs.thresholds import ALL_TYPES, Thresholds, read_thresholds
from cellflow.errors import CellflowError
from cellflow.io.tables import read_frame
from cellflow.storage.records import dict_or_empty, load_json, number_or_none
from cellflow.storage.run_folder import RunFolder

__all__ = []

Row = dict[str, Any]
Found = TypeVar("Found")
Empty = TypeVar("Empty")


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
        return self._read(
            path, lambda path: read_frame(path, list(columns), text=TEXT_COLUMNS), None
        )

    def grid(self, path: Path) -> pd.DataFrame | None:
        """A table as text, whose columns may have the same name; None where there is none that can be read."""
        found = self._read(
            path,
            lambda path: pd.read_csv(path, header=None, dtype=str, keep_default_na=False),
            None,
        )
        if found is None:
            return None
        rows = found.iloc[1:].reset_index(drop=True)
        return rows.set_axis([str(name) for name in found.iloc[0]], axis="columns")

    def json(self, path: Path) -> dict[str, Any]:
        """An object; empty where there is none that can be read."""
        found: Any = self._read(path, partial(load_json, parse_constant=lambda _: None), {})
        if isinstance(found, dict):
            return found
        self._note(path, f"expected an object, found {type(found).__name__}")
        return {}

    def thresholds(self, path: Path) -> Thresholds | None:
        """Calibrated thresholds; None where there are none that can be read."""
        return self._read(path, read_thresholds, None)

    def record(self) -> dict[str, Any]:
        """What the run was started with; empty where that cannot be read."""
        try:
            return self.run.read_record()
        except CellflowError as error:
            self._note(self.run.record_path, error)
            return {}

    def _read(self, path: Path, read: Callable[[Path], Found], empty: Empty) -> Found | Empty:
        """What a file holds; `empty`, and a note, where it cannot be read."""
        if path.exists():
            try:
                return read(path)
            except (CellflowError, OSError, ValueError) as error:
                self._note(path, error)
        return empty

    def _note(self, path: Path, why: object) -> None:
        text = str(why)
        name = str(path)
        if path.is_relative_to(self.run.path):
            name = path.relative_to(self.run.path).as_posix()
        short = text.replace(str(path), name)
        self.problems.append(short if name in short else f"{name}: {short}")


def ensemble_rows(files: RunTables, folder: Path, hashes: AbstractSet[str]) -> list[Row]:
    """Calibrated ensembles that have a model of the run for a member, with single models on the same images."""
    rows = []
    for path in sorted(folder.glob("*/ensemble.json")):
        found = files.thresholds(path)
        if found is not None and hashes & set(found.members):
            rows.append(_ensemble_row(path.parent.name, found))
    return rows


def _ensemble_row(name: str, found: Thresholds) -> Row:
    scores = dict_or_empty(dict_or_empty(found.facts.get("scores")).get(ALL_TYPES))
    single = dict_or_empty(found.facts.get("against_single"))
    keys = ("ensemble", "single", "difference", "low", "high")
    return {
        "name": name,
        "members": len(found.members),
        "images": number_or_none(scores.get("images")),
        "ensemble": number_or_none(scores.get("cross_fitted")),
        "average": found.facts.get("average"),
        "source": found.source,
        **{key: number_or_none(single[key]) for key in keys if key in single},
    }


def prediction_rows(files: RunTables, folder: Path, hashes: AbstractSet[str]) -> list[Row]:
    """Results of predictions that have a model of the run for a member, from their records."""
    rows = []
    for path in sorted(folder.glob("*/prediction.json")):
        found = files.json(path)
        identity = dict_or_empty(found.get("identity"))
        members = identity.get("members")
        used = [dict_or_empty(item) for item in members] if isinstance(members, list) else []
        if not any(item.get("hash") in hashes for item in used):
            continue
        cells = dict_or_empty(found.get("cells"))
        images = identity.get("images")
        rows.append(
            {
                "name": path.parent.name,
                "images": len(cells),
                "cells": sum(int(number_or_none(count) or 0) for count in cells.values()),
                "members": len(used),
                "of": images if isinstance(images, str) else "several folders",
                "thresholds": dict_or_empty(identity.get("thresholds")).get("source"),
            }
        )
    return rows

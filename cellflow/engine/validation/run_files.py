"""What the files of a run say, while `cellflow verify` looks at them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from cellflow.engine.data.findings import Finding
from cellflow.io.dataset import Dataset
from cellflow.storage.run_folder import RunFolder

__all__ = ["RunFiles"]


@dataclass
class RunFiles:
    """What the files of a run say, and what was found on the way.

    Attributes
    ----------
    run : RunFolder
    record : dict
        What it was started with.
    folds : Series
        Fold of every image, by id.
    dataset : Dataset or None
        The data, where they are still there and are those of the run.
    models, facts : dict
        By fold: hash of the model file, and what it says of itself.
    findings : list of Finding
    """

    run: RunFolder
    record: dict[str, Any]
    folds: pd.Series[int]
    dataset: Dataset | None = None
    models: dict[int, str] = field(default_factory=dict)
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def rows(self) -> list[str]:
        """Images of the folds that have a model, by fold."""
        return [name for fold in self.models for name in self.of(fold)]

    def of(self, fold: int) -> list[str]:
        """Images of a fold."""
        return [str(name) for name in self.folds.index[self.folds == fold]]

    def wrong(self, kind: str, name: str, reason: object) -> None:
        """Add something that is wrong."""
        self.findings.append(Finding(kind, name, str(reason), wrong=True))

    def note(self, name: str, reason: object) -> None:
        """Add something that is not there."""
        self.findings.append(Finding("not there", name, str(reason)))

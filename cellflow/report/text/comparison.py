"""Two runs beside each other, as `cellflow compare` prints them."""

from __future__ import annotations

from typing import Protocol

import pandas as pd

from cellflow.report.text.score import metrics_text

__all__ = ["comparison_text"]


class Comparison(Protocol):
    """How run B compares with run A, see `cellflow.engine.validation.compare_runs.Comparison`."""

    @property
    def a(self) -> str: ...
    @property
    def b(self) -> str: ...
    @property
    def config(self) -> tuple[str, ...]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def table(self) -> pd.DataFrame: ...
    @property
    def conclusions(self) -> tuple[str, ...]: ...
    @property
    def metrics(self) -> pd.DataFrame: ...


def comparison_text(comparison: Comparison) -> str:
    """What differs in how they were made, what to mind, the scores, and what follows."""
    lines = [f"A  {comparison.a}", f"B  {comparison.b}", "", "settings (A -> B):"]
    lines += [f"  {line}" for line in comparison.config or ("the same",)]
    if comparison.notes:
        lines += ["", "mind:", *(f"  {note}" for note in comparison.notes)]
    if len(comparison.table):
        shown = comparison.table.dropna(axis="columns", how="all")
        lines += ["", shown.to_string(index=False, float_format="{:.4f}".format, na_rep="-")]
    if len(comparison.metrics):
        lines += ["", "more metrics of the out-of-fold masks: B, versus A", ""]
        lines.append(metrics_text(comparison.metrics))
    return "\n".join([*lines, *([""] if comparison.conclusions else []), *comparison.conclusions])

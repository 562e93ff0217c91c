"""Two runs beside each other, as `cellflow compare` prints them."""

from __future__ import annotations

from typing import Any

from cellflow.report.text.score import metrics_text

__all__ = ["comparison_text"]


def comparison_text(comparison: Any) -> str:
    """A `Comparison` of two runs: what differs in how they were made, what to mind, the scores, and what follows."""
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

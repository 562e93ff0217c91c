"""The runs of a folder, as `cellflow runs` prints them."""

from __future__ import annotations

from typing import Any

import pandas as pd

__all__ = ["runs_text"]


def runs_text(table: pd.DataFrame) -> str:
    """The table for people; columns that say nothing are left out."""
    if table.empty:
        return "no runs"
    shown = pd.DataFrame({"name": table["name"].where(~table["debug"], table["name"] + " (debug)")})
    shown["status"] = table["status"]
    shown["raw"] = table["cv_raw"].map(_score)
    shown["post"] = table["cv_post"].map(_score)
    shown["95 %"] = [
        f"{low:.3f} to {high:.3f}" if pd.notna(low) else ""
        for low, high in zip(table["low"], table["high"], strict=True)
    ]
    shown["best val"] = [
        "" if pd.notna(cv) or pd.isna(best) else f"{best:.4f} ({scored} of {folds} folds)"
        for cv, best, scored, folds in zip(
            table["cv_raw"], table["best_val"], table["folds_scored"], table["folds"], strict=True
        )
    ]
    shown["date"] = table["date"].str.slice(0, 16).str.replace("T", " ")
    shown["host"], shown["comment"] = table["host"], table["comment"].map(_one_line)
    shown = shown.loc[:, [bool(shown[name].any()) for name in shown]]
    lines = shown.to_string(index=False, justify="left", formatters=_padded(shown)).splitlines()
    broken = table[table["problem"] != ""]
    notes = [f"{row['name']}: {row['problem']}" for row in broken.to_dict("records")]
    return "\n".join(line.rstrip() for line in [*lines, *notes])


def _score(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.4f}"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."


def _padded(table: pd.DataFrame) -> dict[str, Any]:
    """Left-justified columns."""
    widths = {name: max(len(str(name)), int(table[name].str.len().max())) for name in table}
    return {str(name): f"{{:<{width}}}".format for name, width in widths.items()}

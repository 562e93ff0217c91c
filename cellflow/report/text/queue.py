"""The experiments of a queue, as `cellflow queue` prints them."""

from __future__ import annotations

import pandas as pd

from cellflow.report.text.table import number

__all__ = ["queue_text"]


def queue_text(table: pd.DataFrame) -> str:
    """A row per experiment, without its log."""
    return table.drop(columns=["log"]).to_string(
        index=False,
        float_format="{:.4f}".format,
        na_rep="-",
        formatters={"minutes": lambda value: number(value, 1)},
    )

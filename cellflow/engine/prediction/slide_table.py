"""``slides.csv``: a row per slide that lies in a result."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cellflow.engine.slides.predict_slide import RECORD
from cellflow.storage.atomic import write_csv
from cellflow.storage.records import dict_or_empty, number_or_none, read_json

__all__ = ["SLIDES", "TABLE", "write_slide_table"]

SLIDES, TABLE = "slides", "slides.csv"
"""Folder of the slides' own folders in a result, and the table beside it."""
_COLUMNS = ["id", "cells", "blocks", "failed_blocks", "pixels", "seconds"]


def write_slide_table(folder: Path) -> None:
    """Write what the records of all slides in a result say: of this command and of earlier ones.

    ``seconds`` are those of the command that finished the slide.
    """
    records = {
        path.parent.name: record
        for path in sorted((folder / SLIDES).glob(f"*/{RECORD}"))
        if (record := read_json(path)) is not None
    }
    if not records:
        (folder / TABLE).unlink(missing_ok=True)
        return
    rows = []
    for name, record in records.items():
        seconds = map(number_or_none, dict_or_empty(record.get("seconds")).values())
        rows.append(
            (
                name, record["cells"], record["blocks"], len(dict_or_empty(record.get("failed"))),
                record["pixels"], f"{sum(value or 0.0 for value in seconds):.2f}",
            )
        )  # fmt: skip
    write_csv(folder / TABLE, pd.DataFrame(rows, columns=_COLUMNS, dtype=object))

"""What `cellflow score` prints."""

from __future__ import annotations

from typing import Protocol

import pandas as pd

from cellflow.report.text.cv import RATES_KEY
from cellflow.report.text.table import interval, key_text, number, text_table
from cellflow.storage.sizes import type_text

__all__ = ["score_text"]

WORST = 5
"""Images that are listed."""
_KEY = {
    "score": "mean precision over IoU 0.50, 0.55 ... 0.95 (the competition's metric)",
    "interval": "whole groups drawn anew",
    **RATES_KEY,
}
"""What the columns of scores mean."""


class Scores(Protocol):
    """Scores of masks, see `cellflow.engine.validation.score_masks.ScoreResult`."""

    @property
    def compared(self) -> tuple[str, ...]: ...
    @property
    def table(self) -> pd.DataFrame: ...
    @property
    def versus(self) -> str | None: ...
    @property
    def conclusion(self) -> str: ...
    @property
    def worst(self) -> pd.DataFrame: ...


def score_text(result: Scores) -> str:
    """A result for people: what was compared, scores with what they mean, the worst images."""
    blocks = ["\n".join(result.compared), _scores(result.table), key_text(_KEY)]
    if result.versus is not None:
        blocks += [_differences(result.table), result.conclusion]
    if len(result.worst):
        blocks.append(_worst(result.worst))
    return "\n\n".join(block for block in blocks if block)


def _scores(table: pd.DataFrame) -> str:
    rows = [["", "images", "score", "95 % interval", "AP 0.5", "precision", "recall", "F1"]]
    for row in table.to_dict("records"):
        score = [number(row["score"]), interval(row["low"], row["high"])]
        rates = [number(row[key], 3) for key in ("ap50", "precision", "recall", "f1")]
        rows.append([type_text(row["name"]), str(row["images"]), *score, *rates])
    return text_table(rows)


def _differences(table: pd.DataFrame) -> str:
    rows = [["", "groups", "score", "versus", "difference", "95 % interval", "verdict"]]
    for row in table.to_dict("records"):
        rows.append(
            [
                type_text(row["name"]),
                str(row["groups"]),
                number(row["score"]),
                number(row["score_versus"]),
                f"{row['difference']:+.4f}",
                interval(row["difference_low"], row["difference_high"], "+"),
                row["verdict"],
            ]
        )
    return text_table(rows)


def _worst(images: pd.DataFrame) -> str:
    rows = [["score", "true", "found", "missed", "false", "worst images"]]
    for row in images.head(WORST).to_dict("records"):
        counts = [str(row[key]) for key in ("n_true", "n_found", "n_missed", "n_false")]
        rows.append([number(row["score"]), *counts, row["id"]])
    return text_table(rows, left=5)

"""What `cellflow score` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pandas as pd

from cellflow.config.metrics import MEANINGS
from cellflow.report.text.cv import RATES_KEY
from cellflow.report.text.table import interval, key_text, number, text_table
from cellflow.storage.sizes import type_text

__all__ = ["metrics_text", "score_text"]

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
    def metrics(self) -> pd.DataFrame: ...
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
    blocks.append(metrics_text(result.metrics))
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
        scores = [number(row["score"]), number(row["score_versus"]), f"{row['difference']:+.4f}"]
        ends = interval(row["difference_low"], row["difference_high"], "+")
        rows.append([type_text(row["name"]), str(row["groups"]), *scores, ends, row["verdict"]])
    return text_table(rows)


def metrics_text(table: pd.DataFrame) -> str:
    """Other metrics with what they mean, and how two predictions differ in them; empty without any."""
    if table.empty:
        return ""
    blocks = [_metrics(table), _metrics_key(table)]
    if "difference" in table:
        blocks.append(_metric_differences(table))
    return "\n\n".join(blocks)


def _metrics(table: pd.DataFrame) -> str:
    """Other metrics, cell type by cell type."""
    rows = [["METRIC", "images", "mean", "95 % interval", "pooled"]]
    for row in table.to_dict("records"):
        means = [number(row["mean"]), interval(row["low"], row["high"]), number(row["pooled"])]
        rows.append([_metric_name(row), str(row["images"]), *means])
    return text_table(rows)


def _metric_name(row: Mapping[Any, Any]) -> str:
    """A metric, with the cell type where it is that of one."""
    kind = f" {type_text(row['name'])}" if row["scope"] == "cell_type" else ""
    return f"{row['metric']}{kind}"


def _metrics_key(table: pd.DataFrame) -> str:
    """What they are."""
    width = max(map(len, [*table["metric"], "pooled"])) + 2
    lines = [f"{name:<{width}}{MEANINGS[name]}" for name in dict.fromkeys(table["metric"])]
    lines.append(f"{'mean':<{width}}over images; interval: whole groups drawn anew")
    lines.append(f"{'pooled':<{width}}the cells of all images counted together")
    return "\n".join(lines)


def _metric_differences(table: pd.DataFrame) -> str:
    """The same of what it is compared with, and the differences of the means."""
    rows = [["VERSUS", "mean", "pooled", "difference", "95 % interval", "verdict"]]
    for row in table.to_dict("records"):
        means = [number(row["mean_versus"]), number(row["pooled_versus"])]
        means.append(number(row["difference"], sign="+"))
        means.append(interval(row["difference_low"], row["difference_high"], "+"))
        rows.append([_metric_name(row), *means, row["verdict"] or "-"])
    return text_table(rows)


def _worst(images: pd.DataFrame) -> str:
    rows = [["score", "true", "found", "missed", "false", "worst images"]]
    for row in images.head(WORST).to_dict("records"):
        counts = [str(row[key]) for key in ("n_true", "n_found", "n_missed", "n_false")]
        rows.append([number(row["score"]), *counts, row["id"]])
    return text_table(rows, left=5)

"""Where a run was trained, how long that took, and with which settings: rows of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cellflow.config import config_to_dict
from cellflow.config.recipes import plain_training
from cellflow.engine.runs.run_records import with_later_settings
from cellflow.report.pages.run_facts import FoldFacts
from cellflow.storage.plain_values import flatten
from cellflow.storage.records import dict_or_empty, number_or_none
from cellflow.storage.sizes import duration_text, size_text

__all__ = []

Row = dict[str, Any]


def machine_rows(host: Mapping[str, Any], record: Mapping[str, Any]) -> list[Row]:
    """What `environment.json` says of the machine of the last training."""
    amp, memory = dict_or_empty(host.get("amp")), number_or_none(host.get("usable_memory"))
    items = dict_or_empty(host.get("versions")) or dict_or_empty(record.get("versions"))
    gpus = host.get("gpus")
    rows = {
        "machine": host.get("environment"),
        "system": host.get("platform"),
        "processor": host.get("cpu"),
        "cores": host.get("usable_cores"),
        "memory": None if memory is None else size_text(memory),
        "GPUs": _gpus_text(gpus) if isinstance(gpus, list) else None,
        "precision": amp.get("type"),
        "why": amp.get("reason"),
        "Python": host.get("python"),
        "commit": _commit_text(host),
        **{name: items.get(name) for name in ("cellflow", "torch", "numpy", "numba")},
    }
    return [{"name": name, "value": value} for name, value in rows.items() if value is not None]


def _gpus_text(gpus: Sequence[Any]) -> str:
    names = [str(dict_or_empty(gpu).get("name", gpu)) for gpu in gpus]
    return ", ".join(names) or "none"


def _commit_text(host: Mapping[str, Any]) -> str | None:
    commit = host.get("commit")
    if not isinstance(commit, str):
        return None
    return commit[:12] + (", with changes" if host.get("dirty") else "")


def time_rows(folds: Sequence[FoldFacts]) -> list[Row]:
    """A row for each fold that has begun, and their sum, from `history.csv`."""
    rows = [_time_row(item) for item in folds if len(item.history)]
    if len(rows) > 1:
        total = sum(row["seconds"] for row in rows)
        epochs = sum(row["epochs"] or 0 for row in rows)
        rows.append(
            {"fold": "all", "epochs": epochs, "seconds": total, "time": duration_text(total)}
        )
    return rows


def _time_row(item: FoldFacts) -> Row:
    history = item.history
    seconds = float(_column(history, "seconds").sum())
    waited = float(_column(history, "waited").sum())
    trained = int((_column(history, "epoch") > 0).sum())
    return {
        "fold": str(item.fold),
        "epochs": trained,
        "seconds": seconds,
        "time": duration_text(seconds),
        "epoch": seconds / trained if trained else None,
        "speed": float(_column(history, "images_per_second").median()),
        "waited": 100 * waited / seconds if seconds else None,
    }


def _column(table: pd.DataFrame, name: str) -> pd.Series[float]:
    if name not in table:
        return pd.Series([float("nan")] * len(table))
    return pd.to_numeric(table[name], errors="coerce")


def setting_rows(record: Mapping[str, Any]) -> list[Row]:
    """Every setting of the record, with what Cellpose's recipe takes, or else the default."""
    config = dict_or_empty(record.get("config"))
    if not config:
        return []
    given = dict(flatten(with_later_settings(config)))
    usual = dict(flatten(config_to_dict(plain_training())))
    return [
        {
            "name": name,
            "value": _text(value),
            "default": _text(usual.get(name)),
            "changed": value != usual.get(name),
        }
        for name, value in given.items()
    ]


def _text(value: Any) -> str:
    return "by itself" if value is None else str(value)

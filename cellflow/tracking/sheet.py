"""A row per fold and one per run in a Google Sheet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cellflow.config.checks import config_to_dict
from cellflow.config.recipes import plain_training
from cellflow.storage.plain_values import flatten, round_score
from cellflow.storage.records import dict_or_empty
from cellflow.tracking.sheet_table import Row, SheetTable
from cellflow.tracking.tracker import Links, Tracker

__all__ = ["COLUMNS", "SheetTracker"]

COLUMNS = (
    "date", "comment", "model", "fold", "experiment", "CV raw", "CV with post-processing", "public LB",
    "configuration", "submission link", "environment", "run link", "run id",
)  # fmt: skip
"""Columns of the sheet. "public LB" is for a person and is never written. "run id" tells rows apart."""

_ALL = "all"
_NOT_SHOWN = (
    "data", "runs_dir", "savedir", "name", "fold", "runtime", "time_budget", "dry_run", "tracking",
)  # fmt: skip
"""Where a run lies, what it runs on and where it is recorded is no part of its configuration."""
_LONGEST = 5000
_KEPT = frozenset({"date"})


class SheetTracker(Tracker):
    """Keeps the rows of a run in a Google Sheet up to date.

    Rows are found by their run id, made from the run's uid; where a person has emptied that cell, by
    experiment and fold. Nothing known is ever overwritten by nothing.

    Parameters
    ----------
    target : str
        URL or name of the sheet.
    experiment : str
        Name of the run.
    uid : str
        What run ids begin with; the same after a resume.
    """

    name = "sheet"
    advice = "check the network, and that the sheet is shared with the account of the credentials"

    def __init__(self, target: str, *, experiment: str, uid: str):
        self._experiment, self._uid = experiment, uid
        self._table = SheetTable(target, COLUMNS, key="run id")

    def start_fold(self, fold: int, start: Mapping[str, Any]) -> None:
        """Add or update the row of a fold."""
        values = _values(start, "started", start.get("network"), f"fold_{fold}")
        self._table.upsert([self._row(fold, values)])

    def end_fold(self, fold: int, summary: Mapping[str, Any], model: Path) -> None:
        """Write the best score of a fold."""
        score = round_score(summary.get("best_score"))
        self._table.upsert([self._row(fold, {"CV raw": score})])

    def update_run(self, metadata: Mapping[str, Any]) -> None:
        """Add or update the row of the run, and those of its folds."""
        rows = {_ALL: _run_values(metadata)} | dict(_fold_values(metadata))
        self._table.upsert([self._row(fold, values) for fold, values in rows.items()])

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """As `update_run`."""
        self.update_run(metadata)

    def links(self) -> Links:
        """URL of the sheet."""
        return {"sheet": self._table.url} if self._table.url else {}

    def _row(self, fold: int | str, values: Mapping[str, Any]) -> Row:
        identity = {"fold": fold, "experiment": self._experiment}
        key = f"{self._uid}-{fold if fold == _ALL else f'fold_{fold}'}"
        same = {name: str(value) for name, value in identity.items()}
        filled = {name: value if value != "" else None for name, value in values.items()}
        return Row(key, identity | filled, same=same, keep=_KEPT)


def _values(facts: Mapping[str, Any], date: str, network: Any, which: str) -> dict[str, Any]:
    """What a fold that starts and a run that has come further both tell."""
    config = facts.get("config") or {}
    return {
        "date": _date(facts.get(date)),
        "comment": facts.get("comment"),
        "model": _model(config, network),
        "configuration": _configuration(config),
        "environment": facts.get("environment"),
        "run link": _wandb_link(facts, which),
    }


def _run_values(metadata: Mapping[str, Any]) -> dict[str, Any]:
    cv, network = metadata.get("cv") or {}, (metadata.get("model") or {}).get("network")
    return _values(metadata, "created", network, "run") | {
        "CV raw": round_score(cv.get("raw")),
        "CV with post-processing": round_score(cv.get("post")),
        "submission link": (metadata.get("publication") or {}).get("url"),
    }


def _fold_values(metadata: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Values of each fold that has got as far as a score."""
    shared = _run_values(metadata)
    scores = (metadata.get("cv") or {}).get("per_fold") or {}
    for item in (metadata.get("model") or {}).get("folds") or []:
        fold = item.get("fold")
        cv = scores.get(str(fold)) or {}
        raw = cv.get("best_epoch")
        values = {
            "CV raw": round_score(item.get("score") if raw is None else raw),
            "CV with post-processing": round_score(cv.get("cross_fitted")),
            "run link": _wandb_link(metadata, f"fold_{fold}"),
        }
        if values["CV raw"] is not None:
            yield fold, shared | values


def _date(text: Any) -> str | None:
    """Day and minute of an ISO time."""
    return text[:16].replace("T", " ") if isinstance(text, str) else None


def _model(config: Mapping[str, Any], network: Any) -> str:
    start = str((config.get("model") or {}).get("pretrained_model") or "none")
    return str(network) if start.lower() == "none" else f"{network} from {Path(start).name}"


def _configuration(config: Mapping[str, Any]) -> str:
    """What differs from Cellpose's recipe and the other defaults, as flags are named."""
    usual = dict(flatten(config_to_dict(plain_training())))
    shown = {name: value for name, value in config.items() if name not in _NOT_SHOWN}
    given = [
        f"{name.rpartition('.')[2]}={value}"
        for name, value in flatten(shown)
        if value is not None and usual.get(name) != value
    ]
    return (", ".join(given) or "Cellpose's recipe")[:_LONGEST]


def _wandb_link(facts: Mapping[str, Any], which: str) -> str | None:
    return dict_or_empty((facts.get("trackers") or {}).get("wandb")).get(which)

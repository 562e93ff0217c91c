"""What was made with the models of a run besides its cross-validation: calibrated ensembles, predictions."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from cellflow.engine.pages.run_tables import RunTables
from cellflow.engine.runs.thresholds import ALL_TYPES, Thresholds
from cellflow.storage.records import dict_or_empty, number_or_none

__all__ = []

Row = dict[str, Any]


def ensemble_rows(files: RunTables, folder: Path, hashes: AbstractSet[str]) -> list[Row]:
    """Calibrated ensembles that have a model of the run for a member, with single models on the same images."""
    rows = []
    for path in sorted(folder.glob("*/ensemble.json")):
        found = files.thresholds(path)
        if found is not None and hashes & set(found.members):
            rows.append(_ensemble_row(path.parent.name, found))
    return rows


def _ensemble_row(name: str, found: Thresholds) -> Row:
    scores = dict_or_empty(dict_or_empty(found.facts.get("scores")).get(ALL_TYPES))
    single = dict_or_empty(found.facts.get("against_single"))
    keys = ("ensemble", "single", "difference", "low", "high")
    return {
        "name": name,
        "members": len(found.members),
        "images": number_or_none(scores.get("images")),
        "ensemble": number_or_none(scores.get("cross_fitted")),
        "average": found.facts.get("average"),
        "source": found.source,
        **{key: number_or_none(single[key]) for key in keys if key in single},
    }


def prediction_rows(files: RunTables, folder: Path, hashes: AbstractSet[str]) -> list[Row]:
    """Results of predictions that have a model of the run for a member, from their records."""
    rows = []
    for path in sorted(folder.glob("*/prediction.json")):
        found = files.json(path)
        identity = dict_or_empty(found.get("identity"))
        members = identity.get("members")
        used = [dict_or_empty(item) for item in members] if isinstance(members, list) else []
        if not any(item.get("hash") in hashes for item in used):
            continue
        cells = dict_or_empty(found.get("cells"))
        images = identity.get("images")
        rows.append(
            {
                "name": path.parent.name,
                "images": len(cells),
                "cells": sum(int(number_or_none(count) or 0) for count in cells.values()),
                "members": len(used),
                "of": images if isinstance(images, str) else "several folders",
                "thresholds": dict_or_empty(identity.get("thresholds")).get("source"),
            }
        )
    return rows

"""Defaults that suit the host, below config files and flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellflow.config import RuntimeConfig
from cellflow.environment import detect_host, host_defaults, take_snapshot

__all__ = ["with_host_defaults"]


def with_host_defaults(config: Any, command: str) -> Any:
    """A config of defaults with the places and workers of the host, where they are not the plain ones.

    Parameters
    ----------
    config : dataclass instance
        Defaults.
    command : str
        What they are for: `prepare` writes a dataset where all others read one.
    """
    snapshot = take_snapshot(quick=True)
    found = host_defaults(detect_host(snapshot), snapshot)
    places = {
        "cellflow-data": found.data_out if command == "prepare" else found.data,
        "runs": found.runs_dir,
        "predictions": found.predictions_dir,
        "ensembles": found.ensembles_dir,
        "queues": found.runs_dir.parent / "queues",
    }
    return _replaced(config, {Path(plain): place for plain, place in places.items()}, found.workers)


def _replaced(config: Any, places: Mapping[Path, Path], workers: int | None) -> Any:
    """A config with plain default places exchanged, in the groups inside it too."""
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            changes[item.name] = _replaced(value, places, workers)
        elif isinstance(value, Path):
            changes[item.name] = places.get(value, value)
        elif isinstance(config, RuntimeConfig) and item.name == "workers":
            changes[item.name] = workers
    return dataclasses.replace(config, **changes)

"""Whether the folders of two runs and of their data hold the same, times apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from cellflow.nn.checkpoint import load_state
from cellflow.storage.locks import is_locked
from cellflow.storage.run_folder import RunFolder

TIMES = ("images_per_second", "seconds", "waited")


def without_times(value: Any) -> Any:
    """A state without what depends on time."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def is_same(one: Any, other: Any) -> bool:
    """Whether two states are the same to the bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return repr(one) == repr(other)


def files_of(data: Path, run: RunFolder) -> dict[str, Any]:
    """Everything in the folder of a run and in that of its data; what depends on time is only named."""
    found: dict[str, Any] = {}
    for top in (run.path, data):
        for path in sorted(top.rglob("*")):
            if path.is_file():
                found[f"{top.name}/{path.relative_to(top)}"] = content(path)
    return found


def content(path: Path) -> Any:
    """What is compared of a file."""
    if path.name == "last.pt":
        return without_times(load_state(path))
    if path.name == "history.csv":
        return pd.read_csv(path).drop(columns=list(TIMES)).to_csv()
    if path.name == "train.yaml":  # the first two say where
        said = yaml.safe_load(path.read_text())
        return {key: said[key] for key in said if key not in ("runs_dir", "scheduler")}
    is_of_the_day = path.name in (
        "log.txt", "events.jsonl", "metadata.json", "tracking.json", "environment.json", "history.png", ".lock",
    )  # fmt: skip
    return None if is_of_the_day else path.read_bytes()


def differences(data: Path, run: RunFolder, expected: dict[str, Any]) -> list[str]:
    """In what a run is not as it should be."""
    found = files_of(data, run)
    wrong = [f"{name} is left over" for name in sorted(found.keys() - expected.keys())]
    wrong += [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    both = sorted(found.keys() & expected.keys())
    wrong += [f"{name} differs" for name in both if not is_same(found[name], expected[name])]
    wrong += [f"{path} is held" for path in run.path.rglob(".lock*") if is_locked(path)]
    return wrong

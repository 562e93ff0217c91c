"""Whether two trainings ended the same."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

from cellflow.nn.checkpoint import load_model_file, load_state
from cellflow.storage.run_folder import FoldFolder

TIMING = ["images_per_second", "seconds", "waited"]


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two states differ, timing apart."""
    if isinstance(one, dict):
        keys = [key for key in one.keys() | other.keys() if key not in TIMING]
        return [
            line
            for key in keys
            for line in differences(one.get(key), other.get(key), f"{path}/{key}")
        ]
    if isinstance(one, list):
        if len(one) != len(other):
            return [f"{path}: {len(one)} and {len(other)} items"]
        pairs = enumerate(zip(one, other, strict=True))
        return [line for place, (a, b) in pairs for line in differences(a, b, f"{path}/{place}")]
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [path]
    return [] if one == other or (one != one and other != other) else [f"{path}: {one} {other}"]


def assert_equal_runs(ours: FoldFolder, theirs: FoldFolder) -> None:
    assert differences(load_state(ours.last), load_state(theirs.last)) == []
    tables = [pd.read_csv(item.history).drop(columns=TIMING) for item in (ours, theirs)]
    pd.testing.assert_frame_equal(*tables)
    assert ours.evaluations.read_text() == theirs.evaluations.read_text()
    models = [load_model_file(item.best) for item in (ours, theirs)]
    assert differences(models[0].facts, models[1].facts) == []
    assert differences(dict(models[0].net.state_dict()), dict(models[1].net.state_dict())) == []

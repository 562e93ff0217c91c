from __future__ import annotations

import json
from pathlib import Path

import pytest

from cellflow.config import MaskConfig, MaskOverrides
from cellflow.engine.runs.thresholds import Thresholds, read_thresholds, write_thresholds
from cellflow.errors import RunError

THRESHOLDS = Thresholds(
    MaskConfig(cellprob_threshold=-0.5),
    {"cort": MaskConfig(flow_threshold=0.0, min_size=90, fill_holes=False)},
    "a test",
    ("abc", "def"),
    "type",
    None,
    {"scores": {"all": {"images": 3}}},
)


def test_round_trip(tmp_path: Path) -> None:
    write_thresholds(tmp_path / "t.json", THRESHOLDS)
    assert read_thresholds(tmp_path / "t.json") == THRESHOLDS


def test_which_apply() -> None:
    assert THRESHOLDS.of("cort").min_size == 90
    assert THRESHOLDS.of("astro") == THRESHOLDS.of("") == THRESHOLDS.shared
    given = THRESHOLDS.override(MaskOverrides(min_size=7))
    assert given.of("cort") == MaskConfig(flow_threshold=0.0, min_size=7, fill_holes=False)
    assert given.shared == MaskConfig(cellprob_threshold=-0.5, min_size=7)
    assert given.source == "a test; given: min_size 7"
    assert THRESHOLDS.override(MaskOverrides()) == THRESHOLDS


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": "other"}, "expected the schema cellflow-thresholds"),
        ({"version": 99}, "found cellflow-thresholds of version 99"),
        ({"shared": {"no_such": 1}}, "no_such"),
        ({"shared": {"flow_threshold": -1.0}}, "--flow_threshold must not be negative"),
        ({"per_type": [1]}, "expected thresholds as cellflow calibrate writes them"),
        ({"members": None}, "expected thresholds as cellflow calibrate writes them"),
    ],
)
def test_other_files(tmp_path: Path, change: dict[str, object], says: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(THRESHOLDS.to_dict() | change))
    with pytest.raises(RunError, match=says) as caught:
        read_thresholds(path)
    assert str(path) in str(caught.value)
    assert "cellflow calibrate" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[", "[1]", "null"])
def test_damaged_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(RunError, match=r"t\.json"):
        read_thresholds(path)
    with pytest.raises(RunError, match="cannot be read"):
        read_thresholds(tmp_path / "nowhere.json")

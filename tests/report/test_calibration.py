"""The picture of a calibration marks what was chosen, what is highest, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.io import imread

from cellflow.report.calibration import plot_curves

pytestmark = pytest.mark.filterwarnings("error")

CURVES = {
    "cellprob_threshold": [[-1.0, 0.3], [0.0, 0.4], [1.0, 0.6]],
    "flow_threshold": [[0.4, 0.4], [0.8, 0.35], [0.0, 0.1]],
    "min_size": [[15.0, 0.4], [30.0, 0.39], [60.0, 0.2]],
}
CHOSEN = {"cellprob_threshold": 0.0, "flow_threshold": 0.4, "min_size": 15.0}
ORANGE, BAND = (230, 159, 0), (209, 230, 241)


def drawn(path: Path, errors: dict[str, list[Any]], **options: Any) -> np.ndarray[Any, Any]:
    chosen = CHOSEN | options
    plot_curves(path, CURVES, title="x", chosen=chosen, errors=errors, why="Because. " * 30)
    return imread(path)[..., :3].astype(int)


def count(picture: np.ndarray[Any, Any], color: tuple[int, int, int]) -> int:
    return int(np.count_nonzero(np.abs(picture - color).max(axis=2) <= 3))


def test_the_highest_is_marked_where_it_was_not_chosen(tmp_path: Path) -> None:
    errors = {name: [0.02, 0.0, 0.05] for name in CURVES}
    other = drawn(tmp_path / "other.png", errors)
    same = drawn(tmp_path / "same.png", errors, cellprob_threshold=1.0)
    assert count(other, ORANGE) > 60
    assert count(same, ORANGE) == 0


def test_bands_are_drawn_where_errors_are_known(tmp_path: Path) -> None:
    known = drawn(tmp_path / "known.png", {name: [0.1, 0.0, 0.1] for name in CURVES})
    unknown = drawn(tmp_path / "unknown.png", {name: [None] * 3 for name in CURVES})
    assert count(known, BAND) > 3000
    assert count(unknown, BAND) < 500

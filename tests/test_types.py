from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from cellflow.engine.prediction.ensemble import EnsembleResult
from cellflow.engine.training.fold_result import FoldResult
from cellflow.engine.validation.calibrate import CalibrationResult
from cellflow.types import LINE, Box, one_line, shorten


@one_line
@dataclass(frozen=True)
class Result:
    value: Any
    other: Any = None


def test_what_a_value_looks_like() -> None:
    values = {
        "float32 2x30x40": np.zeros((2, 30, 40), np.float32),
        "table of 3 rows": pd.DataFrame({"a": [1, 2, 3]}),
        "0.3333": 1 / 3,
        "0.5": np.float64(0.5),
        "7": np.int64(7),
        "'text'": "text",
        "(1, 2)": (1, 2),
        "<300>": list(range(300)),
        "<1>": {"a": 1},
        "True": True,
    }
    for expected, value in values.items():
        assert repr(Result(value)) == f"Result(value={expected}, other=None)"


def test_results_fit_a_line() -> None:
    place = Path("/a/folder/far/down") / ("x" * 60)
    cells = {f"image_{place}": place for place in range(1000)}
    results = [
        FoldResult(0, 0.312345, 12, 30, "epochs"),
        EnsembleResult(place, place, place, place, cells, {}, 5),
        CalibrationResult((), (), (pd.DataFrame({"a": range(500)}),), None, None),
        Result("x" * 500, "two\nlines"),
    ]
    for result in results:
        text = repr(result)
        assert text.startswith(type(result).__name__ + "(")
        assert len(text) <= LINE
        assert "\n" not in text
    assert "best_score=0.3123, best_epoch=12, epochs=30, finished='epochs'" in repr(results[0])


def test_shorten() -> None:
    assert shorten("abc", 3) == "abc"
    assert shorten("abcdefghij", 8) == "ab...hij"


boxes = st.builds(
    lambda top, left, height, width: Box(top, top + height, left, left + width),
    *[st.integers(0, 12)] * 2,
    *[st.integers(0, 8)] * 2,
)


def pixels_of(box: Box, shape: tuple[int, int]) -> set[tuple[int, int]]:
    """Slow and obvious: the places of an image that lie in a box."""
    rows, columns = range(shape[0]), range(shape[1])
    return {
        (y, x)
        for y in rows
        for x in columns
        if box.top <= y < box.bottom and box.left <= x < box.right
    }


@given(boxes, boxes)
def test_boxes_share_the_pixels_that_lie_in_both(one: Box, other: Box) -> None:
    shape = (20, 20)
    shared = one.intersection(other)
    assert pixels_of(shared, shape) == pixels_of(one, shape) & pixels_of(other, shape)
    assert shared.is_empty == (not pixels_of(shared, shape))
    assert np.prod(shared.shape) == len(pixels_of(shared, shape))
    assert shared.bottom >= shared.top and shared.right >= shared.left  # what slices need
    assert np.zeros(shape)[one.slices].shape == one.shape


@given(boxes, st.integers(0, 5))
def test_a_grown_box_ends_where_the_image_ends(box: Box, margin: int) -> None:
    shape = (20, 20)
    expected = {
        (y, x)
        for y in range(20)
        for x in range(20)
        if box.top - margin <= y < box.bottom + margin
        and box.left - margin <= x < box.right + margin
    }
    assert pixels_of(box.grown(margin, shape), (40, 40)) == expected


def test_a_box_has_no_pixels_where_it_ends_before_it_starts() -> None:
    assert Box(3, 2, 0, 4).is_empty and Box(3, 2, 0, 4).shape == (0, 4)
    assert not Box(0, 1, 0, 1).is_empty

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellflow.engine.prediction.ensemble import EnsembleResult
from cellflow.engine.training.fold_result import FoldResult
from cellflow.engine.validation.calibrate import CalibrationResult
from cellflow.types import LINE, one_line, shorten


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

"""Which columns of a table are of numbers."""

from __future__ import annotations

import numpy as np

from cellflow.report.pages.table import Column, Table


def test_columns_of_numbers() -> None:
    rows = [
        {"n": 1, "score": np.float32(0.5), "mixed": 1, "flag": True, "text": "a"},
        {"n": np.int64(2), "score": float("nan"), "mixed": "off", "flag": False, "text": ""},
        {"n": None, "score": None, "mixed": 2, "flag": True},
    ]
    columns = [Column(key, key) for key in ("n", "score", "mixed", "flag", "text", "lacking")]
    assert Table("t", columns, rows).numeric == {"n", "score"}
    assert Table("t", columns, []).numeric == set()

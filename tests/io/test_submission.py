from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellflow.errors import DataError
from cellflow.io.submission import check_submission, read_submission, write_submission
from cellflow.numeric.labels import compact
from cellflow.numeric.rle import instances_from_rles, rles_from_labels


def test_one_row_a_cell_and_a_row_without_cells(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, iter([("b", ["1 2", "5 1"]), ("a", [])]))
    assert path.read_text() == "id,predicted\nb,1 2\nb,5 1\na,\n"
    assert read_submission(path) == {"b": ["1 2", "5 1"], "a": []}
    check_submission(path, {"a": (2, 3), "b": (2, 3)})


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(labels=hnp.arrays(np.int32, (7, 9), elements=st.integers(0, 4)))
def test_label_maps_survive(tmp_path: Path, labels: np.ndarray) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, [("x", rles_from_labels(labels))])
    check_submission(path, {"x": (7, 9)})
    cells = instances_from_rles(read_submission(path)["x"], (7, 9))
    painted = np.zeros(63, np.int32)
    for number, (starts, lengths) in enumerate(cells, 1):
        for start, length in zip(starts, lengths, strict=True):
            painted[start : start + length] = number
    assert np.array_equal(painted.reshape(7, 9), compact(labels)[0])


@pytest.mark.parametrize(
    ("rles", "message"),
    [
        (["1 3", "3 2"], "cells overlap"),
        (["1 3 2 1"], "cells overlap"),
        (["6 2"], "leaves the image of 2 x 3"),
        (["0 2"], "leaves the image"),
        (["1 0"], "empty"),
        (["1 2 5"], "odd number"),
        (["1 x"], "whole numbers"),
    ],
)
def test_check_finds(tmp_path: Path, rles: list[str], message: str) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, [("x", rles)])
    with pytest.raises(DataError, match=rf"\(image x\).*{message}"):
        check_submission(path, {"x": (2, 3)})


def test_missing_and_unknown_images(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, [("x", [])])
    with pytest.raises(DataError, match=r"missing images: \['y'\]; unknown: \['x'\]"):
        check_submission(path, {"y": (2, 3)})


def test_a_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    def rows() -> Iterator[tuple[str, list[str]]]:
        yield "a", ["1 1"]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_submission(tmp_path / "submission.csv", rows())
    with pytest.raises(DataError, match="'a' comes twice"):
        write_submission(tmp_path / "submission.csv", [("a", []), ("a", [])])
    assert not list(tmp_path.iterdir())

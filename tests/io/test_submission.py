from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellflow.errors import DataError
from cellflow.io.formats import ReadOptions, read_source
from cellflow.io.formats.submission import read_submission, write_submission
from cellflow.numeric.labels import compact
from cellflow.numeric.rle import rles_from_labels


def labels_of(path: Path, name: str, shape: tuple[int, int]) -> np.ndarray:
    return read_source(path, ReadOptions("prediction")).images[name].labels(shape)


def test_one_row_a_cell_and_a_row_without_cells(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, iter([("b", ["1 2", "5 1"]), ("a", [])]))
    assert path.read_text() == "id,predicted\nb,1 2\nb,5 1\na,\n"
    assert read_submission(path) == {"b": ["1 2", "5 1"], "a": []}
    assert labels_of(path, "b", (2, 3)).tolist() == [[1, 1, 0], [0, 2, 0]]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(labels=hnp.arrays(np.int32, (7, 9), elements=st.integers(0, 4)))
def test_label_maps_survive(tmp_path: Path, labels: np.ndarray) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, [("x", rles_from_labels(labels))])
    assert np.array_equal(labels_of(path, "x", (7, 9)), compact(labels)[0])


@pytest.mark.parametrize(
    ("rles", "message"),
    [
        (["1 3", "3 2"], "cells of image x overlap"),
        (["6 2"], "past the end"),
        (["0 2"], "1"),
        (["1 0"], "length"),
        (["1 2 5"], "pairs"),
        (["1 x"], "whole numbers"),
    ],
)
def test_what_is_no_prediction(tmp_path: Path, rles: list[str], message: str) -> None:
    path = tmp_path / "submission.csv"
    write_submission(path, [("x", rles)])
    with pytest.raises(DataError, match=message) as caught:
        labels_of(path, "x", (2, 3))
    assert (caught.value.path, caught.value.id) == (path, "x")


def test_a_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    def rows() -> Iterator[tuple[str, list[str]]]:
        yield "a", ["1 1"]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_submission(tmp_path / "submission.csv", rows())
    with pytest.raises(DataError, match="'a' comes twice"):
        write_submission(tmp_path / "submission.csv", [("a", []), ("a", [])])
    assert not list(tmp_path.iterdir())

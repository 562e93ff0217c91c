from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.draw import ellipse
from skimage.measure import regionprops

from cellflow.engine.segmentation.cell_table import CELL_COLUMNS, measure_cells
from cellflow.errors import DataError
from cellflow.rng import generator

DTYPES = ["i8"] * 2 + ["f8"] * 2 + ["i8"] * 4 + ["f8"] * 10 + ["O"] + ["f8"] * 2


def maps(shape: tuple[int, ...], seed: int = 0) -> dict[str, Any]:
    rng = generator(seed, "cells")
    return {
        "intensity": rng.integers(0, 60000, shape).astype(np.float32),
        "cellprob": rng.normal(0, 4, shape).astype(np.float32),
        "disagreement": rng.uniform(0, 1.5, shape).astype(np.float32),
    }


def slow_rows(labels: Any, values: dict[str, Any], cell_type: str) -> list[list[Any]]:
    """Cell by cell, pixel by pixel."""
    rows = []
    for number in sorted({int(value) for value in labels.flat} - {0}):
        ys, xs = np.nonzero(labels == number)
        pixels = {
            name: [float(v[y, x]) for y, x in zip(ys, xs, strict=True)]
            for name, v in values.items()
        }
        mean = {name: sum(found) / len(found) for name, found in pixels.items()}
        sure = sum(1 / (1 + np.exp(-logit)) for logit in pixels["cellprob"]) / len(ys)
        shape = regionprops((labels == number).astype(np.uint8))[0]
        rows.append(
            [
                *(number, len(ys), sum(ys) / len(ys), sum(xs) / len(xs)),
                *(min(ys), min(xs), max(ys) + 1, max(xs) + 1),
                *(shape.eccentricity, shape.equivalent_diameter_area, shape.perimeter),
                *(shape.axis_major_length, shape.axis_minor_length, shape.solidity),
                *(mean["intensity"], mean["cellprob"], mean["disagreement"]),
                sure * (1 - min(1, mean["disagreement"])),
                cell_type,
                *(len(ys) * 0.25, 31.5),
            ]
        )
    return rows


@settings(max_examples=40, deadline=None)
@given(
    labels=hnp.arrays(
        st.sampled_from([np.int32, np.uint16, np.int64]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.integers(0, 6),
    ),
    seed=st.integers(0, 5),
)
def test_against_pixel_by_pixel(labels: Any, seed: int) -> None:
    """Cells of several parts, of one pixel, and numbers that are missing are among them."""
    values = maps(labels.shape, seed)
    table = measure_cells(labels, **values, cell_type="cort", diameter=31.5, pixel_area=0.25)
    expected = slow_rows(labels, values, "cort")
    assert tuple(table.columns) == CELL_COLUMNS
    assert [str(dtype) for dtype in table.dtypes] == [str(np.dtype(name)) for name in DTYPES]
    assert len(table) == len(expected)
    for found, wanted in zip(table.itertuples(index=False), expected, strict=True):
        assert found.cell_type == wanted.pop(-3)
        numbers = [value for value in found if not isinstance(value, str)]
        assert numbers == pytest.approx(wanted, rel=1e-5, abs=1e-6)
        assert np.isfinite(numbers).all()


def test_an_image_without_cells() -> None:
    table = measure_cells(np.zeros((5, 7), np.int32), **maps((5, 7)))
    some = measure_cells(np.eye(5, 7, dtype=np.int32), **maps((5, 7)))
    assert len(table) == 0
    assert len(some) == 1
    assert list(table.dtypes) == list(some.dtypes)
    assert tuple(table.columns) == CELL_COLUMNS


def test_values_in_their_units() -> None:
    labels = np.zeros((40, 60), np.int32)
    labels[ellipse(20, 30, 8, 16)] = 1
    labels[2:5, 3:8] = 2
    flat = np.zeros(labels.shape, np.float32)
    table = measure_cells(
        labels, intensity=flat + 4000, cellprob=flat, disagreement=np.where(labels == 2, 0.25, 2.0)
    )
    assert list(table["area"]) == [(labels == 1).sum(), 15]
    assert table.loc[0, ["centroid_y", "centroid_x"]].tolist() == [20, 30]
    assert table.loc[1, ["box_y0", "box_x0", "box_y1", "box_x1"]].tolist() == [2, 3, 5, 8]
    assert table.loc[0, "eccentricity"] == pytest.approx(np.sqrt(1 - 0.25), abs=0.02)
    assert list(table["mean_intensity"]) == [4000, 4000]
    assert table.loc[0, ["major_axis", "minor_axis"]].tolist() == pytest.approx([32, 16], abs=0.7)
    assert table.loc[1, "equivalent_diameter"] == pytest.approx(np.sqrt(15 * 4 / np.pi))
    assert list(table["solidity"]) == pytest.approx([1, 1], abs=0.05)
    assert table.loc[1, "perimeter"] == 12  # through the centres of the border pixels
    assert table[["area_um2", "diameter_used"]].isna().all(axis=None)
    assert list(table["confidence"]) == [0, 0.5 * 0.75]
    assert list(table["cell_type"]) == ["", ""]


def test_confidence_goes_up_with_the_logit_and_down_with_disagreement() -> None:
    labels = np.ones((4, 4), np.int32)

    def confidence(logit: float, apart: float) -> float:
        flat = np.ones(labels.shape, np.float32)
        table = measure_cells(
            labels, intensity=flat, cellprob=logit * flat, disagreement=apart * flat
        )
        return float(table.loc[0, "confidence"])

    by_logit = [confidence(logit, 0.1) for logit in (-1e5, -1.0, 0.0, 2.0, 1e5)]
    by_apart = [confidence(2.0, apart) for apart in (5.0, 0.9, 0.5, 0.0)]
    for values in (by_logit, by_apart):
        assert values == sorted(values)
        assert len(set(values)) == len(values)
        assert 0 <= values[0] <= values[-1] <= 1


def test_maps_of_another_shape() -> None:
    values = maps((5, 5)) | {"cellprob": np.zeros((5, 6), np.float32)}
    with pytest.raises(DataError, match=r"cellprob: .*\(5, 5\), found \(5, 6\)"):
        measure_cells(np.zeros((5, 5), np.int32), **values)

from __future__ import annotations

import numpy as np
import pytest
from oracle import Oracle

from cellflow.errors import DataError
from cellflow.numeric.flow_picture import flow_picture

cellpose_plot = Oracle("plot")


@pytest.mark.parametrize("shape", [(40, 50), (3, 20, 30), (1, 1)])
def test_it_is_that_of_cellpose(shape: tuple[int, ...]) -> None:
    flow = np.random.default_rng(0).normal(0, 3, (2, *shape)).astype(np.float32)
    expected = cellpose_plot.dx_to_circ(flow.copy())
    found = flow_picture(flow)
    assert found.dtype == np.uint8
    assert found.shape == (*shape, 3)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_no_flow_is_black() -> None:
    assert not flow_picture(np.zeros((2, 8, 9))).any()
    assert flow_picture(np.zeros((2, 0, 9))).shape == (0, 9, 3)


@pytest.mark.parametrize("shape", [(1, 8, 9), (3, 8, 9), ()])
def test_one_flow_has_two_components(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"flow: expected shape \(2, \.\.\.\)"):
        flow_picture(np.zeros(shape))

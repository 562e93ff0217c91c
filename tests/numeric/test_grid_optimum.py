from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellflow.errors import DataError
from cellflow.numeric.grid_optimum import STEP_COST, grid_optimum, shrink

SURFACES = arrays(np.float64, (4, 3, 5), elements=st.floats(0, 1))


@given(SURFACES)
def test_without_smoothing_it_is_the_best_after_the_cost_of_steps(surface):
    default = (1, 2, 0)
    best, place = -np.inf, None
    for index in np.ndindex(surface.shape):
        steps = sum(abs(a - b) for a, b in zip(index, default, strict=True))
        if surface[index] - STEP_COST * steps > best:
            best, place = surface[index] - STEP_COST * steps, index
    assert grid_optimum(surface, default, smoothing=0) == place


@given(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 4)))
def test_a_flat_surface_stays_at_the_default(default):
    assert grid_optimum(np.full((4, 3, 5), 0.3), default) == default


def test_a_hill_beats_a_lucky_spike():
    x = np.arange(21)
    hill = 0.5 - 0.002 * (x - 5.0) ** 2 / 4
    hill[15] = 0.52  # higher than the hill, alone
    assert grid_optimum(hill, (10,), smoothing=0) == (15,)
    assert abs(grid_optimum(hill, (10,), smoothing=1.5)[0] - 5) <= 1


@given(SURFACES, SURFACES, st.floats(0, 100), st.floats(0.1, 100))
def test_shrinking_lies_between_and_follows_the_counts(own, prior, count, strength):
    mixed = shrink(own, count, prior, strength)
    assert (mixed <= np.maximum(own, prior) + 1e-12).all()
    assert (mixed >= np.minimum(own, prior) - 1e-12).all()
    np.testing.assert_allclose(shrink(own, 0, prior, strength), prior, atol=1e-300)
    np.testing.assert_allclose(shrink(own, 1, prior, 0), own, atol=1e-300)


def test_what_makes_no_sense():
    with pytest.raises(DataError, match="expected finite values"):
        grid_optimum(np.array([[np.nan]]), (0, 0))

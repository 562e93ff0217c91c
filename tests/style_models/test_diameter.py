from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellflow.style_models import DiameterModel

FEATURES = 20
QUARTER_OCTAVE = 2**0.25


def make_data(
    count: int, seed: int = 0, noise: float = 0.03
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Styles of which two features tell the diameter, in octaves around 30 pixels."""
    rng = np.random.default_rng(seed)
    styles = rng.normal(0.06, 0.02, size=(count, FEATURES))
    octaves = 20 * (styles[:, 2] - styles[:, 5]) + noise * rng.normal(size=count)
    return styles.astype(np.float32), 30 * 2**octaves


def slow_ridge(
    styles: NDArray[np.float64], targets: NDArray[np.float64], unseen: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Ridge by its normal equations; the penalty by refitting without each image in turn."""
    mean, spread = styles.mean(axis=0), styles.std(axis=0)
    inputs = (styles - mean) / spread

    def predict(
        x: NDArray[np.float64], y: NDArray[np.float64], new: NDArray[np.float64], alpha: float
    ) -> NDArray[np.float64]:
        centre = x.mean(axis=0)
        gram = (x - centre).T @ (x - centre) + alpha * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, (x - centre).T @ (y - y.mean()))
        return np.asarray((new - centre) @ weights + y.mean())

    def error(alpha: float) -> float:
        kept = [np.arange(len(targets)) != place for place in range(len(targets))]
        return sum(
            float(predict(inputs[rest], targets[rest], inputs[~rest], alpha)[0] - targets[~rest][0])
            ** 2
            for rest in kept
        )

    best = min((len(targets) * 10.0**power for power in np.arange(-2, 4.5, 0.5)), key=error)
    return predict(inputs, targets, (unseen - mean) / spread, best)


@pytest.mark.parametrize(("count", "noise"), [(3, 0.03), (12, 0.5), (40, 0.03), (40, 1.0)])
def test_ridge_equals_its_slow_twin(count: int, noise: float) -> None:
    styles, diameters = make_data(count, noise=noise)
    unseen = make_data(10, seed=1)[0]
    model = DiameterModel.fit(styles, diameters)
    logarithm = slow_ridge(styles.astype(np.float64), np.log(diameters), unseen.astype(np.float64))
    found = model.diameters(unseen)
    assert found.shape == (10,)
    assert found.dtype == np.float64
    expected = np.clip(np.exp(logarithm), model.smallest, model.largest)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    assert len(set(found.round(6))) > 2  # not all at the ends of the range


def test_unseen_diameters_are_found() -> None:
    model = DiameterModel.fit(*make_data(60))
    styles, diameters = make_data(30, seed=1)
    inside = (diameters > model.smallest) & (diameters < model.largest)
    ratio = model.diameters(styles)[inside] / diameters[inside]
    assert np.abs(np.log2(ratio)).max() < 0.25
    assert np.ptp(np.log2(diameters[inside])) > 1.5


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 99), st.floats(0, 100))
def test_predictions_stay_near_the_training_diameters(count: int, seed: int, wild: float) -> None:
    styles, diameters = make_data(count, seed)
    model = DiameterModel.fit(styles, diameters)
    assert model.smallest == pytest.approx(diameters.min() / QUARTER_OCTAVE)
    assert model.largest == pytest.approx(diameters.max() * QUARTER_OCTAVE)
    found = model.diameters(wild * np.random.default_rng(seed).normal(size=(8, FEATURES)))
    assert (found >= model.smallest).all()
    assert (found <= model.largest).all()


def test_an_image_gets_the_same_answer_alone_and_among_others() -> None:
    styles, diameters = make_data(30)
    model = DiameterModel.fit(styles, diameters)
    alone = np.concatenate([model.diameters(style[None]) for style in styles])
    np.testing.assert_array_equal(model.diameters(styles), alone)
    assert model.diameters(styles[:0]).shape == (0,)


def test_wild_styles_reach_both_ends() -> None:
    model = DiameterModel.fit(*make_data(30))
    far = 1e4 * model.weights
    np.testing.assert_array_equal(
        model.diameters(np.stack([-far, far])), [model.smallest, model.largest]
    )


@pytest.mark.parametrize(
    ("diameters", "mean"), [([37.5], 37.5), ([10.0, 40.0], 20.0), ([25.0] * 6, 25.0)]
)
def test_where_nothing_can_be_learnt_it_is_the_mean(diameters: list[float], mean: float) -> None:
    model = DiameterModel.fit(make_data(len(diameters))[0], diameters)
    np.testing.assert_allclose(model.diameters(make_data(5, seed=3)[0]), mean, rtol=1e-12)


def test_equal_styles_give_the_mean() -> None:
    model = DiameterModel.fit(np.full((4, FEATURES), 0.06), [10, 20, 20, 40])
    np.testing.assert_allclose(model.diameters(np.full((2, FEATURES), 0.06)), 20, rtol=1e-9)

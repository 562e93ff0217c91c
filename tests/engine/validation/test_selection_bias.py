from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cellflow.engine.validation.selection_bias import selection_bias
from cellflow.errors import DataError
from cellflow.rng import generator


def table(scores: np.ndarray, weights: tuple[str, ...] = ("net",)) -> pd.DataFrame:
    """Evaluations from scores ``(E, N)``: of each epoch one row of scores per kind of weights."""
    rows = [
        {
            "id": f"i{image:03d}",
            "epoch": 50 * (1 + number // len(weights)),
            "weights": weights[number % len(weights)],
            "score": score,
        }
        for number, line in enumerate(scores)
        for image, score in enumerate(line)
    ]
    return pd.DataFrame(rows)


def pairs(n: int) -> dict[str, str]:
    """Groups of two neighbouring images each."""
    return {f"i{image:03d}": f"g{image // 2}" for image in range(n)}


def slow_bias(scores: np.ndarray, groups: list[str], seed: int, splits: int) -> list[float]:
    """One split after the other, with the same draws."""
    names = sorted(set(groups))
    orders = generator(seed, "selection_bias").permuted(
        np.tile(np.arange(len(names)), (splits, 1)), axis=1
    )
    total = [0.0] * len(groups)
    for order in orders:
        half = {names[i] for i in range(len(names)) if order[i] < len(names) // 2}
        inside = [i for i, group in enumerate(groups) if group in half]
        outside = [i for i, group in enumerate(groups) if group not in half]
        for mine, others in ((inside, outside), (outside, inside)):
            own = max(range(len(scores)), key=lambda e: (scores[e][mine].mean(), -e))
            other = max(range(len(scores)), key=lambda e: (scores[e][others].mean(), -e))
            for i in mine:
                total[i] += (scores[own][i] - scores[other][i]) / splits
    return total


@pytest.mark.parametrize("n", [8, 14])
def test_against_a_slow_twin(n: int) -> None:
    scores = np.random.default_rng(n).uniform(size=(5, n))
    found = selection_bias(table(scores), pairs(n), seed=3, splits=30)
    groups = pairs(n)
    expected = slow_bias(scores, [groups[name] for name in found.index], 3, 30)
    assert list(found.index) == sorted(groups)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_noise_gives_the_optimism_of_half_the_images() -> None:
    """Epochs of equal worth: the best of half the images lies above the truth by a known amount."""
    rng = np.random.default_rng(0)
    epochs, images, repeats = 8, 24, 60
    found = [
        selection_bias(table(0.5 + 0.1 * rng.normal(size=(epochs, images))), pairs(images), splits=40)
        for _ in range(repeats)
    ]  # fmt: skip
    apparent = 0.1 * rng.normal(size=(20_000, epochs)) / np.sqrt(images / 2)
    expected = apparent.max(axis=1).mean()
    assert expected > 0.03
    assert np.mean([bias.mean() for bias in found]) == pytest.approx(expected, rel=0.15)


def test_a_clear_best_epoch_has_no_bias() -> None:
    scores = np.random.default_rng(0).uniform(0, 0.3, size=(6, 20))
    scores[3] += 0.5
    assert (selection_bias(table(scores), pairs(20)) == 0).all()


def test_evaluations_that_are_all_the_same() -> None:
    scores = np.tile(np.random.default_rng(0).uniform(size=11), (4, 1))
    assert (selection_bias(table(scores), pairs(11)) == 0).all()


def test_a_tie_goes_to_the_earlier_epoch_and_to_the_weights_themselves() -> None:
    """As in training: with a tie in both halves both choose the first, whose images differ."""
    tied = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5]])
    assert (selection_bias(table(tied), pairs(4)) == 0).all()
    # The first group ties and takes the first; the second group would have lost 0.5 by that choice.
    scores = np.array([[1, 1, 0, 0], [1, 1, 0.5, 0.5]], dtype=float)
    bias = selection_bias(table(scores, ("net", "ema")), pairs(4))
    assert bias.to_dict() == {"i000": 0, "i001": 0, "i002": 0.5, "i003": 0.5}
    reverse = table(scores, ("net", "ema")).iloc[::-1]
    pd.testing.assert_series_equal(selection_bias(reverse, pairs(4)), bias)
    first = selection_bias(table(scores, ("ema", "net")), pairs(4))  # now the second comes first
    assert (first == 0).all()


def test_deterministic_and_the_seed_matters() -> None:
    evaluations = table(np.random.default_rng(0).uniform(size=(5, 12)))
    first = selection_bias(evaluations, pairs(12), splits=5)
    shuffled = evaluations.sample(frac=1, random_state=1)
    pd.testing.assert_series_equal(first, selection_bias(shuffled, pairs(12), splits=5))
    assert not first.equals(selection_bias(evaluations, pairs(12), splits=5, seed=1))


def test_nothing_to_choose_or_nothing_to_split() -> None:
    scores = np.random.default_rng(0).uniform(size=(3, 4))
    assert (selection_bias(table(scores[:1]), pairs(4)) == 0).all()
    one_group = selection_bias(table(scores), dict.fromkeys(pairs(4), "g"))
    assert one_group.isna().all()
    assert len(one_group) == 4
    two = selection_bias(table(scores[:, :3]), {"i000": "a", "i001": "a", "i002": "b"})
    assert two.notna().all()


def test_refused() -> None:
    evaluations, groups = table(np.eye(3)), pairs(3)
    with pytest.raises(DataError, match="image i002 has no score at epoch 150"):
        selection_bias(evaluations.iloc[:-1], groups)
    with pytest.raises(DataError, match="image i001 has no score at epoch 50"):
        selection_bias(evaluations.assign(score=[0, np.nan, *[0] * 7]), groups)
    with pytest.raises(DataError, match="i000 has two scores at epoch 50"):
        selection_bias(pd.concat([evaluations, evaluations.iloc[:1]]), groups)

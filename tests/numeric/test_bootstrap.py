from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cellflow.errors import DataError
from cellflow.numeric import bootstrap
from cellflow.numeric.bootstrap import bootstrap_mean

# Thousandths: differences are then either 0 or far above rounding.
NUMBERS = st.integers(-1000, 1000).map(lambda number: number / 1000)
ITEMS = st.lists(st.tuples(NUMBERS, st.sampled_from("abcd")), min_size=1, max_size=20)


def slow_interval(values, groups, seed, draws, level):
    """One draw after the other, the items of every drawn group written out."""
    names = sorted(set(groups))
    items = {name: [v for v, g in zip(values, groups, strict=True) if g == name] for name in names}
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(draws):
        drawn = [value for number in rng.integers(len(names), size=len(names))
                 for value in items[names[number]]]  # fmt: skip
        means.append(sum(drawn) / len(drawn))
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2])


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@given(ITEMS, st.integers(0, 5), st.sampled_from([0.5, 0.95]))
@settings(max_examples=40, deadline=None)
def test_against_a_slow_twin(items, seed, level):
    values, groups = zip(*items, strict=True)
    assume(len(set(groups)) > 1)
    found = bootstrap_mean(values, groups, seed=seed, draws=60, level=level)
    close(found.mean, np.mean(values))
    close(found[1:], slow_interval(values, groups, seed, 60, level))


def test_blocks_draw_the_same_numbers(monkeypatch):
    values, groups = np.random.default_rng(0).normal(size=30), np.arange(30) % 7
    whole = bootstrap_mean(values, groups, draws=200)
    monkeypatch.setattr(bootstrap, "_BLOCK", 40)
    assert bootstrap_mean(values, groups, draws=200) == whole


@given(ITEMS, NUMBERS, st.sampled_from([0.25, 1.0, 3.0]))
@settings(max_examples=40, deadline=None)
def test_shift_and_scale(items, shift, scale):
    values, groups = np.array([v for v, _ in items]), [g for _, g in items]
    plain = bootstrap_mean(values, groups, draws=50)
    close(bootstrap_mean(scale * values + shift, groups, draws=50), scale * np.array(plain) + shift)
    mirrored = bootstrap_mean(-values, groups, draws=50)  # b - a instead of a - b
    close(mirrored, [-plain.mean, -plain.high, -plain.low])


@given(ITEMS, st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_items_does_not_matter(items, grouped, random):
    shuffled = random.sample(items, len(items))
    first, second = (
        bootstrap_mean([v for v, _ in part], [g for _, g in part] if grouped else None, draws=50)
        for part in (items, shuffled)
    )
    assert first == second or math.isnan(first.low)


@given(ITEMS)
@settings(max_examples=40, deadline=None)
def test_low_is_not_above_high_and_both_are_means_of_items(items):
    values, groups = zip(*items, strict=True)
    found = bootstrap_mean(values, groups, draws=50)
    if len(set(groups)) == 1:
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    else:
        assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12


@pytest.mark.parametrize("groups", [None, [1, 1, 2, 3, 3, 3]])
def test_values_that_are_all_the_same(groups):
    assert bootstrap_mean([0.1] * 6, groups) == (0.1, 0.1, 0.1)


def test_without_groups_every_item_is_one():
    values = np.random.default_rng(1).normal(size=12)
    # Groups are drawn by their place, and single items stand in the order of their values.
    named = bootstrap_mean(np.sort(values), np.arange(12))
    assert bootstrap_mean(values) == named


def test_coverage_of_groups_that_differ():
    """About 95 % of intervals hold the truth; single items drawn as if independent do far worse."""
    rng = np.random.default_rng(3)
    held = np.zeros(2)
    trials = 300
    for trial in range(trials):
        sizes = rng.integers(1, 6, size=40)
        groups = np.repeat(np.arange(40), sizes)
        values = 5 + rng.normal(size=40)[groups] + 0.2 * rng.normal(size=len(groups))
        for place, drawn in enumerate((groups, None)):
            found = bootstrap_mean(values, drawn, seed=trial, draws=300)
            held[place] += found.low <= 5 <= found.high
    assert 0.90 < held[0] / trials < 0.98
    assert held[1] / trials < 0.85


@pytest.mark.parametrize(
    ("values", "groups", "message"),
    [
        ([], None, r"found shape \(0,\)"),
        ([[1.0]], None, r"found shape \(1, 1\)"),
        ([1.0, math.nan, math.inf], None, "found nan as item 1 .* and 1 more"),
        ([1.0, 2.0], ["a"], r"found shape \(1,\) for 2 values"),
    ],
)
def test_refused(values, groups, message):
    with pytest.raises(DataError, match=message):
        bootstrap_mean(values, groups)

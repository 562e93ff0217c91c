"""What images without annotation would teach, and a choice of them that is spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellflow.numeric.score import competition_score
from cellflow.numeric.suggestion import (
    choose_images,
    disagreement_of_labels,
    distances_to_nearest,
    doubt_of_flows,
    shares_below,
)


def slow_choice(styles, weights, known, types, copies, count):
    """The same by looking at every sum again for every candidate, as its definition says."""

    def like(one, other):
        return 1 - np.sqrt(np.linalg.norm(one - other) / 2)

    everything = range(len(styles))
    all_types = sum(
        np.sqrt(sum(weights[i] for i in everything if types[i] == kind)) for kind in set(types)
    )
    first = [max((like(style, other) for other in known), default=0.0) for style in styles]

    def total(taken):
        covered = [
            max([first[i], *(like(styles[i], styles[j]) for j in taken)]) for i in everything
        ]
        roots = sum(
            np.sqrt(sum(weights[i] for i in taken if types[i] == kind)) for kind in set(types)
        )
        part = np.dot(weights, np.subtract(covered, first)) / np.dot(weights, np.subtract(1, first))
        return part + 0.25 * roots / all_types

    chosen: list[int] = []
    gains = []
    while len(chosen) < count:
        free = [
            i
            for i in everything
            if i not in chosen and not any((i, j) in copies or (j, i) in copies for j in chosen)
        ]
        if not free:
            break
        now = total(chosen)
        best = min(free, key=lambda i: (-round(total([*chosen, i]) - now, 9), -weights[i], i))
        gains.append(total([*chosen, best]) - now)
        chosen.append(best)
    return chosen, gains


def on_sphere(rng, size):
    points = rng.normal(size=(size, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@st.composite
def pools(draw):
    seed = draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    size, known, kinds = draw(st.integers(1, 14)), draw(st.integers(0, 4)), draw(st.integers(1, 3))
    pairs = rng.integers(size, size=(draw(st.integers(0, 4)), 2))
    return {
        "styles": on_sphere(rng, size),
        "weights": rng.random(size),
        "known": on_sphere(rng, known),
        "types": [f"type {kind}" for kind in rng.integers(kinds, size=size)],
        "copies": [(one, other) for one, other in pairs.tolist() if one != other],
        "count": draw(st.integers(1, 16)),
    }


@settings(deadline=None, max_examples=60)
@given(pools())
def test_it_is_what_a_slow_twin_chooses(pool):
    fast = choose_images(**pool)
    slow, gains = slow_choice(**pool)
    assert [item.place for item in fast] == slow
    np.testing.assert_allclose(
        [item.stands_for + item.of_type / 4 for item in fast], gains, atol=1e-9
    )


@settings(deadline=None, max_examples=60)
@given(pools(), st.integers(0, 10**6))
def test_nothing_comes_twice_and_the_order_is_stable(pool, seed):
    chosen = [item.place for item in choose_images(**pool)]
    assert len(set(chosen)) == len(chosen) <= pool["count"]
    assert not any(one in chosen and other in chosen for one, other in pool["copies"])
    longer = choose_images(**{**pool, "count": pool["count"] + 3})
    assert [item.place for item in longer][: len(chosen)] == chosen
    order = np.random.default_rng(seed).permutation(len(pool["styles"]))
    place = np.argsort(order)
    shuffled = choose_images(
        **{
            **pool,
            "styles": pool["styles"][order],
            "weights": pool["weights"][order],
            "types": [pool["types"][i] for i in order],
            "copies": [(place[one], place[other]) for one, other in pool["copies"]],
        }
    )
    assert [order[item.place] for item in shuffled] == chosen


def test_all_are_chosen_where_more_are_asked_for_and_they_cover_all():
    rng = np.random.default_rng(0)
    chosen = choose_images(on_sphere(rng, 9), rng.random(9), known=[], types=["a"] * 9, count=50)
    assert sorted(item.place for item in chosen) == list(range(9))
    assert sum(item.stands_for for item in chosen) == pytest.approx(1)
    assert sum(item.of_type for item in chosen) == pytest.approx(1)
    assert choose_images(np.zeros((0, 4)), [], known=np.zeros((2, 4)), types=[], count=3) == []


def test_it_is_spread_over_what_there_is():
    """Twenty images of one kind, all in the most doubt, do not push out two of another."""
    rng = np.random.default_rng(1)
    styles = np.concatenate([rng.normal(0, 0.01, (20, 5)), rng.normal(0.3, 0.01, (2, 5))])
    weights = np.concatenate([np.full(20, 1.0), np.full(2, 0.6)])
    chosen = choose_images(
        styles, weights, known=rng.normal(-0.3, 0.01, (4, 5)), types=[""] * 22, count=2
    )
    assert {item.place >= 20 for item in chosen} == {True, False}
    assert chosen[0].nearer in (19, 21)
    by_type = choose_images(
        np.zeros((22, 5)), weights, known=np.zeros((1, 5)), types=["a"] * 20 + ["b"] * 2, count=4
    )
    assert sum(item.place >= 20 for item in by_type) == 2


def test_without_styles_types_and_doubt_alone_choose():
    chosen = choose_images(
        np.zeros((4, 0)),
        [0.1, 0.9, 0.5, 0.8],
        known=np.zeros((2, 0)),
        types=["a", "a", "b", "a"],
        count=3,
    )
    assert [item.place for item in chosen] == [1, 2, 3]


def test_masks_that_are_apart():
    one = np.zeros((20, 20), np.int32)
    one[2:8, 2:8], one[10:16, 10:16] = 1, 2
    shifted = np.roll(one, 2, axis=1)
    nothing = np.zeros_like(one)
    assert disagreement_of_labels([one, one, one]) == 0
    assert disagreement_of_labels([nothing, nothing]) == 0
    assert disagreement_of_labels([one, nothing]) == 1
    merged = np.where(one > 0, 1, 0)
    scores = [
        competition_score(a, b).mean for a, b in ((one, shifted), (one, merged), (shifted, merged))
    ]
    assert disagreement_of_labels([one, shifted, merged]) == pytest.approx(1 - np.mean(scores))


def test_a_single_model_is_unsure_where_cells_may_be():
    flow = np.zeros((2, 6, 6))
    flow[0] = 5
    background = np.full((6, 6), -20.0)
    sure, half, weak = background.copy(), background.copy(), background.copy()
    sure[:3], half[:3], weak[:3] = 20, 0, 1
    assert doubt_of_flows(flow, background) == 0
    assert doubt_of_flows(flow, sure) == pytest.approx(0, abs=1e-6)
    assert doubt_of_flows(flow, half) == 1
    assert doubt_of_flows(flow * 0, sure) == 1
    assert 0 < doubt_of_flows(flow, weak) < doubt_of_flows(flow * 0.5, weak) < 1


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12))
def test_places_among_all(values):
    below = [sum(other < value for other in values) for value in values]
    same = [sum(other == value for other in values) for value in values]
    wanted = [
        (low + (many - 1) / 2) / max(len(values) - 1, 1)
        for low, many in zip(below, same, strict=True)
    ]
    np.testing.assert_allclose(shares_below(values), wanted)


def test_nearest_of_many():
    rng = np.random.default_rng(2)
    points, others = rng.normal(size=(700, 3)), rng.normal(size=(40, 3))
    distance, which = distances_to_nearest(points, others)
    every = np.linalg.norm(points[:, None] - others, axis=2)
    np.testing.assert_allclose(distance, every.min(axis=1), atol=1e-9)
    assert (which == every.argmin(axis=1)).all()

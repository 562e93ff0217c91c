from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellflow.numeric.labels import compact
from cellflow.numeric.pseudo_labels import MAYBE, cell_agreement, trust_cells

maps = arrays(np.int32, (9, 11), elements=st.integers(0, 5))


def slow_agreement(labels: np.ndarray, views: list[np.ndarray]) -> list[float]:
    found = []
    for cell in range(1, labels.max(initial=0) + 1):
        here = labels == cell
        best = []
        for view in views:
            others = [view == other for other in range(1, view.max(initial=0) + 1)]
            best.append(max(((here & o).sum() / (here | o).sum() for o in others), default=0.0))
        found.append(float(np.mean(best)))
    return found


@settings(deadline=None)
@given(maps, st.lists(maps, min_size=1, max_size=3))
def test_agreement_is_that_of_the_obvious_loop(labels: np.ndarray, views: list[np.ndarray]) -> None:
    whole, _ = compact(labels)
    np.testing.assert_allclose(cell_agreement(whole, views), slow_agreement(whole, views))


def test_a_cell_that_all_views_see_agrees_fully() -> None:
    labels = np.zeros((6, 6), np.int32)
    labels[:3, :3], labels[4:, 4:] = 1, 2
    other = np.where(labels == 1, 7, 0)
    np.testing.assert_array_equal(cell_agreement(labels, [labels, other]), [1.0, 0.5])
    assert cell_agreement(np.zeros((6, 6), np.int32), [labels]).shape == (0,)


@settings(deadline=None)
@given(
    maps,
    st.randoms(use_true_random=False),
    arrays(np.float32, (9, 11), elements=st.sampled_from([0, MAYBE, 0.9])),
)
def test_what_is_in_doubt_is_ignored_and_never_background(
    labels: np.ndarray, chance: object, probability: np.ndarray
) -> None:
    whole, count = compact(labels)
    trusted = np.array([chance.random() < 0.5 for _ in range(count)], np.bool_)  # type: ignore[attr-defined]
    apart = np.roll(probability, 1)
    kept, ignored = trust_cells(
        whole, trusted, probability=probability, disagreement=apart, max_disagreement=0.5
    )
    assert kept.max(initial=0) == trusted.sum() == len(np.unique(kept[kept > 0]))
    for y, x in np.ndindex(whole.shape):
        cell = whole[y, x]
        if cell:
            assert bool(kept[y, x]) == trusted[cell - 1]
            assert ignored[y, x] == (not trusted[cell - 1] or apart[y, x] > 0.5)
        else:
            assert not kept[y, x]
            assert ignored[y, x] == (probability[y, x] >= MAYBE or apart[y, x] > 0.5)

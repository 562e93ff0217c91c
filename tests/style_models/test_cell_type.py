from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cellflow.style_models import CellTypeModel, average_probabilities, choose_type

FEATURES = 24


def make_styles(types: list[str], seed: int = 0, spread: float = 0.5) -> NDArray[np.float32]:
    """Styles of length 1 around one centre per type, one feature of which never changes."""
    rng = np.random.default_rng(seed)
    centres = {
        name: np.random.default_rng([7, *name.encode()]).normal(size=FEATURES)
        for name in sorted(set(types))
    }
    styles = np.stack([centres[name] + spread * rng.normal(size=FEATURES) for name in types])
    styles[:, 3] = 0
    return np.asarray(styles / np.linalg.norm(styles, axis=1, keepdims=True), dtype=np.float32)


@pytest.mark.parametrize(
    "types",
    [
        ["cort"] * 9 + ["astro"] * 3,
        ["cort"] * 7 + ["astro"] * 5 + ["shsy5y"] * 2,
        ["cort"] * 5 + ["astro"] * 5 + ["shsy5y"],  # a type with a single image
        ["b", "a"],
    ],
)
def test_probabilities_are_those_of_scikit_learn(types: list[str]) -> None:
    styles, unseen = make_styles(types), make_styles(types, seed=1, spread=2.0)
    twin = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
    ).fit(styles.astype(np.float64), types)
    model = CellTypeModel.fit(styles, types)
    assert model.classes == tuple(twin.classes_) == tuple(sorted(set(types)))
    found = model.probabilities(unseen)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, twin.predict_proba(unseen.astype(np.float64)), atol=1e-9)
    assert found.max() < 1 - 1e-4  # not so sure that nothing could differ


def test_types_are_told_apart() -> None:
    types = ["cort"] * 12 + ["astro"] * 6 + ["shsy5y"] * 2
    model = CellTypeModel.fit(make_styles(types), types)
    found = model.probabilities(make_styles(types, seed=9))
    assert [model.classes[best] for best in found.argmax(axis=1)] == types


def test_a_rare_type_counts_as_much_as_a_common_one() -> None:
    """Without any signal, balanced classes are equally probable."""
    types = ["common"] * 9 + ["rare"]
    model = CellTypeModel.fit(np.ones((10, FEATURES)), types)
    np.testing.assert_allclose(model.probabilities(np.ones((1, FEATURES))), 0.5, atol=1e-6)


def test_one_type_is_certain() -> None:
    model = CellTypeModel.fit(make_styles(["cort"]), ["cort"])
    assert model.classes == ("cort",)
    found = model.probabilities(make_styles(["cort"] * 3, seed=2))
    np.testing.assert_array_equal(found, np.ones((3, 1)))
    assert model.probabilities(np.zeros((0, FEATURES))).shape == (0, 1)


def test_rounding_noise_is_no_signal() -> None:
    """A feature that never changes but in its last bits must not decide."""
    types = ["a", "b"] * 6
    styles = make_styles(types).astype(np.float64)
    noisy = styles.copy()
    noisy[:, 3] = [1e-8 if name == "a" else -1e-8 for name in types]
    unseen = styles[:1].copy()
    unseen[0, 3] = 1e-3  # nothing for a real feature, but 10^5 times the noise
    plain = CellTypeModel.fit(styles, types).probabilities(unseen)
    np.testing.assert_allclose(
        CellTypeModel.fit(noisy, types).probabilities(unseen), plain, atol=1e-6
    )


def test_an_image_gets_the_same_answer_alone_and_among_others() -> None:
    types = ["a", "b", "c"] * 5
    styles = make_styles(types)
    model = CellTypeModel.fit(styles, types)
    alone = np.concatenate([model.probabilities(style[None]) for style in styles])
    np.testing.assert_array_equal(model.probabilities(styles), alone)
    np.testing.assert_array_equal(model.probabilities(np.asfortranarray(styles)), alone)


def test_large_logits_do_not_overflow() -> None:
    model = CellTypeModel(("a", "b"), np.array([[1e6], [-1e6]]), np.zeros(2))
    np.testing.assert_array_equal(model.probabilities(np.array([[1.0], [-1.0]])), [[1, 0], [0, 1]])


def member(**probabilities: float) -> tuple[CellTypeModel, NDArray[np.float64]]:
    classes = tuple(sorted(probabilities))
    model = CellTypeModel(classes, np.zeros((len(classes), 1)), np.zeros(len(classes)))
    return model, np.array([probabilities[name] for name in classes])


def test_average_over_the_union_of_classes() -> None:
    found = average_probabilities([member(b=0.75, a=0.25), member(b=0.5, c=0.5)])
    assert found == {"a": 0.125, "b": 0.625, "c": 0.25}
    assert list(found) == ["a", "b", "c"]


@settings(max_examples=30)
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcd"), st.floats(0.01, 1), min_size=1),
        min_size=1,
        max_size=5,
    )
)
def test_an_average_sums_to_one(odds: list[dict[str, float]]) -> None:
    said = [{name: p / sum(item.values()) for name, p in item.items()} for item in odds]
    found = average_probabilities([member(**item) for item in said])
    assert sum(found.values()) == pytest.approx(1)
    for name in "abcd":
        known = any(name in item for item in said)
        assert (name in found) == known
        if known:
            mean = np.mean([item.get(name, 0) for item in said])
            assert found[name] == pytest.approx(mean)


def test_choice_of_a_type() -> None:
    assert choose_type({"a": 0.3, "b": 0.7}) == "b"
    assert choose_type({"a": 0.6, "b": 0.4}) == "a"  # the minimum itself is enough
    assert choose_type({"a": 0.41, "b": 0.59}) == ""
    assert choose_type({}) == ""

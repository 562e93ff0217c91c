"""Which diameter policy an out-of-fold pass keeps."""

from __future__ import annotations

import numpy as np
import pytest

from cellflow.config.shared import Policy
from cellflow.engine.validation.policy_choice import best_policy, kept_text


@pytest.mark.parametrize(
    ("type_", "image", "expected"),
    [
        (0.0, 0.001, "dataset"),  # not worth it
        (0.0, 0.05, "image"),
        (0.05, 0.0, "type"),
        (0.05, 0.049, "image"),  # by a hair
        (0.055, 0.05, "image"),  # within the standard error of the gain, 0.01
        (0.09, 0.05, "type"),
        (0.04, 0.05, "image"),
    ],
)
def test_a_gain_of_the_type_must_be_more_than_chance(
    type_: float, image: float, expected: Policy
) -> None:
    rng = np.random.default_rng(0)
    dataset = rng.uniform(0.3, 0.6, 100)
    noise = rng.normal(0, 0.1, 100)
    scores: dict[Policy, list[float]] = {
        "dataset": dataset.tolist(),
        "type": (dataset + type_ + noise - noise.mean()).tolist(),
        "image": (dataset + image).tolist(),
    }
    assert best_policy(scores) == expected


def test_one_policy_or_one_image() -> None:
    assert best_policy({"type": [0.5]}) == "type"
    assert best_policy({"dataset": [0.5], "type": [0.6], "image": [0.59]}) == "type"
    assert best_policy({"dataset": [0.5, 0.4], "image": [0.9, 0.9]}) == "image"


def test_what_is_kept_is_said_with_the_reason() -> None:
    assert kept_text("type", {"dataset": 0.3, "type": 0.4}) == "diameter policy type is kept"
    means: dict[Policy, float] = {"dataset": 0.3, "type": 0.42, "image": 0.4}
    assert kept_text("image", means) == (
        "diameter policy image is kept: the gain of type (0.0200) may be chance"
    )
    means = {"dataset": 0.3, "image": 0.3015}
    assert kept_text("dataset", means).endswith("the gain of image (0.0015) is too little")

"""Which diameter policy an out-of-fold pass keeps."""

from __future__ import annotations

import numpy as np
import pytest

from cellflow.config.shared import Policy
from cellflow.engine.validation.policy_choice import choice_record, choose_policy
from cellflow.report.text.diameters import diameters_text


@pytest.mark.parametrize(
    ("type_", "image", "expected"),
    [
        (0.0, 0.001, "dataset"),  # not worth it
        (0.0, 0.05, "image"),
        (0.05, 0.0, "type"),
        (0.05, 0.049, "image"),  # by a hair
        (0.06, 0.05, "image"),  # within the error of the gain: the standard error is 0.01
        (0.09, 0.05, "type"),
        (0.04, 0.05, "image"),
        (0.015, 0.001, "dataset"),  # type gains less than its error over what is left of image
    ],
)
def test_a_policy_must_gain_more_than_its_error(
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
    assert choose_policy(scores, [str(place) for place in range(100)])[0] == expected


def test_images_of_one_group_are_not_independent() -> None:
    """Eight images that all gain, in as many groups and in two of which one loses."""
    gains = np.array([0.1] * 6 + [-0.05] * 2)
    scores: dict[Policy, list[float]] = {"dataset": [0.5] * 8, "image": (0.5 + gains).tolist()}
    assert choose_policy(scores, list("abcdefgh"))[0] == "image"
    assert choose_policy(scores, list("aaaaaabb"))[0] == "dataset"


def test_one_policy_and_few_groups() -> None:
    assert choose_policy({"type": [0.5]}, ["a"]) == ("type", [])
    kept, (comparison,) = choose_policy({"dataset": [0.5], "image": [0.9]}, ["a"])
    assert (kept, comparison.low, comparison.taken) == ("dataset", None, False)
    assert choose_policy({"dataset": [0.5, 0.4], "image": [0.9, 0.9]}, ["a", "b"])[0] == "image"


def test_what_is_kept_is_said_with_the_reason() -> None:
    scores: dict[Policy, list[float]] = {
        "dataset": [0.3, 0.3, 0.3],
        "type": [0.6, 0.3, 0.4],
        "image": [0.4, 0.4, 0.4],
    }
    kept, comparisons = choose_policy(scores, ["a", "b", "c"])
    record = choice_record(kept, comparisons, {name: np.mean(scores[name]) for name in scores})
    text = diameters_text(record)
    assert text.splitlines() == [
        "diameters by policy image (out-of-fold score: dataset 0.3000, type 0.4333, image 0.4000)",
        "  image   +0.1000 over dataset (+0.1000 to +0.1000, 3 groups): kept",
        "  type    +0.0333 over image (-0.1000 to +0.2000, 3 groups): less than its error, image stays",
    ]
    kept, comparisons = choose_policy({"dataset": [0.3], "image": [0.4]}, ["a"])
    assert "one group of images" in diameters_text(choice_record(kept, comparisons, {}))
    told = {"type_factor": 1.25, "own_estimates": 2, "images": 24}
    assert diameters_text(record | told).endswith(
        "or its estimate more than 1.25 times off the type's diameter: 2 of 24 images"
    )

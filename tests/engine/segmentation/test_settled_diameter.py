"""The diameter of an image's own cells: when it is taken, when not, and that slides get the same one."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from narrow import NarrowUNet

from cellflow.config import InferenceConfig, MaskConfig, check_config
from cellflow.engine.segmentation import settled_diameter
from cellflow.engine.segmentation.member import Member
from cellflow.engine.segmentation.recognition import UNKNOWN
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.engine.segmentation.settled_diameter import sample_boxes, settle
from cellflow.errors import ConfigError, DataError
from cellflow.nn.runners import TorchRunner
from cellflow.numeric.targets import labels_to_flows
from cellflow.synthetic import synthetic_dataset

NET = NarrowUNet.build(diam_mean=17.0, seed=0).eval()
SEGMENTER = Segmenter([Member("net", TorchRunner(NET), 0, 0, 17.0, 20.0)], MaskConfig(), rounds=3)
SHAPE = (160, 200)


def discs(diameter: float, count: int = 9) -> np.ndarray:
    """A label map of discs, as many as asked for."""
    y, x = np.indices(SHAPE)
    labels = np.zeros(SHAPE, np.int32)
    for place in range(count):
        row, column = divmod(place, 3)
        inside = (y - 30 - 50 * row) ** 2 + (x - 30 - 60 * column) ** 2 < (diameter / 2) ** 2
        labels[inside] = place + 1
    return labels


def settled(sizes, count: int = 9, rounds: int = 3):
    """`settle` where the network finds discs of the next of these diameters each time it is asked."""
    asked = iter(sizes)

    def means_of(box, known):
        labels = discs(next(asked), count)
        assert box.shape == SHAPE
        return 5 * labels_to_flows(labels), np.where(labels > 0, 5.0, -5.0), np.zeros(SHAPE)

    return settle(replace(SEGMENTER, rounds=rounds), means_of, SHAPE, UNKNOWN)


@pytest.mark.parametrize(
    ("sizes", "expected", "said"),
    [
        ([21.0], 0.0, ""),  # at rest at once: the policy's diameter, to the bit
        ([36.0, 38.0], 36.0, "20 -> 3"),
        ([28.0, 38.0, 41.0], 38.0, "at rest"),
        ([30.0, 20.0, 30.0, 20.0], 0.0, "not at rest after 3 rounds, 20 is taken"),
        ([6.0], 0.0, "too far"),
    ],
)
def test_a_diameter_comes_to_rest_or_stays(sizes, expected, said, caplog) -> None:
    caplog.set_level(logging.INFO)
    found = settled(sizes)
    assert found.measured == pytest.approx(expected, rel=0.03)
    assert said in caplog.text
    assert bool(caplog.records) == bool(said)
    if found.measured:
        assert SEGMENTER.settings_for(found)[1] == found.measured


def test_few_cells_are_no_measure(caplog) -> None:
    assert settled([36.0], count=4).measured == 0
    assert "too few cells to measure (4)" in caplog.text


@pytest.mark.parametrize("whole", [10**6, 0])
def test_a_part_of_an_image_is_predicted_at_the_diameter_of_the_whole(whole, monkeypatch) -> None:
    """A network that has learnt nothing finds cells of some size; measured at once, or by windows."""
    image = next(iter(synthetic_dataset(1, shape=(90, 120), seed=2, per_group=1))).image
    mask = MaskConfig(cellprob_threshold=-2.0, flow_threshold=0.0, min_size=60)
    segmenter = replace(SEGMENTER, mask=mask)
    normal = segmenter.ready(image).normal
    read = lambda part: normal[:, *part.slices]  # noqa: E731
    for name, value in {"WHOLE": whole, "WINDOW": 64, "FEWEST": 1, "REST": 1.51}.items():
        monkeypatch.setattr(settled_diameter, name, value)
    result = segmenter.predict(image)
    assert result.diameter == result.recognition.measured < 20
    known = segmenter.recognize_large(read, (90, 120))
    assert known == result.recognition
    box = sample_boxes((90, 120))[-1]
    assert (box.shape == (90, 120)) == bool(whole)
    flow = segmenter.part_means(read, (90, 120), box, known)[0]
    np.testing.assert_array_equal(flow, result.flow[:, *box.slices])
    given = replace(segmenter, diameter=20.0).predict(image)
    assert (given.diameter, given.recognition.measured) == (20.0, 0.0)


def test_windows_that_cannot_be_read_are_left_out(monkeypatch, caplog) -> None:
    monkeypatch.setattr(settled_diameter, "WHOLE", 0)
    monkeypatch.setattr(settled_diameter, "WINDOW", 160)
    labels = discs(30.0)

    def means_of(box, known):
        if box.left > 0:
            raise DataError("A chunk is damaged.")
        part = labels[box.slices]
        return 5 * labels_to_flows(part), np.where(part > 0, 5.0, -5.0), np.zeros(part.shape)

    found = settle(SEGMENTER, means_of, SHAPE, UNKNOWN)
    assert found.measured == pytest.approx(30, rel=0.05)
    assert "A chunk is damaged. The diameter is measured without it." in caplog.text


def test_windows_lie_in_the_image_whatever_its_shape() -> None:
    assert sample_boxes((1000, 1400)) == [(0, 1000, 0, 1400)]
    for shape in ((40, 90_000), (1300, 1300), (20_000, 30_000)):
        boxes = sample_boxes(shape)
        assert 1 < len(boxes) <= 9
        for box in boxes:
            assert 0 <= box.top < box.bottom <= shape[0]
            assert 0 <= box.left < box.right <= shape[1]


def test_a_diameter_and_rounds_exclude_each_other() -> None:
    check_config(InferenceConfig(diameter_rounds=3))
    with pytest.raises(ConfigError, match="--diameter and --diameter_rounds exclude"):
        check_config(InferenceConfig(diameter=20, diameter_rounds=1))

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from cellflow.config import MaskConfig, TrainConfig
from cellflow.engine.runtime.pipeline import THREAD_NAME
from cellflow.engine.segmentation import scoring
from cellflow.engine.segmentation import segmenter as segment
from cellflow.engine.segmentation.member import Member
from cellflow.engine.segmentation.result import Prediction
from cellflow.engine.segmentation.scoring import SCORE_COLUMNS, score_images, score_row
from cellflow.engine.segmentation.segmenter import Ready, Segmenter
from cellflow.errors import CellflowError, DataError
from cellflow.io.dataset import Dataset
from cellflow.nn.networks import Network, UNet
from cellflow.nn.runners import TorchRunner
from cellflow.synthetic import synthetic_dataset

PATIENCE = 20.0  # seconds until a test that waits for something gives up
MASK = MaskConfig(flow_threshold=0.0)


class BrightNet(Network):
    """Bright pixels are cells, and flow uphill. `before` is called with the number of each call."""

    style_size = 256

    def __init__(self, before: Callable[[int], object] = lambda number: None):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.before, self.calls = before, 0

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.before(self.calls)
        self.calls += 1
        smooth = nn.functional.avg_pool2d(batch[:, :1], 9, stride=1, padding=4)
        down, right = torch.gradient(smooth[:, 0], dim=(1, 2))
        flow = torch.stack([down, right], 1)
        flow = 5 * flow / flow.norm(dim=1, keepdim=True).clamp(min=1e-6)
        return torch.cat([flow, smooth - 0.4], 1), torch.ones(len(batch), 256)


class WithUnet(BrightNet):
    """With a small part of what the real architecture puts out, for the work it is."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet.build()

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output, style = super().forward(batch)
        return output + 0.01 * self.unet(batch)[0], style


def bright_segmenter(before: Callable[[int], object] = lambda number: None) -> Segmenter:
    net = BrightNet(before).eval()
    return Segmenter(
        [Member("bright", TorchRunner(net), 0, 0, diam_mean=17.0, diam_labels=17.0)], MASK
    )


def network_of(segmenter: Segmenter) -> nn.Module:
    return segmenter.members[0].net


def cells(count: int) -> list[NDArray[Any]]:
    """Small images of different sizes and types, each one tile for the network."""
    items = synthetic_dataset(count, shape=(64, 72), seed=3, per_group=1)
    images = [np.asarray(item.image)[: 48 + place % 3 * 8] for place, item in enumerate(items)]
    types = (np.uint8, np.uint16, np.float32)
    return [image.astype(types[place % 3]) for place, image in enumerate(images)]


def keyed(images: list[NDArray[Any]]) -> Iterator[tuple[int, NDArray[Any]]]:
    yield from enumerate(images)


def both(key: int, result: Prediction) -> tuple[int, Prediction]:
    return key, result


def assert_same(found: Prediction, expected: Prediction) -> None:
    for item in fields(Prediction):
        np.testing.assert_array_equal(getattr(found, item.name), getattr(expected, item.name))


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    assert not [t.name for t in threading.enumerate() if t.name.startswith(THREAD_NAME)]


def test_stream_gives_what_predict_gives() -> None:
    images = cells(12)
    segmenter = bright_segmenter()
    expected = [segmenter.predict(image) for image in images]
    assert sum(int(result.labels.max()) for result in expected) > 12
    results = list(segmenter.stream(keyed(images), both))
    assert [key for key, _ in results] == list(range(12))
    for (_, found), wanted in zip(results, expected, strict=True):
        assert_same(found, wanted)


def test_kernels_beside_a_torch_network() -> None:
    """Torch's threads and those of the kernels at once, with the flow check."""
    net = WithUnet().eval()
    mask = MaskConfig(flow_threshold=3.0)
    segmenter = Segmenter([Member("unet", TorchRunner(net), 0, 0, 17.0, 17.0)], mask)
    images = cells(4)
    expected = [segmenter.predict(image) for image in images]
    assert sum(int(result.labels.max()) for result in expected) > 4
    for key, found in segmenter.stream(keyed(images), both):
        assert_same(found, expected[key])


def test_the_network_starts_on_the_next_image_before_this_one_is_finished() -> None:
    count = 5
    started = [threading.Event() for _ in range(count)]
    segmenter = bright_segmenter(lambda number: started[number].set())

    def finish(key: int, result: Prediction) -> int:
        assert key + 1 == count or started[key + 1].wait(PATIENCE)
        return key

    assert list(segmenter.stream(keyed(cells(count)), finish)) == list(range(count))


def test_the_mask_step_runs_beside_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    count, numbers = 4, iter(range(4))
    started = [threading.Event() for _ in range(count)]
    segmenter = bright_segmenter(lambda number: started[number].set())
    real = segment.make_labels

    def slow(*args: Any) -> NDArray[np.int32]:
        number = next(numbers)
        assert number + 1 == count or started[number + 1].wait(PATIENCE)
        return real(*args)

    monkeypatch.setattr(segment, "make_labels", slow)
    assert len(list(segmenter.stream(keyed(cells(count)), both))) == count


def test_the_next_image_is_read_and_normalised_beside_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count, numbers = 4, iter(range(4))
    normal = [threading.Event() for _ in range(count)]
    real = segment.network_channels

    def noted(image: Any, *channels: int) -> NDArray[np.float32]:
        result = real(image, *channels)
        normal[next(numbers)].set()
        return result

    def before(number: int) -> None:
        assert number + 1 == count or normal[number + 1].wait(PATIENCE)

    monkeypatch.setattr(segment, "network_channels", noted)
    assert len(list(bright_segmenter(before).stream(keyed(cells(count)), both))) == count


def test_images_are_read_as_they_are_needed_and_flows_not_kept() -> None:
    image, count, read = cells(1)[0], 150, 0
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    def images() -> Iterator[tuple[int, NDArray[Any]]]:
        nonlocal read
        for key in range(count):
            read += 1
            yield key, image

    def finish(key: int, result: Prediction) -> int:
        alive.add(result)
        assert len(alive) == 1
        assert read <= key + 3
        return key

    stream = bright_segmenter().stream(images(), finish)
    assert read == 0
    for key in stream:
        assert read <= key + 3
    assert read == count
    assert not alive


@pytest.mark.parametrize("stage", ["reading", "normalising", "network", "mask step", "finish"])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_an_error_comes_at_the_turn_of_its_image(
    stage: str, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, numbers = cells(5), iter(range(5))
    real = segment.make_labels

    def fail(found: str, number: int) -> None:
        if found == stage and number == place:
            raise CellflowError(f"{stage} of image {number}")

    def read() -> Iterator[tuple[int, NDArray[Any]]]:
        for key, image in enumerate(images):
            fail("reading", key)
            bad = stage == "normalising" and key == place
            yield key, np.zeros(3) if bad else image

    def labels(*args: Any) -> NDArray[np.int32]:
        fail("mask step", next(numbers))
        return real(*args)

    def finish(key: int, result: Prediction) -> int:
        fail("finish", key)
        return key

    monkeypatch.setattr(segment, "make_labels", labels)
    segmenter = bright_segmenter(lambda number: fail("network", number))
    results = []
    message = "expected shape" if stage == "normalising" else f"{stage} of image {place}"
    with pytest.raises(DataError if stage == "normalising" else CellflowError, match=message):
        for key in segmenter.stream(read(), finish):
            results.append(key)
    assert results == list(range(place))


def test_leaving_early() -> None:
    segmenter = bright_segmenter()
    image = cells(1)[0]
    endless = ((key, image) for key in iter(int, 1))
    with closing(segmenter.stream(endless, both)) as stream:
        for place, _ in enumerate(stream):
            if place == 3:
                break
    assert network_of(segmenter).calls == 5


def test_score_images(tiny_config: TrainConfig) -> None:
    dataset = Dataset.open(tiny_config.data)
    segmenter = bright_segmenter()
    names = dataset.ids[::-1]
    rows = score_images(segmenter, dataset, names)
    assert rows == [
        {"id": name}
        | score_row(dataset.instances(name), segmenter.predict(dataset.image(name)).labels)
        for name in names
    ]
    assert list(rows[0]) == ["id", *SCORE_COLUMNS]
    assert score_images(segmenter, dataset, []) == []


def test_an_evaluation_can_be_interrupted(tiny_config: TrainConfig) -> None:
    dataset, checks = Dataset.open(tiny_config.data), 0
    threads = set()

    def check() -> None:
        nonlocal checks
        checks += 1
        threads.add(threading.get_ident())
        if checks == 3:
            raise TimeoutError("time is up")

    segmenter = bright_segmenter()
    with pytest.raises(TimeoutError, match="time is up"):
        score_images(segmenter, dataset, dataset.ids, check=check)
    assert network_of(segmenter).calls <= 4
    assert threads == {threading.get_ident()}
    checks = -10
    assert len(score_images(segmenter, dataset, dataset.ids, check=check)) == len(dataset)
    assert checks == -10 + len(dataset)


def test_a_second_pass_reads_no_image_again(
    tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, segmenter = Dataset.open(tiny_config.data), bright_segmenter()
    names, read = dataset.ids, list[str]()
    expected = score_images(segmenter, dataset, names)

    def image(self: Dataset, name: str) -> NDArray[Any]:
        read.append(name)
        return image_of(self, name)

    image_of = Dataset.image
    monkeypatch.setattr(Dataset, "image", image)
    ready: dict[str, Ready] = {}
    assert score_images(segmenter, dataset, names, ready=ready) == expected
    assert score_images(segmenter, dataset, names, ready=ready) == expected
    assert (read, list(ready)) == (names, names)

    one = sum(array.nbytes for array in ready[names[0]])
    monkeypatch.setattr(scoring, "READY_BYTES", one)
    few: dict[str, Ready] = {}
    assert score_images(segmenter, dataset, names, ready=few) == expected
    assert score_images(segmenter, dataset, names, ready=few) == expected
    assert list(few) == names[:1]
    assert read == [*names, *names, *names[1:]]

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellflow.errors import DataError
from cellflow.io.images import read_image
from cellflow.numeric.labels import outlines
from cellflow.report.overlays import PREDICTED_COLOR, write_outlines
from cellflow.rng import generator

LINE = np.rint(255 * np.array(PREDICTED_COLOR)).astype(int)


def labels_of(shape: tuple[int, int]) -> np.ndarray:
    labels = np.zeros(shape, np.int32)
    labels[2:9, 3:12] = 1
    labels[9:14, 3:12] = 2  # touches the first
    labels[-4:, -5:] = 3  # touches the border
    return labels


def written(tmp_path: Path, image: Any, labels: Any) -> np.ndarray:
    path = tmp_path / "outlines" / "x.png"
    write_outlines(path, image, labels)
    assert [item.name for item in path.parent.iterdir()] == ["x.png"]
    picture = read_image(path)
    assert picture.dtype == np.uint8
    assert picture.shape == (*labels.shape, 3)
    return picture.astype(int)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [None, 1, 2, 3])
def test_lines_lie_on_the_scaled_image(tmp_path: Path, dtype: Any, channels: int | None) -> None:
    shape = (25, 31)
    size = shape if channels is None else (*shape, channels)
    image = generator(0, "overlay").integers(10, 200, size).astype(dtype) * dtype(1)
    labels = labels_of(shape)
    picture, edge = written(tmp_path, image, labels), outlines(labels)
    assert (picture[edge] == LINE).all()
    planes = image if channels == 3 else np.stack([image.reshape(*shape, -1).mean(axis=2)] * 3, -1)
    for channel in range(3):
        plane = planes[..., channel].astype(np.float64)
        low, high = np.percentile(plane, (0.5, 99.5))
        expected = np.rint(255 * np.clip((plane - low) / (high - low), 0, 1))
        assert np.abs(picture[..., channel] - expected)[~edge].max() <= 1
    assert edge.sum() == 2 * (7 + 9) - 4 + 2 * (5 + 9) - 4 + 2 * (4 + 5) - 4


def test_lines_are_seen_on_dark_and_on_bright_pixels(tmp_path: Path) -> None:
    image = np.zeros((30, 40), np.uint16)
    image[:, 20:] = 4000
    labels = np.zeros(image.shape, np.int32)
    labels[5:25, 10:30] = 1
    picture = written(tmp_path, image, labels)
    dark, bright = picture[0, 0], picture[0, 39]
    assert (dark.tolist(), bright.tolist()) == ([0, 0, 0], [255, 255, 255])
    for background, line in ((dark, picture[12, 10]), (bright, picture[12, 29])):
        assert np.abs(background - line).max() > 128


@pytest.mark.parametrize("image", [np.full((20, 30), 7, np.uint8), np.zeros((20, 30), np.float32)])
def test_an_image_of_one_value(tmp_path: Path, image: np.ndarray) -> None:
    picture = written(tmp_path, image, np.zeros((20, 30), np.int32))
    assert (picture == 0).all()


def test_a_single_pixel(tmp_path: Path) -> None:
    assert (written(tmp_path, np.ones((1, 1)), np.ones((1, 1), np.int32)) == LINE).all()


def test_a_label_map_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.png: .*\(20, 30\) and \(30, 20\)"):
        write_outlines(tmp_path / "x.png", np.zeros((20, 30)), np.zeros((30, 20), np.int32))
    assert not list(tmp_path.iterdir())

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import ndimage

from cellflow.synthetic import CELL_TYPES, synthetic_dataset, synthetic_image


@pytest.mark.parametrize("kind", CELL_TYPES)
def test_image_and_labels_fit(kind: str) -> None:
    image, labels = synthetic_image(kind, shape=(200, 264), seed=3)
    assert image.shape == labels.shape == (200, 264)
    assert image.dtype == np.uint8
    assert labels.dtype == np.int32
    areas = np.bincount(labels.ravel())[1:]
    assert len(areas) >= 8
    assert areas.min() > 0, "labels are numbered without gaps"
    assert 14 <= np.median(2 * np.sqrt(areas / np.pi)) <= 34
    assert image.std() > 8


@pytest.mark.parametrize("kind", CELL_TYPES)
def test_every_cell_is_one_part_and_some_touch(kind: str) -> None:
    _, labels = synthetic_image(kind, seed=5)
    for number in range(1, labels.max() + 1):
        assert ndimage.label(labels == number, np.ones((3, 3)))[1] == 1
    right = (labels[:, 1:] != labels[:, :-1]) & (labels[:, 1:] > 0) & (labels[:, :-1] > 0)
    assert right.sum() > 10


@pytest.mark.parametrize("kind", CELL_TYPES)
def test_same_seed_same_pixels(kind: str) -> None:
    first, second, other = (synthetic_image(kind, seed=seed) for seed in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[1], other[1])


def test_a_256_square_takes_well_under_a_tenth_of_a_second() -> None:
    def seconds(kind: str, seed: int) -> float:
        start = time.process_time()
        synthetic_image(kind, seed=seed)
        return time.process_time() - start

    assert min(seconds("spread", seed) for seed in range(8)) < 0.1


def test_dataset_has_all_types_and_groups_that_share_their_light() -> None:
    items = list(synthetic_dataset(12, shape=(128, 128), seed=1))
    assert [item.id for item in items] == list(dict.fromkeys(item.id for item in items))
    assert {item.cell_type for item in items} == set(CELL_TYPES)
    assert len({item.group for item in items}) == 6
    light = {item.id: np.median(item.image[item.labels == 0]) for item in items}
    values = np.array([light[item.id] for item in items]).reshape(6, 2)
    within = np.abs(values[:, 0] - values[:, 1]).mean()
    between = np.abs(values[1:, 0] - values[:-1, 1]).mean()
    assert within < between / 2


def test_dataset_does_not_depend_on_its_length() -> None:
    short = list(synthetic_dataset(3, shape=(96, 96), seed=4))
    long = list(synthetic_dataset(5, shape=(96, 96), seed=4))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(short, long, strict=False))


def test_the_image_shows_where_the_cells_are() -> None:
    for kind in CELL_TYPES:
        image, labels = synthetic_image(kind, seed=2)
        smooth = ndimage.gaussian_filter(image.astype(np.float32), 25)
        edge = np.abs(image - smooth)
        near = ndimage.binary_dilation(labels > 0, iterations=2)
        assert edge[near].mean() > 2 * edge[~near].mean()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="kind: expected one of round, spindle, spread"):
        synthetic_image("square")
    with pytest.raises(ValueError, match="at least 64 pixels"):
        synthetic_image("round", shape=(32, 200))

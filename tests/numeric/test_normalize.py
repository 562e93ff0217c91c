from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import Oracle

from cellflow.errors import DataError
from cellflow.numeric.normalize import (
    network_channels,
    normalize_percentile,
    select_channels,
)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int32, bool])
def test_percentiles_equal_cellpose(dtype):
    normalize_img = Oracle("transforms").normalize_img

    image = (np.random.default_rng(0).gamma(2, 20, (3, 61, 47))).clip(0, 255).astype(dtype)
    image[1] = 1  # constant
    image[2] = 0
    ours = normalize_percentile(image)
    assert np.array_equal(ours, normalize_img(image.astype(np.float32), axis=0))
    assert np.isfinite(ours).all()
    assert (ours[1] == 1).all()
    assert not ours[2].any()
    half = normalize_img(image.astype(np.float32), axis=0, percentile=(10, 50))
    assert np.array_equal(normalize_percentile(image, 10, 50), half)


@given(factor=st.floats(1e-300, 1e300), seed=st.integers(0, 99))
def test_the_unit_of_an_image_does_not_matter(factor: float, seed: int) -> None:
    image = np.random.default_rng(seed).gamma(2, 20, (20, 24))
    expected = network_channels(image)
    scaled = network_channels(image * factor)
    assert np.allclose(scaled, expected, atol=1e-5)
    assert scaled[0].max() > 0.9


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ranges_below_a_thousandth_count(dtype: type) -> None:
    image = np.linspace(0, 1, 400).reshape(20, 20) * 6e-4
    found = network_channels(image.astype(dtype))[0]
    assert np.allclose(found.min(), -0.01, atol=0.01) and np.allclose(found.max(), 1.01, atol=0.01)


def test_rounding_is_no_signal() -> None:
    image = np.full((20, 20), 1e6, np.float32)
    image[::2] = np.nextafter(np.float32(1e6), np.float32(2e6))
    assert not network_channels(image).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_few_cells_on_an_empty_ground_are_seen(dtype: type) -> None:
    """Cellpose makes such an image 0, because both percentiles are the ground."""
    image = np.full((100, 100), 3, dtype)
    image[40:46, 40:46] = 103
    found = network_channels(image)[0]
    assert found[0, 0] == 0 and found[42, 42] == 1
    dark = network_channels(106 - image)[0]
    assert dark[0, 0] == 1 and dark[42, 42] == 0


def test_negative_numbers() -> None:
    image = np.random.default_rng(0).normal(size=(30, 30)) * 50
    assert np.allclose(network_channels(image), network_channels(image + 1000), atol=1e-3)


def test_normalize_leaves_its_input_alone_and_takes_empty_images():
    image = np.arange(50, dtype=np.float32).reshape(2, 5, 5)
    normalize_percentile(image)
    assert image[1, 4, 4] == 49
    assert normalize_percentile(np.zeros((1, 0, 3))).shape == (1, 0, 3)


@pytest.mark.parametrize("channels", [[0, 0], [0, 2], [1, 0], [2, 3], [3, 3]])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 3)])
def test_channels_equal_cellpose(channels, shape):
    reshape = Oracle("transforms").reshape

    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    theirs = reshape(image.astype(np.float32), channels=channels)
    assert np.array_equal(select_channels(image, *channels), theirs.transpose(2, 0, 1))


def test_missing_channels():
    image = np.zeros((8, 8, 2))
    with pytest.raises(DataError, match=r"chan2: expected 0 to 2 .* found 3"):
        select_channels(image, 1, 3)
    with pytest.raises(DataError, match=r"chan: expected 0 to 2 .* found -1"):
        select_channels(image, -1)
    with pytest.raises(DataError, match="expected shape"):
        select_channels(np.zeros((2, 2, 2, 2)))


def test_bad_images():
    with pytest.raises(DataError, match="channel 1 holds NaN"):
        normalize_percentile(np.array([[[0.0]], [[np.nan]]]))
    with pytest.raises(DataError, match="C, H, W"):
        normalize_percentile(np.zeros((2, 2)))
    with pytest.raises(DataError, match="real numbers"):
        normalize_percentile(np.zeros((1, 2, 2), complex))

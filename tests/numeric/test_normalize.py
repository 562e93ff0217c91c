from __future__ import annotations

import cv2
import numpy as np
import pytest

from cellflow.errors import DataError
from cellflow.numeric.normalize import normalize_percentile, resize_linear, select_channels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int32, bool])
def test_percentiles_equal_cellpose(dtype):
    from cellpose.transforms import normalize_img

    image = (np.random.default_rng(0).gamma(2, 20, (3, 61, 47))).clip(0, 255).astype(dtype)
    image[1] = 1  # constant
    image[2] = 0
    image[2, 3, 3] = 1  # not constant, but its percentiles are
    ours = normalize_percentile(image)
    assert np.array_equal(ours, normalize_img(image.astype(np.float32), axis=0))
    assert np.isfinite(ours).all()
    assert (ours[1] == 1).all()
    assert not ours[2].any()
    half = normalize_img(image.astype(np.float32), axis=0, percentile=(10, 50))
    assert np.array_equal(normalize_percentile(image, 10, 50), half)


def test_normalize_leaves_its_input_alone_and_takes_empty_images():
    image = np.arange(50, dtype=np.float32).reshape(2, 5, 5)
    normalize_percentile(image)
    assert image[1, 4, 4] == 49
    assert normalize_percentile(np.zeros((1, 0, 3))).shape == (1, 0, 3)


@pytest.mark.parametrize("channels", [[0, 0], [0, 2], [1, 0], [2, 3], [3, 3]])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 3)])
def test_channels_equal_cellpose(channels, shape):
    from cellpose.transforms import reshape

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


@pytest.mark.parametrize("shape", [(30, 41), (7, 90), (60, 82), (1, 1), (25, 33)])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_resize_equals_cellpose(shape, channels):
    from cellpose.transforms import resize_image

    image = np.random.default_rng(0).normal(size=(channels, 25, 33)).astype(np.float32)
    theirs = resize_image(image.transpose(1, 2, 0), *shape, interpolation=cv2.INTER_LINEAR)
    ours = resize_linear(image, shape)
    assert np.array_equal(ours, theirs.reshape(*shape, channels).transpose(2, 0, 1))


def test_bad_images():
    with pytest.raises(DataError, match="channel 1 holds NaN"):
        normalize_percentile(np.array([[[0.0]], [[np.nan]]]))
    with pytest.raises(DataError, match="percentiles"):
        normalize_percentile(np.zeros((1, 2, 2)), 99, 1)
    with pytest.raises(DataError, match="C, H, W"):
        normalize_percentile(np.zeros((2, 2)))
    with pytest.raises(DataError, match="real numbers"):
        normalize_percentile(np.zeros((1, 2, 2), complex))
    with pytest.raises(DataError, match="one pixel"):
        resize_linear(np.zeros((1, 2, 2)), (0, 3))
    with pytest.raises(DataError, match="empty"):
        resize_linear(np.zeros((1, 0, 2)), (3, 3))

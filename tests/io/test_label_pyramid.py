from __future__ import annotations

import numpy as np
import pytest
import yaozarrs
import zarr

from cellflow.io.label_pyramid import create_label_pyramid, level_shapes
from cellflow.io.pixel_size import PixelSize
from cellflow.types import Box


@pytest.mark.parametrize("shape", [(1300, 900), (513, 40), (512, 512)])
def test_levels_are_every_second_pixel_of_the_one_below(tmp_path, shape):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 70_000, shape)
    path = tmp_path / "labels.zarr"
    pyramid = create_label_pyramid(
        path, shape, chunk=256, largest=70_000, pixel_size=PixelSize(0.5, 0.25)
    )
    for top in range(0, shape[0], 256):
        box = Box(top, min(top + 256, shape[0]), 0, shape[1])
        pyramid.write(box, labels[box.slices])
    for level, smaller in enumerate(level_shapes(shape)[1:], 1):
        assert pyramid.shape(level) == smaller
        for left in range(0, smaller[1], 256):
            box = Box(0, smaller[0], left, min(left + 256, smaller[1]))
            pyramid.shrink(box, level)
        step = 2**level
        found = zarr.open_array(path / str(level))[:]
        np.testing.assert_array_equal(found, labels[::step, ::step])
        assert found.dtype == np.uint32
    yaozarrs.validate_zarr_store(path)
    scales = [
        item["coordinateTransformations"][0]["scale"]
        for item in zarr.open_group(path).attrs["ome"]["multiscales"][0]["datasets"]
    ]
    assert scales[0] == [0.5, 0.25]
    assert scales[-1] == [0.5 * 2 ** (len(scales) - 1), 0.25 * 2 ** (len(scales) - 1)]

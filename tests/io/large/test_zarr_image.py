"""OME-Zarr images read box by box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr_files import write_image

from cellflow.io.images import read_image
from cellflow.io.large import open_large_image
from cellflow.io.pixel_size import PixelSize
from cellflow.types import Box

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 60_000, (50, 70), dtype=np.uint16)
COLOUR = RNG.integers(0, 256, (3, 50, 70), dtype=np.uint8)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["yx", "cyx", "tczyx", "yxc"])
@pytest.mark.parametrize("chunks", ["small", "planes", "sharded"])
def test_boxes_are_those_of_the_whole(tmp_path: Path, version: str, axes: str, chunks: str) -> None:
    pixels: Any = {
        "yx": GREY,
        "cyx": COLOUR,
        "tczyx": COLOUR[None, :, None],
        "yxc": np.moveaxis(COLOUR, 0, -1),
    }[axes]
    options: dict[str, Any] = {}
    if chunks == "planes":
        options["chunks"] = pixels.shape
    if chunks == "sharded" and version == "0.5":
        options = {"chunks": tuple(min(8, n) for n in pixels.shape)}
        options["shards"] = tuple(16 if n >= 16 else n for n in pixels.shape)
    path = write_image(tmp_path / "a.zarr", pixels, axes, version=version, **options)
    whole = read_image(path)
    with open_large_image(path) as image:
        assert image.levels == ((50, 70), (25, 35))
        assert image.channels == (whole.shape[2] if whole.ndim == 3 else 1)
        assert image.dtype == whole.dtype
        for box in (image.box, Box(0, 1, 0, 1), Box(13, 50, 15, 70), Box(16, 32, 16, 32)):
            found = image.read(box)
            assert found.dtype == whole.dtype and np.array_equal(found, whole[box.slices])
        assert np.array_equal(image.read(Box(3, 20, 5, 30), level=1), whole[::2, ::2][3:20, 5:30])
        assert image.pixel_size() == PixelSize(0.5, 0.25)
    with open_large_image(path, level=1) as image:
        assert image.shape == (25, 35) and image.factor() == (2.0, 2.0)
        assert image.pixel_size() == PixelSize(1.0, 0.5)
        assert np.array_equal(image.read(image.box), whole[::2, ::2])

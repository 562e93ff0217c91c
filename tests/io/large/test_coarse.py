"""Few pixels that stand for a large image."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr_files import write_image

from cellflow.io.large import ArrayImage, coarse_pixels, open_large_image

RNG = np.random.default_rng(0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 4000), st.integers(1, 2))
def test_every_kth_row_and_column(height: int, width: int, most: int, channels: int) -> None:
    pixels = RNG.integers(0, 255, (height, width, channels), dtype=np.uint8)
    pixels = pixels[..., 0] if channels == 1 else pixels
    found = coarse_pixels(ArrayImage(Path("a"), pixels), most)
    k = next(k for k in range(1, 61) if pixels[::k, ::k, ...].size // channels <= most)
    assert np.array_equal(found.pixels, pixels[::k, ::k]) and found.step == k
    assert found.factor == (k, k) and found.level == 0


@pytest.mark.parametrize("level", [0, 1])
def test_the_finest_level_that_is_small_enough(tmp_path: Path, level: int) -> None:
    pixels = RNG.integers(0, 60_000, (80, 120), dtype=np.uint16)
    path = write_image(tmp_path / "a.zarr", pixels, "yx", levels=3)
    with open_large_image(path, level=level) as image:
        whole = coarse_pixels(image)
        assert np.array_equal(whole.pixels, image.read(image.box))
        assert whole.factor == (1.0, 1.0) and whole.level == level
        found = coarse_pixels(image, 40 * 60)
        assert np.array_equal(found.pixels, pixels[::2, ::2]) and found.level == 1
        assert found.factor == (2.0 / (1 + level), 2.0 / (1 + level)) and found.step == 1
        few = coarse_pixels(image, 100)
        assert np.array_equal(few.pixels, pixels[::4, ::4][::3, ::3]) and few.level == 2
        assert few.factor == (12.0 / (1 + level), 12.0 / (1 + level))


@pytest.mark.parametrize("options", [{"tile": (48, 64)}, {"rowsperstrip": 5}, {}])
def test_boxes_of_all_kinds_of_chunks(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cellflow.io.large import coarse

    monkeypatch.setattr(coarse, "_AT_ONCE", 5000)
    monkeypatch.setattr(coarse, "_SIDE", 70)
    pixels = RNG.integers(0, 60_000, (300, 400), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="zlib", **options)
    with open_large_image(tmp_path / "a.tif") as image:
        found = coarse_pixels(image, 2000)
    assert found.step == 8 and np.array_equal(found.pixels, pixels[::8, ::8])


def test_little_memory(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", np.zeros((9, 9), np.uint8), "yx", levels=1)
    shape = (30_000, 20_000)
    zarr.create_array(
        str(path / "0"), shape=shape, chunks=(2048, 2048), dtype="uint8", overwrite=True
    )
    tracemalloc.start()
    with open_large_image(path) as image:
        found = coarse_pixels(image, 10_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.pixels.shape == (122, 81) and found.step == 247
    assert peak < 3 * 2**25  # of 6e8

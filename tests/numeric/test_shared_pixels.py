from __future__ import annotations

import tracemalloc
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellflow.io.images import read_image
from cellflow.numeric import shared_pixels
from cellflow.numeric.shared_pixels import overlaps, window_marks


@pytest.fixture(scope="module")
def mosaic() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (300, 400), np.uint8)


PLACES = st.tuples(st.integers(0, 180), st.integers(0, 250))


@settings(deadline=None, max_examples=40)
@given(PLACES, PLACES)
def test_crops_overlap_as_their_places_say(one: tuple[int, int], other: tuple[int, int]):
    image = np.random.default_rng(0).integers(0, 255, (300, 400), np.uint8)
    crops = [image[y : y + 120, x : x + 150] for y, x in (one, other)]
    shared = [120 - abs(one[0] - other[0]), 150 - abs(one[1] - other[1])]
    found = overlaps([window_marks(crop) for crop in crops])
    if min(shared) >= 30:
        assert found == [(0, 1, *shared)]
    elif min(shared) < 8:
        assert found == []
    else:
        assert found in ([], [(0, 1, *shared)])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, "rgb"])
def test_all_kinds_of_pixels(mosaic: np.ndarray, dtype: object):
    image = np.stack([mosaic] * 3, axis=-1) if dtype == "rgb" else mosaic.astype(dtype)
    parts = [image[:200, :220], image[150:, 180:], image[:40, 230:]]
    assert overlaps([window_marks(part) for part in parts]) == [(0, 1, 50, 40)]


def test_tiles_that_only_touch_flat_images_and_frames_share_nothing(mosaic: np.ndarray):
    tiles = [mosaic[y : y + 150, x : x + 200] for y, x in product((0, 150), (0, 200))]
    flat = [np.zeros((100, 100), np.uint8), np.full((100, 100), 255, np.uint8), np.ones((5, 5))]
    bars = [tile.copy() for tile in tiles]
    for bar in bars:  # the same text burnt into each
        bar[100:140, 20:120] = mosaic[:40, :100][::-1]
    assert overlaps([window_marks(image) for image in [*tiles, *flat]]) == []
    assert overlaps([window_marks(image) for image in bars]) == []
    assert overlaps([]) == []


def test_a_large_image_is_marked_band_by_band(monkeypatch: pytest.MonkeyPatch):
    image = np.random.default_rng(1).integers(0, 255, (1200, 1000), np.uint8)
    tracemalloc.start()
    marks = window_marks(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * image.nbytes
    monkeypatch.setattr(shared_pixels, "_BAND", image.size)
    whole = window_marks(image)
    assert np.array_equal(marks.hashes, whole.hashes) and np.array_equal(marks.yx, whole.yx)
    assert marks.yx[:, 0].max() > 1100


def test_crops_of_real_images(shared: Path):
    """Two crops of 520 x 704 of each source image have 18 x 384 pixels in common."""
    files = sorted((shared / "data" / "kaggle_layout" / "train").glob("*.png"))
    found = overlaps([window_marks(read_image(file)) for file in files])
    names = {(files[one].stem, files[other].stem) for one, other, *_ in found}
    assert names == {
        (f.stem, f"{f.stem[:-1]}1") for f in files if f.stem.endswith("_0") and len(f.stem) == 7
    }
    assert {(item.height, item.width) for item in found} == {(18, 384)}

"""Slides read box by box by OpenSlide."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellflow.errors import DataError, PackageError
from cellflow.io.images import read_image
from cellflow.io.large import open_large_image
from cellflow.io.large.slide_image import SlideImage, _on_white
from cellflow.io.pixel_size import PixelSize
from cellflow.io.source import FileImage
from cellflow.types import Box

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (1301, 1003, 3), dtype=np.uint8)
APERIO = "Aperio Image Library v11.2.1\r\n1003x1301 (256x256) JPEG/RGB Q=70|AppMag = 20|MPP = 0.499|Filename = a"
ODD = Box(250, 1301, 490, 1003)


def write_slide(path: Path, *, aperio: bool = True, **options: Any) -> list[Any]:
    """Levels 1, 2 and 4 times smaller in pages of their own, after the first a thumbnail, as Aperio writes them."""
    height, width = NOISE.shape[:2]
    levels = [NOISE] + [NOISE[::n, ::n][: height // n, : width // n] for n in (2, 4)]
    more: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(levels):
            kind = {"subfiletype": 1} if number and not aperio else {}
            description = APERIO if aperio else None
            tiff.write(level, description=description, **kind, **more, **options)
            if aperio and not number:
                tiff.write(NOISE[::9, ::9], photometric="rgb", metadata=None, compression="jpeg")
    return levels


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    pytest.importorskip("openslide")
    path = tmp_path / "a.svs"
    write_slide(path, compression="jpeg")
    return path


def test_boxes_of_a_slide(slide: Path) -> None:
    with tifffile.TiffFile(slide) as tiff:
        stored = tiff.series[0].asarray()  # what another library makes of it
    with open_large_image(slide) as image:
        assert isinstance(image, SlideImage) and image.dtype == np.uint8 and image.channels == 3
        assert image.levels == ((1301, 1003), (650, 501), (325, 250))
        for box in (ODD, Box(0, 1, 0, 1), Box(511, 513, 511, 513)):
            assert np.array_equal(image.read(box), stored[box.slices])
        assert image.pixel_size() == PixelSize(0.499, 0.499)
    assert np.array_equal(read_image(slide), stored)
    assert FileImage("a", slide).stored_size() == PixelSize(0.499, 0.499)


def test_a_pixel_does_not_depend_on_its_box(tmp_path: Path) -> None:
    """Levels are not whole numbers of times smaller, where OpenSlide would interpolate as a box lies."""
    pytest.importorskip("openslide")
    levels = write_slide(tmp_path / "a.svs", aperio=False, compression="zlib")
    with open_large_image(tmp_path / "a.svs", level=1) as image:
        whole = image.read(image.box)
        assert whole.shape == levels[1].shape
        assert np.array_equal(
            whole[:512, :501], levels[1][:512, :501]
        )  # at 0, 0 nothing is between pixels
        for box in (Box(3, 77, 5, 91), Box(500, 650, 400, 501), Box(511, 514, 0, 501)):
            assert np.array_equal(image.read(box), whole[box.slices])
        height, width = image.factor()
        assert height == width == pytest.approx(2, rel=1e-2)


def test_a_slide_opens_as_tiff_by_its_ending(tmp_path: Path) -> None:
    levels = write_slide(tmp_path / "a.tif", compression="zlib")
    with open_large_image(tmp_path / "a.tif", level=1) as image:
        assert not isinstance(image, SlideImage)
        assert np.array_equal(image.read(image.box), levels[1])


def test_threads_read_at_once(slide: Path) -> None:
    with open_large_image(slide) as image, ThreadPoolExecutor(4) as pool:
        whole = image.read(image.box)
        boxes = [Box(i, i + 300, i, i + 200) for i in range(0, 700, 50)] * 2
        for box, found in zip(boxes, pool.map(image.read, boxes), strict=True):
            assert np.array_equal(found, whole[box.slices])


def test_a_damaged_tile_and_sound_ones(slide: Path) -> None:
    with tifffile.TiffFile(slide) as tiff:
        place, length = tiff.pages.first.dataoffsets[0], tiff.pages.first.databytecounts[0]
        sound = tiff.series[0].asarray()
    data = bytearray(slide.read_bytes())
    data[place + 300 : place + length] = bytes(length - 300)
    slide.write_bytes(data)
    with open_large_image(slide) as image:
        for _ in range(2):
            with pytest.raises(
                DataError, match=r"a\.svs, level 0, rows 0 to 9, columns 0 to 9: damaged or trunc"
            ):
                image.read(Box(0, 9, 0, 9))
            box = Box(600, 700, 600, 700)
            assert np.array_equal(image.read(box), sound[box.slices])


def test_what_is_no_slide(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    (tmp_path / "a.svs").write_text("no slide")
    with pytest.raises(DataError, match=r"a\.svs: OpenSlide does not know this file"):
        open_large_image(tmp_path / "a.svs")
    with pytest.raises(DataError, match=r"gone\.ndpi: there is no such file"):
        open_large_image(tmp_path / "gone.ndpi")


def test_an_unknown_level(slide: Path) -> None:
    with pytest.raises(
        DataError, match=r"no level 3; it has 0 \(1301 x 1003\), 1 \(650 x 501\), 2 "
    ):
        open_large_image(slide, level=3)


def test_without_openslide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    (tmp_path / "a.svs").write_text("x")
    with pytest.raises(PackageError, match=r"pip install 'cellflow\[slides\]'"):
        open_large_image(tmp_path / "a.svs")


def test_what_was_not_scanned_is_white() -> None:
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [100, 0, 200, 51]]], np.uint8)
    assert _on_white(pixels).tolist() == [[[10, 20, 30], [255, 255, 255], [224, 204, 244]]]

"""TIFFs read box by box: what whole reads give."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiff_files import GREY, KINDS, PLANES, PYRAMIDS, RGB, write_kinds, write_pyramid

from cellflow.errors import DataError
from cellflow.io.images import read_image
from cellflow.io.large import ArrayImage, LargeImage, open_large_image
from cellflow.io.large.tiff_image import TiffImage
from cellflow.io.pixel_size import PixelSize
from cellflow.types import Box

WHOLE = {"no-name-packed"}
"""Kinds that can only be read whole."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_kinds(tmp_path_factory.mktemp("tiffs"))


@pytest.mark.parametrize("name", KINDS)
def test_boxes_are_those_of_the_whole(files: dict[str, Path], name: str) -> None:
    whole = read_image(files[name])
    with open_large_image(files[name]) as image:
        assert isinstance(image, ArrayImage if name in WHOLE else TiffImage)
        assert image.shape == whole.shape[:2] and image.dtype == whole.dtype
        assert image.channels == (whole.shape[2] if whole.ndim == 3 else 1)

        @settings(max_examples=25, deadline=None)
        @given(st.data())
        def check(data: st.DataObject) -> None:
            box = a_box(data, image)
            found = image.read(box)
            assert found.dtype == whole.dtype and found.flags.c_contiguous
            assert np.array_equal(found, whole[box.slices])

        check()
        assert np.array_equal(image.read(image.box), whole)


def a_box(data: st.DataObject, image: LargeImage) -> Box:
    """Any box of the level in use, of which many touch its rims."""
    ends = [
        sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2))) for n in image.shape
    ]
    return Box(*ends[0], *ends[1])


@pytest.mark.parametrize("name", PYRAMIDS)
def test_levels(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.tif"
    pixels, options = PYRAMIDS[name]
    levels = write_pyramid(path, pixels, **options)
    whole = read_image(path)
    if options.get("axes") == "CYX":
        levels = [np.moveaxis(level, 0, -1) for level in levels]
    if name == "turned":
        levels = [np.rot90(level) for level in levels]
    assert np.array_equal(whole, levels[0])
    for number, level in enumerate(levels):
        with open_large_image(path, level=number) as image:
            assert image.levels == tuple(item.shape[:2] for item in levels)
            assert image.shape == level.shape[:2] and image.level == number
            assert image.factor() == (2.0**number, 2.0**number)
            assert np.array_equal(image.read(image.box), level)
            box = Box(3, image.shape[0] - 1, 5, image.shape[1])
            assert np.array_equal(image.read(box), level[box.slices])
            assert np.array_equal(image.read(Box(0, 9, 0, 9), level=0), whole[:9, :9])
            assert f"level {number} of 3" in repr(image)


def test_an_unknown_level_and_a_box_outside(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_pyramid(path, GREY, subifds=True)
    sizes = r"0 \(90 x 70\), 1 \(45 x 35\), 2 \(23 x 18\) \(height x width\)"
    for level in (3, -1):
        with pytest.raises(DataError, match=rf"a\.tif: there is no level {level}; it has {sizes}"):
            open_large_image(path, level=level)
    with open_large_image(path, level=1) as image:
        outside = (Box(0, 46, 0, 35), Box(-1, 3, 0, 3), Box(0, 3, 30, 36), Box(5, 3, 0, 1))
        for box in outside:
            with pytest.raises(DataError, match=r"is not inside level 1, which has 45 x 35 pixels"):
                image.read(box)
        with pytest.raises(DataError, match="there is no level 7"):
            image.read(Box(0, 1, 0, 1), level=7)
        assert image.read(Box(4, 4, 0, 35)).shape == (0, 35)


def test_pixel_sizes_and_names_of_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {
        "axes": "CYX",
        "PhysicalSizeX": 0.25,
        "PhysicalSizeY": 0.5,
        "Channel": {"Name": ["DAPI", "GFP", "RFP"]},
    }
    with tifffile.TiffWriter(path, ome=True) as tiff:
        options: dict[str, Any] = {"photometric": "minisblack", "tile": (32, 32)}
        tiff.write(PLANES, subifds=1, metadata=metadata, **options)
        tiff.write(PLANES[:, ::2, ::2], subfiletype=1, **options)
    with open_large_image(path) as image:
        assert image.pixel_size() == PixelSize(0.5, 0.25)
        assert image.channel_names() == ("DAPI", "GFP", "RFP")
    with open_large_image(path, level=1) as image:
        assert image.pixel_size() == PixelSize(1.0, 0.5)
    with open_large_image(path, level=1, pixel_size=PixelSize(2.0, 3.0)) as image:
        assert image.pixel_size() == PixelSize(4.0, 6.0)


def test_planes_in_other_files(tmp_path: Path) -> None:
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{}"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="70" SizeY="90" SizeC="2" '
        'SizeZ="1" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        '<Channel ID="Channel:0:1" SamplesPerPixel="1"/>'
        '<TiffData FirstC="0" IFD="0" PlaneCount="1"><UUID FileName="a0.ome.tif">urn:uuid:0</UUID></TiffData>'
        '<TiffData FirstC="1" IFD="0" PlaneCount="1"><UUID FileName="a1.ome.tif">urn:uuid:1</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    for compression in (None, "zlib"):
        for number, plane in enumerate((GREY, GREY[::-1])):
            tifffile.imwrite(
                tmp_path / f"a{number}.ome.tif", plane, description=xml.format(number), metadata=None,
                ome=False, rowsperstrip=8, compression=compression,
            )  # fmt: skip
        whole = read_image(tmp_path / "a0.ome.tif")
        with open_large_image(tmp_path / "a0.ome.tif") as image:
            assert isinstance(image, TiffImage)
            assert np.array_equal(image.read(image.box), whole)
            assert np.array_equal(image.read(Box(7, 9, 60, 70)), whole[7:9, 60:70])


def test_threads_read_at_once(files: dict[str, Path]) -> None:
    boxes = [Box(i, i + 40, i // 2, i // 2 + 30) for i in range(50)] * 4
    for name in ("strips", "jpeg", "plain", "planar"):
        whole = read_image(files[name])
        with open_large_image(files[name]) as image, ThreadPoolExecutor(4) as pool:
            for box, found in zip(boxes, pool.map(image.read, boxes), strict=True):
                assert np.array_equal(found, whole[box.slices])


def test_files_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, compression="zlib")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with open_large_image(path) as image:
            image.read(image.box)
        with pytest.raises(DataError):
            open_large_image(path, level=3)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_picture_is_kept_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    with open_large_image(path) as image:
        assert isinstance(image, ArrayImage) and image.levels == ((90, 70),) and image.channels == 3
        found = image.read(Box(3, 9, 2, 8))
        assert np.array_equal(found, RGB[3:9, 2:8])
        found[:] = 0  # its own
        assert np.array_equal(image.read(Box(3, 9, 2, 8)), RGB[3:9, 2:8])
    with pytest.raises(DataError, match=r"a\.png: there is no level 1; it has 0 \(90 x 70\)"):
        open_large_image(path, level=1)

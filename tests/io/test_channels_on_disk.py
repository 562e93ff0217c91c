"""Images of any number of channels, wherever their axis lies in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from cellflow.errors import DataError
from cellflow.io.images import image_shape, read_image, write_planes

RNG = np.random.default_rng(0)
SEVEN = RNG.integers(0, 60_000, (7, 40, 30), dtype=np.uint16)
LAST = np.moveaxis(SEVEN, 0, -1)


def write(path: Path, kind: str) -> Path:
    """Seven channels as programs save them."""
    grey: dict[str, Any] = {"photometric": "minisblack"}
    if kind == "ome":
        tifffile.imwrite(path, SEVEN, metadata={"axes": "CYX"}, ome=True, **grey)
    elif kind == "ome samples":
        tifffile.imwrite(
            path, LAST, metadata={"axes": "YXC"}, ome=True, planarconfig="contig", **grey
        )
    elif kind == "ome with Z and T":
        five = SEVEN[np.newaxis, :, np.newaxis]
        tifffile.imwrite(path, five, metadata={"axes": "TCZYX"}, ome=True, **grey)
    elif kind == "imagej":
        tifffile.imwrite(path, SEVEN, imagej=True, metadata={"axes": "CYX"})
    elif kind == "shaped":
        tifffile.imwrite(path, SEVEN, metadata={"axes": "CYX"}, **grey)
    elif kind == "samples":
        tifffile.imwrite(path, LAST, planarconfig="contig", **grey)
    else:
        tifffile.imwrite(path, SEVEN, planarconfig="separate", **grey)
    return path


@pytest.mark.parametrize(
    "kind",
    ["ome", "ome samples", "ome with Z and T", "imagej", "shaped", "samples", "separate samples"],
)
def test_seven_channels(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / ("a.ome.tif" if "ome" in kind else "a.tif"), kind)
    assert np.array_equal(read_image(path), LAST)
    assert image_shape(path) == LAST.shape


@given(
    channels=st.integers(1, 40), height=st.integers(1, 9), width=st.integers(1, 9), data=st.data()
)
@settings(max_examples=40, deadline=None)
def test_planes_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    channels: int,
    height: int,
    width: int,
    data: st.DataObject,
) -> None:
    """What a dataset keeps of an image that is no file, whatever its sides."""
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16, np.int32, np.float32]))
    pixels = RNG.integers(0, 99, (height, width, channels)).astype(dtype)
    path = tmp_path_factory.mktemp("planes") / "a.tif"
    write_planes(path, pixels)
    expected = pixels[..., 0] if channels == 1 else pixels
    found = read_image(path)
    assert found.dtype == dtype and np.array_equal(found, expected)
    assert image_shape(path) == expected.shape


def test_pages_that_nobody_has_named(tmp_path: Path) -> None:
    """Five may be anything, and are told how to become channels."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, SEVEN[:5], photometric="minisblack")
    with pytest.raises(DataError, match=r"a\.tif: expected one 2D image.*5 planes.* CYX"):
        read_image(path)


def test_a_stack_of_channels_stays_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    stack = np.zeros((3, 7, 40, 30), np.uint8)
    for axes in ("ZCYX", "TCYX"):
        tifffile.imwrite(path, stack, metadata={"axes": axes}, photometric="minisblack")
        for read in (read_image, image_shape):
            with pytest.raises(DataError, match=r"a stack of shape \(3, 7, 40, 30\)"):
                read(path)

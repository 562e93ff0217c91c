"""Names of channels, from files as microscopes and programs write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from zarr_files import write_image

from cellflow.io.channel_names import join_names, read_channel_names, split_names
from cellflow.io.images import read_image, write_planes
from cellflow.io.pixel_size import PixelSize, read_pixel_size
from cellflow.io.source import FileImage

PIXELS = np.arange(3 * 40 * 30, dtype=np.uint16).reshape(3, 40, 30)
NAMES = ("DAPI", "GFP µ", "Cy5")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_of_ome_zarr(tmp_path: Path, version: str) -> None:
    path = write_image(tmp_path / "a.zarr", PIXELS, version=version, names=NAMES)
    assert read_channel_names(path) == FileImage("a", path).channel_names() == NAMES
    bare = write_image(tmp_path / "b.zarr", PIXELS, version=version)
    assert read_channel_names(bare) == ()


def test_of_ome_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    facts = {"axes": "CYX", "Channel": {"Name": list(NAMES)}}
    tifffile.imwrite(path, PIXELS, metadata=facts, photometric="minisblack")
    assert read_channel_names(path) == NAMES


def test_of_imagej(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, imagej=True, metadata={"axes": "CYX", "Labels": list(NAMES)})
    assert read_channel_names(path) == NAMES
    assert FileImage("a", path).channel_names() == NAMES


@pytest.mark.parametrize("count", [2, 4])
def test_other_than_there_are_channels(tmp_path: Path, count: int) -> None:
    """Names of another image say nothing of this one."""
    path = write_image(tmp_path / "a.zarr", PIXELS, names=tuple("abcd"[:count]))
    assert FileImage("a", path).channel_names() == ()


def test_none(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG")
    assert read_channel_names(path) == read_channel_names(tmp_path / "gone.tif") == ()
    tifffile.imwrite(tmp_path / "b.tif", PIXELS, photometric="minisblack")
    assert read_channel_names(tmp_path / "b.tif") == ()
    (tmp_path / "c.tif").write_bytes(b"II*\0broken")
    assert read_channel_names(tmp_path / "c.tif") == ()


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8", "i8", "f2"])
@pytest.mark.parametrize("channels", [0, 1, 5])
def test_what_is_known_goes_into_planes(tmp_path: Path, dtype: str, channels: int) -> None:
    """But into no type that OME-TIFF lacks, where the pixels matter more."""
    path, shape = tmp_path / "a.tif", (20, 24, channels) if channels else (20, 24)
    pixels = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    names = tuple("abcde"[: max(channels, 1)])
    write_planes(path, pixels, names, PixelSize(0.5, 0.25))
    assert np.array_equal(read_image(path), pixels[..., 0] if channels == 1 else pixels)
    if dtype not in ("i8", "f2"):
        assert read_channel_names(path) == names
        assert read_pixel_size(path) == (0.5, 0.25)


LETTERS = st.characters(exclude_characters=";", exclude_categories=["Cs", "Zs", "Zl", "Zp", "Cc"])


@given(st.lists(st.text(LETTERS), min_size=1))
def test_names_in_a_table(names: list[str]) -> None:
    expected: Any = tuple(names) if any(names) or len(names) > 1 else ()
    assert split_names(join_names(names)) == expected


def test_a_semicolon_in_a_name_adds_no_channel() -> None:
    assert split_names(join_names(["a;b", "c"])) == ("a,b", "c")

"""Directories of a TIFF that go round in a circle, or claim more entries than the file holds."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellflow.errors import DataError
from cellflow.io.channel_names import read_channel_names
from cellflow.io.images import image_shape, read_image
from cellflow.io.pixel_size import read_pixel_size


@pytest.mark.parametrize("big", [False, True])
def test_a_directory_beyond_the_end_is_refused_at_once(tmp_path: Path, big: bool) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((40, 50), np.uint16), bigtiff=big)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages.first.offset
    data[at : at + 2] = b"\xff\x0f"
    path.write_bytes(data)
    refused(path, "a directory of 4,095 entries")


@pytest.mark.parametrize("far", [False, True])
def test_directories_in_a_circle_are_refused_at_once(tmp_path: Path, far: bool) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for _ in range(2):
            tiff.write(np.zeros((40, 50), np.uint16), contiguous=False, metadata=None)
    with tifffile.TiffFile(path) as tiff:
        first, last = (tiff.pages[number] for number in (0, 1))
        end = last.offset + 2 + 12 * len(last.tags)
        back = first.offset if far else last.offset
    data = bytearray(path.read_bytes())
    data[end : end + 4] = struct.pack("<I", back)
    path.write_bytes(data)
    refused(path, "round in a circle")


def refused(path: Path, why: str) -> None:
    started = time.monotonic()
    for read in (read_image, image_shape):
        with pytest.raises(DataError, match=rf"a\.tif: damaged.*{why}"):
            read(path)
    assert read_pixel_size(path) is None and read_channel_names(path) == ()
    assert time.monotonic() - started < 2

"""Tiles that claim more than they have room for, and lists of tiles that are too short."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tiff_files import RGB

from cellflow.errors import DataError
from cellflow.io._tiff_pieces import samples_claimed
from cellflow.io.images import read_image
from cellflow.io.large import open_large_image
from cellflow.types import Box

TILE = 32


def as_jpeg(tile: bytearray) -> None:
    at = tile.index(b"\xff\xc0") + 5
    tile[at : at + 4] = struct.pack(">HH", 60_000, 20_000)


def as_jpeg_2000(tile: bytearray) -> None:
    for at in (8, 24):  # the image on its grid, and the one tile inside of it
        tile[at : at + 8] = struct.pack(">II", 20_000, 60_000)


def as_webp(tile: bytearray) -> None:
    tile[21:24] = b"\xff\xff\xff"  # 16,384 columns, and nearly as many rows


def as_png(tile: bytearray) -> None:
    tile[16:24] = struct.pack(">II", 20_000, 60_000)
    tile[29:33] = struct.pack(">I", zlib.crc32(tile[12:29]))


SWELL = {"jpeg": as_jpeg, "jpeg2000": as_jpeg_2000, "webp": as_webp, "png": as_png}


def written(path: Path, compression: str, swell: Callable[[bytearray], None] | None) -> Path:
    """A TIFF of which one tile swells."""
    tifffile.imwrite(path, RGB, photometric="rgb", tile=(TILE, TILE), compression=compression)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        start, size = page.dataoffsets[1], page.databytecounts[1]
    data = bytearray(path.read_bytes())
    tile = data[start : start + size]
    assert samples_claimed(bytes(tile)) == TILE * TILE * 3
    if swell:
        swell(tile)
        data[start : start + size] = tile
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("compression", SWELL)
def test_a_tile_that_claims_more_than_its_room_is_not_unpacked(
    tmp_path: Path, compression: str
) -> None:
    path = written(tmp_path / "a.tif", compression, SWELL[compression])
    started = time.process_time()
    why = r"a\.tif.*damaged.*a tile or strip of [\d,]+ samples"
    with pytest.raises(DataError, match=why):
        read_image(path)
    with open_large_image(path) as image, pytest.raises(DataError, match=why):
        image.read(image.box)
    assert time.process_time() - started < 1.0  # that JPEG takes 20 s


def test_a_coarser_level_is_looked_at_too(tmp_path: Path) -> None:
    path, pixels = tmp_path / "a.tif", np.tile(RGB, (2, 2, 1))
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 2):
            tiff.write(
                np.ascontiguousarray(pixels[::step, ::step]),
                subfiletype=int(step > 1),
                photometric="rgb",
                tile=(TILE, TILE),
                compression="jpeg",
                metadata=None,
            )
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[1]
        start, size = page.dataoffsets[0], page.databytecounts[0]
    data = bytearray(path.read_bytes())
    tile = data[start : start + size]
    as_jpeg(tile)
    data[start : start + size] = tile
    path.write_bytes(data)
    with open_large_image(path) as image:
        assert image.read(image.box, level=0).shape == pixels.shape
        with pytest.raises(DataError, match="a tile or strip of"):
            image.read(Box(0, 90, 0, 70), level=1)


@pytest.mark.parametrize("compression", SWELL)
def test_what_pillow_says_of_a_tile(tmp_path: Path, compression: str) -> None:
    path = written(tmp_path / "a.tif", compression, None)
    assert read_image(path).shape == RGB.shape


@pytest.mark.parametrize(
    "start", [b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0\0" * 9, b"RIFF\0\0\0\0WEBPVP8 ", b"BM12"]
)
def test_what_has_no_readable_header_is_left_to_the_codec(start: bytes) -> None:
    assert samples_claimed(start) == 0


def test_fewer_tiles_than_the_shape_needs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        length = tiff.pages.first.tags["ImageLength"].valueoffset
        width = tiff.pages.first.tags["ImageWidth"].valueoffset
    data = bytearray(path.read_bytes())
    data[length : length + 2] = data[width : width + 2] = struct.pack("<H", 2_000)
    path.write_bytes(data)
    started = time.process_time()
    for read in (read_image, open_large_image):
        with pytest.raises(DataError, match=r"a\.tif.*damaged.*tiles or strips, found 30"):
            read(path)
    assert time.process_time() - started < 1.0

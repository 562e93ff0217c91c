"""TIFFs that are damaged, forged or too large, read box by box: what whole reads give, or the same refusal."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from tiff_files import GREY, RGB, write_kinds, write_pyramid

from cellflow.errors import DataError
from cellflow.io.images import read_image
from cellflow.io.large import large_image as base
from cellflow.io.large import open_large_image
from cellflow.types import Box


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_kinds(tmp_path_factory.mktemp("tiffs"))


def test_a_damaged_level_does_not_take_the_finest_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.tif"
    write_pyramid(path, GREY, subifds=True, compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        place = tiff.series[0].levels[2].keyframe.tags["TileOffsets"].offset
    data = bytearray(path.read_bytes())
    data[place : place + 2] = b"\xff\xff"
    path.write_bytes(data)
    with open_large_image(path) as image:
        assert image.levels == ((90, 70), (45, 35))
        assert np.array_equal(image.read(image.box), GREY)
    assert "level 2 and those after it cannot be read (missing data offset)" in caplog.text


def bad_files(folder: Path) -> dict[str, Path]:
    """Files that whole reads refuse."""
    stack = np.zeros((5, 40, 30), np.uint8)
    tifffile.imwrite(
        folder / "stack.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"}, imagej=True
    )
    tifffile.imwrite(folder / "cmyk.tif", np.zeros((40, 30, 4), np.uint8), photometric="separated")
    with tifffile.TiffWriter(folder / "two.tif") as tiff:
        tiff.write(GREY, metadata=None)
        tiff.write(RGB, photometric="rgb", metadata=None)
    (folder / "empty.tif").write_bytes(b"")
    tifffile.imwrite(folder / "cut.tif", GREY, compression="zlib")
    (folder / "cut.tif").write_bytes((folder / "cut.tif").read_bytes()[:-100])
    tifffile.imwrite(folder / "cut-tiles.tif", GREY, tile=(16, 16))
    (folder / "cut-tiles.tif").write_bytes((folder / "cut-tiles.tif").read_bytes()[:-100])
    tifffile.imwrite(folder / "nowhere.tif", GREY, compression="zlib")
    with tifffile.TiffFile(folder / "nowhere.tif") as tiff:
        place = tiff.pages.first.tags["StripOffsets"].offset
    data = bytearray((folder / "nowhere.tif").read_bytes())
    data[place : place + 2] = b"\xff\xff"  # a tag that nobody knows
    (folder / "nowhere.tif").write_bytes(data)
    tifffile.imwrite(folder / "complex.tif", np.zeros((40, 30), np.complex64))
    tifffile.imwrite(folder / "claims.tif", GREY, compression="zlib")
    with tifffile.TiffFile(folder / "claims.tif", mode="r+b") as tiff:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tiff.pages.first.tags[name].overwrite(60_000)
    (folder / "text.tif").write_text("no image")
    return {path.stem: path for path in [*folder.iterdir(), folder / "gone.tif"]}


def test_what_whole_reads_refuse_is_refused_in_the_same_words(tmp_path: Path) -> None:
    for path in bad_files(tmp_path).values():
        with pytest.raises(DataError) as whole:
            read_image(path)
        with pytest.raises(DataError) as parts:
            open_large_image(path)
        said, expected = str(parts.value), str(whole.value)
        assert said == expected or (path.stem == "claims" and "cannot hold" in said), path.stem


@pytest.mark.parametrize(
    "name", ["tiled", "strips", "plain", "channels-plain", "jpeg", "tiled-plain"]
)
def test_damaged_files_give_what_whole_reads_give_or_an_error(
    tmp_path: Path, files: dict[str, Path], name: str
) -> None:
    path, rng = tmp_path / "a.tif", np.random.default_rng(3)
    refused = 0
    for _ in range(40):
        path.write_bytes(damaged(files[name].read_bytes(), rng))
        try:
            with open_large_image(path) as image:
                found = image.read(image.box)
        except DataError as error:
            assert str(error).startswith(str(path))
            refused += 1
        else:
            assert np.array_equal(found, read_image(path))
    assert refused > 10


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A file that is cut off, has bits flipped, or fields of its header replaced."""
    out = bytearray(data)
    match rng.integers(3):
        case 0:
            return bytes(out[: rng.integers(1, len(out))])
        case 1:
            for place in rng.integers(0, len(out), rng.integers(1, 20)):
                out[place] ^= 1 << rng.integers(8)
        case 2:
            place = int(rng.integers(2, 400))
            out[place : place + 4] = rng.choice([b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff" * 4])
    return bytes(out)


def test_tiles_that_do_not_go_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        np.zeros((1100, 1000, 3), np.uint8),
        photometric="rgb",
        rowsperstrip=1100,
        compression="zlib",
    )
    monkeypatch.setattr(base, "LARGEST_CHUNK", 2**21)
    with pytest.raises(DataError, match=r"a\.tif: its strips claim 3 MiB each.*save it with tiles"):
        open_large_image(path)


def test_no_limit_on_pixels(tmp_path: Path) -> None:
    """A gigapixel of which most tiles are not stored."""
    path = tmp_path / "a.tif"

    def tiles() -> Any:
        yield np.ones((8192, 8192), np.uint8)
        yield from [None] * 15

    tifffile.imwrite(
        path, tiles(), shape=(32_768, 32_768), dtype="uint8", tile=(8192, 8192), compression="zlib"
    )
    with pytest.raises(DataError, match="cannot hold"):
        read_image(path)
    with open_large_image(path) as image:
        assert image.shape == (32_768, 32_768)
        found = image.read(Box(8190, 8195, 8189, 8194))
        assert found[:2, :3].all() and found.sum() == 6


def test_a_damaged_tile_and_sound_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages.first.dataoffsets[1]
    data = bytearray(path.read_bytes())
    data[place : place + 40] = b"x" * 40
    path.write_bytes(data)
    with open_large_image(path) as image:
        assert np.array_equal(image.read(Box(0, 32, 0, 32)), GREY[:32, :32])
        with pytest.raises(
            DataError, match=r"a\.tif, level 0, rows 0 to 5, columns 30 to 40: damaged"
        ):
            image.read(Box(0, 5, 30, 40))
        assert np.array_equal(image.read(Box(32, 90, 0, 70)), GREY[32:])


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = np.zeros((40, 30), np.float32)
    pixels[20, 20] = np.nan
    tifffile.imwrite(path, pixels, tile=(16, 16))
    with open_large_image(path) as image:
        assert not image.read(Box(0, 20, 0, 30)).any()
        with pytest.raises(
            DataError, match=r"rows 20 to 21, columns 0 to 30: 1 of 30 values are not finite"
        ):
            image.read(Box(20, 21, 0, 30))


@pytest.mark.parametrize(
    "options",
    [
        {"rowsperstrip": 16, "compression": "zlib"},
        {"rowsperstrip": 4096},
        {"tile": (256, 256), "compression": "zlib"},
    ],
)
def test_no_more_than_the_box_and_a_tile_is_in_memory(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((4096, 4096), np.uint16), **options)
    with open_large_image(path) as image:
        tracemalloc.start()
        for box in (Box(0, 100, 0, 100), Box(2000, 2300, 4000, 4096)):
            image.read(box)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**20  # of 2**25

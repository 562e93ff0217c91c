"""TIFFs read box by box: what whole reads give, or the same refusal."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cellflow.errors import DataError
from cellflow.io.images import read_image
from cellflow.io.large import ArrayImage, LargeImage, TiffImage, open_large_image
from cellflow.io.large import large_image as base
from cellflow.io.pixel_size import PixelSize
from cellflow.types import Box

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 60_000, (90, 70), dtype=np.uint16)
SMOOTH = np.add.outer(2 * np.arange(90), np.arange(70)).astype(np.uint8)
RGB = np.stack([SMOOTH, SMOOTH[::-1], 255 - SMOOTH], axis=-1)
PLANES = RNG.integers(0, 256, (3, 90, 70), dtype=np.uint8)
COLOURS = RNG.integers(0, 2**16, (3, 256), dtype=np.uint16)

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (GREY, {}),
    "plain-strips": (GREY, {"rowsperstrip": 7}),
    "big": (GREY, {"bigtiff": True, "byteorder": ">"}),
    "tiled": (GREY, {"tile": (32, 16), "compression": "zlib", "predictor": 2}),
    "tiled-plain": (GREY, {"tile": (16, 32)}),
    "strips": (GREY, {"rowsperstrip": 7, "compression": "zlib"}),
    "one-strip": (GREY, {"rowsperstrip": 90, "compression": "lzw"}),
    "strips-predicted": (GREY, {"rowsperstrip": 11, "compression": "zstd", "predictor": 2}),
    "float": (GREY.astype(np.float32), {"tile": (16, 16), "compression": "zlib", "predictor": 3}),
    "rgb": (RGB, {"photometric": "rgb", "tile": (32, 32), "compression": "zlib"}),
    "rgb-strips": (RGB, {"photometric": "rgb", "rowsperstrip": 16, "compression": "lzw"}),
    "rgb-plain": (RGB, {"photometric": "rgb"}),
    "jpeg": (RGB, {"photometric": "rgb", "tile": (32, 32), "compression": "jpeg"}),
    "jpeg-grey": (SMOOTH, {"tile": (32, 32), "compression": "jpeg"}),
    "jpeg-strips": (RGB, {"photometric": "rgb", "rowsperstrip": 16, "compression": "jpeg"}),
    "jpeg2000": (RGB, {"photometric": "rgb", "tile": (32, 32), "compression": "jpeg2000"}),
    "planar": (PLANES, {"photometric": "rgb", "planarconfig": "separate", "tile": (32, 32),
                        "compression": "zlib"}),
    "alpha": (np.dstack([RGB, SMOOTH]), {"photometric": "rgb", "extrasamples": ["unassalpha"],
                                         "tile": (32, 32), "compression": "zlib"}),
    "grey-alpha": (RGB[..., :2], {"photometric": "minisblack", "planarconfig": "contig",
                                  "extrasamples": ["unassalpha"], "compression": "zlib"}),
    "channels": (PLANES, {"photometric": "minisblack", "tile": (32, 32), "compression": "zlib",
                          "metadata": {"axes": "CYX"}, "ome": True}),
    "channels-plain": (PLANES, {"photometric": "minisblack", "ome": True, "metadata": {"axes": "CYX"}}),
    "channels-last": (RGB, {"photometric": "minisblack", "planarconfig": "contig", "ome": True,
                            "metadata": {"axes": "YXC"}, "compression": "zlib", "rowsperstrip": 10}),
    "no-name": (RGB, {"photometric": "minisblack", "planarconfig": None}),
    "no-name-packed": (RGB, {"photometric": "minisblack", "planarconfig": None, "compression": "zlib"}),
    "one-bit": (SMOOTH > 99, {"compression": "packbits"}),
    "one-bit-plain": (SMOOTH > 99, {}),
    "palette": (SMOOTH, {"photometric": "palette", "colormap": COLOURS, "tile": (32, 32),
                         "compression": "zlib"}),
    "white": (GREY, {"photometric": "miniswhite", "rowsperstrip": 9, "compression": "zlib"}),
    "imagej": (GREY, {"imagej": True}),
    "imagej-channels": (PLANES, {"imagej": True, "metadata": {"axes": "CYX"}}),
    "stack-of-one": (GREY[None, None], {"imagej": True, "metadata": {"axes": "ZCYX"}}),
    **{f"turned-{how}": (RGB, {"photometric": "rgb", "tile": (16, 32), "compression": "zlib",
                               "extratags": [(274, "H", 1, how, True)]}) for how in range(2, 9)},
    "turned-plain": (GREY, {"extratags": [(274, "H", 1, 6, True)]}),
}  # fmt: skip
WHOLE = {"no-name-packed"}
"""Kinds that can only be read whole."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiffs")
    found = {}
    for name, (pixels, options) in KINDS.items():
        found[name] = folder / f"{name}.tif"
        tifffile.imwrite(found[name], pixels, **options)
    return found


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


def write_pyramid(path: Path, pixels: Any, *, subifds: bool, **options: Any) -> list[Any]:
    """Levels 1, 2 and 4 times smaller, in SubIFDs or in pages of their own."""
    axes = options.pop("axes", "YX")
    step = [tuple(slice(None, None, n if a in "YX" else 1) for a in axes) for n in (1, 2, 4)]
    levels = [np.ascontiguousarray(pixels[part]) for part in step]
    metadata = {"axes": axes} if options.get("ome") else None
    ome = options.pop("ome", False)
    with tifffile.TiffWriter(path, ome=ome, bigtiff=options.pop("bigtiff", False)) as tiff:
        for number, level in enumerate(levels):
            more: dict[str, Any] = {"subfiletype": 1} if number else {}
            if subifds and not number:
                more["subifds"] = 2
            tiff.write(
                level, tile=(32, 32), metadata=None if number else metadata, **more, **options
            )
    return levels


PYRAMIDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ome": (GREY, {"subifds": True, "ome": True, "compression": "zlib"}),
    "ome-channels": (PLANES, {"subifds": True, "ome": True, "axes": "CYX", "bigtiff": True,
                              "photometric": "minisblack", "compression": "zlib"}),
    "ome-rgb": (RGB, {"subifds": True, "ome": True, "axes": "YXS", "photometric": "rgb",
                      "compression": "zlib"}),
    "subifds": (GREY, {"subifds": True}),
    "pages": (GREY, {"subifds": False, "compression": "zlib"}),
    "pages-rgb": (RGB, {"subifds": False, "axes": "YXS", "photometric": "rgb", "compression": "lzw"}),
    "turned": (GREY, {"subifds": True, "extratags": [(274, "H", 1, 8, True)]}),
}  # fmt: skip


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
            DataError, match=r"rows 20 to 21, columns 0 to 30: holds values that are not"
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

"""Images and masks as cameras, viewers and scripts save them: read right, or refused in words that help."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from cellflow.errors import DataError
from cellflow.io.images import (
    image_shape,
    list_images,
    passed_over,
    read_image,
    read_labels,
    read_masks,
    write_labels,
)

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 30), dtype=np.uint8)
LABELS = np.kron(np.arange(12).reshape(4, 3), np.ones((10, 10))).astype(np.uint8)
COLOURS = RNG.integers(0, 256, (256, 3), dtype=np.uint8)

UPRIGHT: dict[int, Callable[[Any], Any]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}
"""How a viewer turns the stored rows and columns for each orientation of EXIF."""


@pytest.mark.parametrize("how", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_orientation_is_applied(tmp_path: Path, suffix: str, how: int) -> None:
    path = tmp_path / f"a{suffix}"
    smooth = np.add.outer(3 * np.arange(40), 2 * np.arange(30)).astype(np.uint8)
    if suffix == ".tif":
        tifffile.imwrite(path, smooth, extratags=[(274, "H", 1, how, True)])
    else:
        exif = Image.Exif()
        exif[274] = how
        Image.fromarray(smooth).save(path, exif=exif, quality=95)
    expected = UPRIGHT[how](smooth)
    found = read_image(path)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (3 if suffix == ".jpg" else 0)
    assert image_shape(path) == expected.shape
    if suffix != ".jpg":
        assert np.array_equal(read_masks(path), expected)


def test_orientation_of_a_case(shared: Path) -> None:
    path = shared / "cases" / "exif-rotated" / "c3exif" / "images" / "a.jpg"
    stored = imagecodecs.imread(path)
    assert np.array_equal(read_image(path), np.rot90(stored, 2))


def test_damaged_remarks_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(GREY).save(path, exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    assert read_image(path).shape == GREY.shape


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("planes", [2, 3, 4])
def test_channels_first_or_last_without_a_name(tmp_path: Path, planes: int, first: bool) -> None:
    pixels = RNG.integers(0, 60_000, (40, 30, planes), dtype=np.uint16)
    path = tmp_path / "a.tif"
    stored = np.moveaxis(pixels, -1, 0) if first else pixels
    tifffile.imwrite(path, stored, photometric="minisblack", planarconfig=None)
    assert np.array_equal(read_image(path), pixels)
    assert image_shape(path)[2] == planes


@pytest.mark.parametrize("axes", ["CYX", "YXC"])
def test_named_channels(tmp_path: Path, axes: str) -> None:
    pixels = RNG.integers(0, 60_000, (2, 40, 30), dtype=np.uint16)
    stored = pixels if axes == "CYX" else np.moveaxis(pixels, 0, -1)
    path = tmp_path / "a.ome.tif"
    contig = "contig" if axes == "YXC" else None
    tifffile.imwrite(
        path, stored, metadata={"axes": axes}, photometric="minisblack", planarconfig=contig
    )
    assert np.array_equal(read_image(path), np.moveaxis(pixels, 0, -1))


def test_pages_without_a_name_are_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pictures = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    assert np.array_equal(read_image(path), np.stack([GREY, 255 - GREY], -1))


@pytest.mark.parametrize(
    ("shape", "axes"), [((5, 40, 30), None), ((3, 40, 30), "ZYX"), ((2, 3, 40, 30), "TCYX")]
)
def test_stacks_are_refused(tmp_path: Path, shape: tuple[int, ...], axes: str | None) -> None:
    path = tmp_path / "stack.tif"
    metadata = {"axes": axes} if axes else None
    stack = np.zeros(shape, np.uint8)
    tifffile.imwrite(path, stack, photometric="minisblack", imagej=bool(axes), metadata=metadata)
    for read in (read_image, image_shape, read_masks):
        with pytest.raises(DataError, match=r"stack\.tif: expected one 2D image.*Save one plane"):
            read(path)


def test_several_series_are_refused(shared: Path) -> None:
    folder = shared / "cases" / "first-series-only"
    for name in ("c3series/images/a.ome.tif", "thumb_first.tif"):
        for read in (read_image, image_shape):
            with pytest.raises(
                DataError, match=r"tif: expected one image, found [23] in this file"
            ):
                read(folder / name)


def test_smaller_copies_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "pyramid.tif"
    large = RNG.integers(0, 256, (128, 128), dtype=np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(large[::4, ::4], subfiletype=1)  # a thumbnail, before the image
        tiff.write(large, subifds=2, tile=(32, 32))
        tiff.write(large[::2, ::2], subfiletype=1, tile=(32, 32))
        tiff.write(large[::4, ::4], subfiletype=1, tile=(32, 32))
    assert np.array_equal(read_image(path), large)
    assert image_shape(path)[0] == 128


def test_planes_in_other_files(tmp_path: Path) -> None:
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="30" SizeY="40" SizeC="2" '
        'SizeZ="1" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        '<Channel ID="Channel:0:1" SamplesPerPixel="1"/>'
        '<TiffData FirstC="0" IFD="0" PlaneCount="1"><UUID FileName="a0.ome.tif">urn:uuid:0</UUID></TiffData>'
        '<TiffData FirstC="1" IFD="0" PlaneCount="1"><UUID FileName="a1.ome.tif">urn:uuid:1</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    for number, plane in enumerate((GREY, 255 - GREY)):
        text = xml.replace("<OME ", f'<OME UUID="urn:uuid:{number}" ')
        tifffile.imwrite(
            tmp_path / f"a{number}.ome.tif", plane, description=text, metadata=None, ome=False
        )
    assert np.array_equal(read_image(tmp_path / "a0.ome.tif"), np.stack([GREY, 255 - GREY], -1))
    (tmp_path / "a1.ome.tif").unlink()
    for read in (read_image, image_shape):
        with pytest.raises(DataError, match=r"a0\.ome\.tif: planes of this image are missing"):
            read(tmp_path / "a0.ome.tif")


def palette_png(path: Path, indices: np.ndarray[Any, Any]) -> None:
    picture = Image.fromarray(indices)
    picture.putpalette(COLOURS.ravel().tolist())
    picture.save(path)


def palette_tiff(path: Path, indices: np.ndarray[Any, Any], **more: Any) -> None:
    colormap = COLOURS.T.astype(np.uint16) * 257
    tifffile.imwrite(path, indices, photometric="palette", colormap=colormap, **more)


@pytest.mark.parametrize("write", [palette_png, palette_tiff])
def test_a_palette_is_colours_of_an_image_and_numbers_of_a_mask(
    tmp_path: Path, write: Callable[..., None]
) -> None:
    path = tmp_path / ("a.png" if write is palette_png else "a.tif")
    write(path, LABELS)
    assert np.array_equal(read_image(path), COLOURS[LABELS])
    assert image_shape(path) == (*LABELS.shape, 3)
    assert np.array_equal(read_masks(path), LABELS)


def test_a_palette_of_imagej_only_colours_the_display(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    palette_tiff(path, GREY, description="ImageJ=1.53t\n", metadata=None)
    assert np.array_equal(read_image(path), GREY)
    assert len(image_shape(path)) == 2


def test_palette_cases(shared: Path) -> None:
    folder = shared / "cases" / "image-palette-tiff"
    assert np.array_equal(read_image(folder / "palette.tif"), read_image(folder / "palette.png"))
    with pytest.raises(DataError, match=r"cmyk\.tif: a TIFF in SEPARATED colours"):
        read_image(folder / "cmyk.tif")
    for kind in ("c2_pal", "c2_rgbgrey"):
        for path in list_images(shared / "cases" / "mask-palette" / kind / "masks"):
            assert 1 < read_masks(path).max() < 100


def test_coloured_pictures_and_jpegs_are_no_masks(tmp_path: Path) -> None:
    Image.fromarray(COLOURS[LABELS]).save(tmp_path / "colours.png")
    with pytest.raises(DataError, match=r"colours\.png: .*3 channels of colours"):
        read_masks(tmp_path / "colours.png")
    Image.fromarray(LABELS).save(tmp_path / "lossy.jpg")
    tifffile.imwrite(tmp_path / "lossy.tif", LABELS, compression="jpeg")
    for name in ("lossy.jpg", "lossy.tif"):
        with pytest.raises(DataError, match=rf"{name}: a label map with JPEG compression"):
            read_masks(tmp_path / name)


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (16, 16)}, {"bigtiff": True}, {"compression": "lzw"}, {"compression": "zstd"},
        {"compression": "packbits"}, {"predictor": 2, "compression": "zlib"}, {"byteorder": ">"},
        {"photometric": "miniswhite"},
    ],
)  # fmt: skip
def test_tiffs_of_all_kinds(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.tif"
    for pixels in (GREY, GREY.astype(np.uint16) * 255, GREY.astype(np.int32) - 100):
        tifffile.imwrite(path, pixels, **options)
        assert np.array_equal(read_image(path), pixels)
    tifffile.imwrite(path, GREY > 99, **{k: v for k, v in options.items() if k != "predictor"})
    assert np.array_equal(read_image(path), GREY > 99)


def test_what_a_folder_passes_over(tmp_path: Path) -> None:
    for name in ("a.png", "b.PNG"):
        Image.fromarray(GREY).save(tmp_path / name, format="png")
    (tmp_path / "c.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "d.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "e.jxl").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xe9.png")).write_bytes(b"x")
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.PNG", "c.png"]
    found = {path.name: reason for path, reason in passed_over(tmp_path)}
    assert list(found) == ["d.png", "e.jxl", "f\\udce9.png"]
    assert "leads nowhere" in found["d.png"] and "convert" in found["e.jxl"]
    assert "UTF-8" in found["f\\udce9.png"]
    "".join(found).encode()  # all of it can be written


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A file with a few faults: cut off, bits flipped, or fields of its header replaced."""
    out = bytearray(data)
    match rng.integers(4):
        case 0:
            return bytes(out[: rng.integers(1, len(out))])
        case 1:
            for place in rng.integers(0, len(out), rng.integers(1, 20)):
                out[place] ^= 1 << rng.integers(8)
        case 2:
            place = int(rng.integers(2, min(len(out), 400)))
            out[place : place + 4] = rng.choice(
                [b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff" * 4, b"\0\x10\0\0"]
            )
        case 3:
            first, second = sorted(rng.integers(0, len(out), 2))
            out[first:second] = rng.bytes(int(second - first))
    return bytes(out)


@pytest.mark.slow
def test_damaged_files_end_in_one_error_and_little_memory(tmp_path: Path) -> None:
    sources = {
        "a.png": imagecodecs.png_encode(np.dstack([GREY] * 3)),
        "b.bmp": imagecodecs.bmp_encode(GREY),
    }
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(GREY).save(tmp_path / "c.jpg", exif=exif)
    palette_png(tmp_path / "d.png", LABELS)
    palette_tiff(tmp_path / "e.tif", LABELS)
    tifffile.imwrite(tmp_path / "f.ome.tif", np.stack([GREY, GREY]), metadata={"axes": "CYX"})
    tifffile.imwrite(tmp_path / "g.tif", GREY, compression="zlib", tile=(16, 16))
    tifffile.imwrite(tmp_path / "h.tif", GREY.astype(np.float32), imagej=True)
    tifffile.imwrite(tmp_path / "i.tif", np.dstack([GREY] * 4), compression="lzw", bigtiff=True)
    tifffile.imwrite(tmp_path / "j.tif", np.dstack([GREY] * 3), compression="jpeg")
    (tmp_path / "k.jp2").write_bytes(imagecodecs.jpeg2k_encode(GREY, codecformat="jp2"))
    Image.fromarray(GREY).save(tmp_path / "l.webp", lossless=True)
    sources |= {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    rng = np.random.default_rng(7)
    refused = 0
    tracemalloc.start()
    for name, data in sources.items():
        path = tmp_path / name
        for _ in range(60):
            path.write_bytes(damaged(data, rng))
            for read in (read_image, image_shape, read_masks):
                try:
                    read(path)
                except DataError as error:
                    refused += 1
                    assert str(error).startswith(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused > 300
    assert peak < 2**30


@pytest.mark.parametrize("packing", [None, "zlib", "lzw"])
def test_a_header_that_claims_too_much(tmp_path: Path, packing: str | None) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, compression=packing)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tags = tiff.pages[0].tags
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tags[name].overwrite(60_000)
    for read in (read_image, read_masks):
        with pytest.raises(DataError, match="cannot hold"):
            read(path)


def test_large_empty_masks_are_no_forgery(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((12_000, 12_000), np.uint16), compression="zlib")
    assert read_image(path).shape == (12_000, 12_000)


JPEG2000 = [
    ("a.j2k", {"codecformat": "j2k"}),
    ("a.jp2", {"codecformat": "jp2"}),
    ("A.JPX", {"codecformat": "jp2"}),
]


@pytest.mark.parametrize(("name", "options"), JPEG2000)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_jpeg_2000(
    tmp_path: Path, name: str, options: dict[str, Any], channels: int, dtype: Any
) -> None:
    """Without alpha in its header, all channels are channels."""
    pixels = RNG.integers(0, np.iinfo(dtype).max, (40, 30, channels), dtype=dtype)
    pixels = pixels[..., 0] if channels == 1 else pixels
    path = tmp_path / name
    mct = {"mct": False} if channels != 3 else {}
    path.write_bytes(imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, **options, **mct))
    assert np.array_equal(read_image(path), pixels)
    assert image_shape(path) == pixels.shape
    assert list_images(tmp_path) == [path]
    with pytest.raises(DataError, match="a label map with JPEG 2000 compression"):
        read_masks(path)


def test_alpha_of_a_jpeg_2000(tmp_path: Path) -> None:
    path = tmp_path / "a.jp2"
    pixels = RNG.integers(0, 256, (40, 30, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(path, irreversible=False)
    assert np.array_equal(read_image(path), pixels[..., :3])
    assert image_shape(path) == (40, 30, 3)


@pytest.mark.parametrize(("name", "options"), JPEG2000)
def test_a_jpeg_2000_that_lacks_its_end(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    data = imagecodecs.jpeg2k_encode(GREY, level=0, reversible=True, **options)
    path = tmp_path / name
    for length in (13, 60, len(data) // 2):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match="damaged or truncated JPEG 2000"):
            read_image(path)


def test_webp(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    pixels = RNG.integers(0, 256, (40, 30, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(path, lossless=True, exact=True)
    assert np.array_equal(read_image(path), pixels[..., :3])
    assert image_shape(path) == (40, 30, 3)
    grey = np.repeat(LABELS[..., None], 3, axis=-1)
    Image.fromarray(grey).save(path, lossless=True)
    assert np.array_equal(read_masks(path), LABELS)
    Image.fromarray(grey).save(path, quality=90)
    with pytest.raises(DataError, match="a label map with WebP compression"):
        read_masks(path)
    frames = [Image.fromarray(grey), Image.fromarray(255 - grey)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="an animation of 2 pictures"):
        read_image(path)


@pytest.mark.parametrize("how", range(1, 9))
def test_orientation_of_webp(tmp_path: Path, how: int) -> None:
    path, exif = tmp_path / "a.webp", Image.Exif()
    exif[274] = how
    pixels = RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif.tobytes(), lossless=True)
    expected = np.stack([UPRIGHT[how](pixels[..., i]) for i in range(3)], axis=-1)
    assert np.array_equal(read_image(path), expected)
    assert image_shape(path) == expected.shape


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint32])
def test_all_numbers_that_tiffs_hold(tmp_path: Path, dtype: Any) -> None:
    path = tmp_path / "a.tif"
    pixels = (RNG.normal(size=(40, 30)) * 50).astype(dtype)
    tifffile.imwrite(path, pixels)
    found = read_image(path)
    assert found.dtype == dtype and np.array_equal(found, pixels)


@pytest.mark.parametrize("packing", ["jpeg", "jpeg2000", "jpegxl", "jpegxr", "webp", "lerc"])
def test_packings_of_pictures_are_none_for_labels(tmp_path: Path, packing: str) -> None:
    """Nothing says that they did not change a number, and most of them do."""
    path = tmp_path / "a.tif"
    pixels = np.repeat(np.arange(40, dtype=np.uint8), 30).reshape(40, 30)
    if packing == "webp":
        pixels = np.dstack([pixels] * 3)
    tifffile.imwrite(path, pixels, compression=packing)
    assert read_image(path).shape == pixels.shape
    with pytest.raises(
        DataError, match=r"a\.tif: a label map with .*Export it again as TIFF without"
    ):
        read_masks(path)


def test_what_stands_behind_a_jpeg_is_not_the_jpeg(tmp_path: Path) -> None:
    """Telephones put a film there."""
    pixels = RNG.integers(0, 255, (40, 30, 3), np.uint8)
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 1}):
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", **options)
        whole, path = buffer.getvalue(), tmp_path / "a.jpg"
        path.write_bytes(whole + b"film \xff\xda and more")
        assert read_image(path).shape == pixels.shape
        path.write_bytes(whole[: len(whole) // 2] + b"\xff")
        with pytest.raises(DataError, match=r"a\.jpg: damaged or truncated JPEG"):
            read_image(path)


def test_a_palette_with_remarks_behind_the_pixels(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    path = tmp_path / "a.png"
    image.save(path)
    data, exif = path.read_bytes(), Image.Exif()
    exif[274] = 6
    remark = b"eXIf" + exif.tobytes()[6:]
    chunk = struct.pack(">I", len(remark) - 4) + remark + struct.pack(">I", zlib.crc32(remark))
    path.write_bytes(data[:-12] + chunk + data[-12:])
    assert read_masks(path).tolist() == [[2, 0], [1, 1]]


@pytest.mark.parametrize("value", [np.float32(1e20), np.uint64(2**63 + 5)])
def test_numbers_that_no_label_has(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((4, 5), value))
    with pytest.raises(DataError, match=r"expected labels of 0 and more, found [19]"):
        read_masks(path)


def test_labels_that_int32_does_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_labels(path, np.array([[0, 3_000_000_000]]))
    assert read_masks(path).max() == 3_000_000_000
    with pytest.raises(
        DataError, match=r"a\.tif: expected labels of at most 2,147,483,647, found 3,"
    ):
        read_labels(path)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", [(40, 30), (3, 2), (1, 1)])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_whose_pixels_end_early(
    tmp_path: Path, size: tuple[int, int], bits: int, interlaced: bool
) -> None:
    """Its sums may be right, and still half of the label map would be background."""
    path = tmp_path / "a.png"
    colours = RNG.integers(0, min(2**bits, 200), size, np.uint8)
    image = Image.fromarray(colours, mode="P")
    image.putpalette(bytes(range(256)) * 3)
    image.save(path, bits=bits)
    data = path.read_bytes()
    packed = data.index(b"IDAT") + 4
    length = int.from_bytes(data[packed - 8 : packed - 4], "big")
    rows = zlib.decompress(data[packed : packed + length])
    if interlaced:
        rows = passes(colours, bits)
        header = data[12:28] + b"\1"
        data = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    for part, whole in ((rows, True), (rows[: len(rows) - 1], False)):
        chunk = b"IDAT" + zlib.compress(part)
        sums = struct.pack(">I", zlib.crc32(chunk))
        path.write_bytes(
            data[: packed - 8]
            + struct.pack(">I", len(chunk) - 4)
            + chunk
            + sums
            + data[packed + length + 4 :]
        )
        if whole:
            assert np.array_equal(read_masks(path), colours)
        else:
            with pytest.raises(DataError, match=r"a\.png: damaged .*its pixels end after"):
                read_masks(path)


def passes(pixels: np.ndarray, bits: int) -> bytes:
    """Rows of an interlaced PNG, none of them filtered."""
    found = b""
    for y, x, down, across in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
    ):  # fmt: skip
        part = pixels[y::down, x::across]
        for row in part if part.size else ():
            digits = "".join(f"{value:0{bits}b}" for value in row.tolist())
            digits += "0" * (-len(digits) % 8)
            found += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    return found

"""What is refused for its size is too large, and what is read for an image has its own pixels."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from cellflow.errors import DataError
from cellflow.io import _image_header as header
from cellflow.io import pixel_limit
from cellflow.io.dataset import Dataset
from cellflow.io.images import image_shape, passed_over, read_image, read_masks
from cellflow.io.pixel_limit import at_most, refuse_large

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 30), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8)
LABELS = np.kron(np.arange(12).reshape(4, 3), np.ones((10, 10))).astype(np.uint8)
EMPTY = (9_000, 9_000)
"""More pixels than are taken on trust."""


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_a_large_empty_png_is_no_forgery(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    picture = Image.new(mode, EMPTY)
    if mode == "P":
        picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.save(path, compress_level=9)
    assert read_masks(path).shape == EMPTY
    assert image_shape(path)[1] == EMPTY[1]


@pytest.mark.parametrize("options", [{}, {"compression": "packbits"}])
def test_a_large_tiff_of_one_bit_is_no_forgery(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros(EMPTY, bool), **options)
    assert read_image(path).shape == EMPTY


@pytest.mark.parametrize("packing", ["zlib", "zstd", "lzma", "lzw"])
def test_a_small_file_takes_little_memory(tmp_path: Path, packing: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, compression=packing)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tags = tiff.pages[0].tags
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tags[name].overwrite(15_000)
    for read in (read_image, read_masks):
        with pytest.raises(DataError, match=r"a\.tif: .* claims 215 MiB .* cannot hold"):
            read(path)


def test_an_image_that_no_memory_holds() -> None:
    """Its bytes could hold it, as far as its compression goes."""
    claimed = header.Claim(unpacked=20 * 2**30, stored=20 * 2**30)
    with pytest.raises(DataError, match=r"20\.0 GiB.* at most 16 GiB .* parts"):
        header.refuse_swollen(claimed, 2**30, "deflate")


def test_colours_that_are_no_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(COLOUR).convert("YCbCr").save(path)
    for read in (read_image, image_shape, read_masks):
        with pytest.raises(DataError, match=r"a\.tif: a TIFF in YCBCR colours; save it as"):
            read(path)
    flat = np.full((40, 30, 3), (200, 30, 60), np.uint8)
    Image.fromarray(flat).save(path, compression="jpeg")  # here the codec makes them RGB
    assert np.abs(read_image(path).astype(int) - flat).max() < 3


def test_a_palette_of_8_bits(tmp_path: Path) -> None:
    """Some programs fill the 16 bits of a TIFF palette as if they were 8."""
    path = tmp_path / "a.tif"
    colours = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
    tifffile.imwrite(path, LABELS, photometric="palette", colormap=colours.T.astype(np.uint16))
    assert np.array_equal(read_image(path), colours[LABELS])


@pytest.mark.parametrize("count", [3 * 256 + 128, 200])
def test_a_palette_that_is_no_table_of_colours(tmp_path: Path, count: int) -> None:
    """Its indices came out as an image of one channel, where the header has three."""
    path = tmp_path / "a.tif"
    values = RNG.integers(0, 2**16, count, dtype=np.uint16)
    more = [(320, "H", count, tuple(values.tolist()), True)]
    tifffile.imwrite(path, LABELS, metadata=None, extratags=more)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        data[tiff.pages[0].tags[262].valueoffset] = 3  # photometric: palette
    path.write_bytes(data)
    for read in (read_image, image_shape, read_masks):
        with pytest.raises(DataError, match=r"a\.tif: .*palette"):
            read(path)


def test_a_palette_png_without_pixels(tmp_path: Path) -> None:
    """Of a file cut into its header alone Pillow gives zeros: a label map without a cell."""
    path = tmp_path / "a.png"
    picture = Image.fromarray(LABELS)
    picture.putpalette(RNG.integers(0, 256, 768).tolist())
    picture.save(path)
    data = path.read_bytes()
    start = data.index(b"IDAT") - 4
    path.write_bytes(data[:start] + data[data.index(b"IEND") - 4 :])
    for read in (read_image, read_masks):
        with pytest.raises(DataError, match=r"a\.png: damaged or truncated PNG file"):
            read(path)


def test_a_palette_in_a_bmp(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    picture = Image.fromarray(LABELS)
    colours = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
    picture.putpalette(colours.ravel().tolist())
    picture.save(path)
    assert np.array_equal(read_image(path), colours[LABELS])
    assert np.array_equal(read_masks(path), LABELS)


@pytest.mark.parametrize("length", [51, 2_000, 32_818, 65_330, 10**7, 2**31 - 1])
@pytest.mark.parametrize("place", [18, 22])
def test_a_bmp_that_claims_more_pixels_than_it_has(tmp_path: Path, place: int, length: int) -> None:
    """The decoder of imagecodecs read on in memory, and the process died."""
    data = bytearray(imagecodecs.bmp_encode(RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)))
    data[place : place + 4] = length.to_bytes(4, "little")
    path = tmp_path / "a.bmp"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.bmp"):
        read_image(path)


@pytest.mark.parametrize("packing", [None, "zlib", "lzw", "packbits", "zstd", "jpeg"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("missing", [1, 20, 200])
def test_a_tiff_that_lacks_its_end(tmp_path: Path, packing: Any, tile: Any, missing: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, compression=packing, tile=tile, rowsperstrip=None if tile else 8)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(DataError, match=r"a\.tif: damaged or truncated TIFF"):
        read_image(path)


OME = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{own}">{images}</OME>'
POSITION = (
    '<Image ID="Image:{n}"><Pixels ID="Pixels:{n}" DimensionOrder="XYCZT" Type="uint8" SizeX="30" '
    'SizeY="40" SizeC="1" SizeZ="1" SizeT="1"><Channel ID="Channel:{n}:0" SamplesPerPixel="1"/>'
    '<TiffData IFD="0" PlaneCount="1"><UUID FileName="pos{n}.ome.tif">urn:uuid:{n}</UUID></TiffData>'
    "</Pixels></Image>"
)


def test_positions_in_files_of_their_own(tmp_path: Path) -> None:
    """Micro-Manager describes all positions in every file: each is the image of its own file."""
    images = "".join(POSITION.format(n=n) for n in range(3))
    planes = [GREY, 255 - GREY, GREY // 2]
    for n, plane in enumerate(planes):
        tifffile.imwrite(
            tmp_path / f"pos{n}.ome.tif", plane, description=OME.format(own=n, images=images),
            metadata=None, ome=False,
        )  # fmt: skip
    for n, plane in enumerate(planes):
        assert np.array_equal(read_image(tmp_path / f"pos{n}.ome.tif"), plane)
    (tmp_path / "pos2.ome.tif").unlink()
    assert np.array_equal(read_image(tmp_path / "pos1.ome.tif"), planes[1])
    assert image_shape(tmp_path / "pos1.ome.tif")[0] == 40


def test_missing_files_of_a_set_are_named(tmp_path: Path) -> None:
    one = POSITION.format(n=0).replace('SizeC="1"', 'SizeC="2"')
    plane = (
        '<TiffData FirstC="1" IFD="0"><UUID FileName="pos7.ome.tif">urn:uuid:7</UUID></TiffData>'
    )
    images = one.replace("</Pixels>", plane + "</Pixels>")
    path = tmp_path / "pos0.ome.tif"
    description = OME.format(own=0, images=images)
    tifffile.imwrite(path, GREY, description=description, metadata=None, ome=False)
    with pytest.raises(DataError, match=r"pos0\.ome\.tif: .*planes .* missing.*pos7\.ome\.tif"):
        read_image(path)


def test_files_of_cellpose_are_not_images_that_were_passed_over(tmp_path: Path) -> None:
    for name in ("a_seg.npy", "a.npy", "a.pgm", "a_size.npy"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path, _ in passed_over(tmp_path)] == ["a.npy", "a.pgm"]


def test_a_jpeg_in_a_png_and_a_bmp_of_one_bit(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    Image.fromarray(LABELS > 4).save(path)
    assert np.array_equal(read_masks(path) > 0, LABELS > 4)
    jpeg = imagecodecs.jpeg8_encode(GREY)
    (tmp_path / "a.png").write_bytes(jpeg)
    assert image_shape(tmp_path / "a.png")[0] == 40


def write_kind(path: Path, shape: tuple[int, int]) -> Path:
    """An empty image in the format of its ending."""
    blank = np.zeros(shape, np.uint8)
    if path.suffix == ".tif":
        tifffile.imwrite(path, blank, compression="zlib")
    elif path.suffix == ".jp2":
        path.write_bytes(imagecodecs.jpeg2k_encode(blank, codecformat="jp2", reversible=True))
    else:
        Image.fromarray(blank).save(path)
    return path


KINDS = ["a.png", "a.jpg", "a.bmp", "a.tif", "a.jp2", "a.webp"]


@pytest.mark.parametrize("name", KINDS)
def test_no_reader_takes_more_pixels_than_are_allowed(tmp_path: Path, name: str) -> None:
    path = write_kind(tmp_path / name, (40, 50))
    with at_most(2000):
        assert read_image(path).shape[:2] == (40, 50)
    with (
        at_most(1999),
        pytest.raises(DataError, match=r"a\.\w+: it claims 40 x 50 .*--max_pixels 2000") as e,
    ):
        read_image(path)
    assert (e.value.expected, e.value.found) == (1999, 2000)
    assert read_image(path).shape[:2] == (40, 50)


@pytest.mark.parametrize("name", KINDS)
def test_nothing_is_unpacked_of_what_is_too_large(tmp_path: Path, name: str) -> None:
    path = write_kind(tmp_path / name, (3000, 3000))
    tracemalloc.start()
    with at_most(10**6), pytest.raises(DataError, match="it claims 3,000 x 3,000"):
        read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6 + 2 * path.stat().st_size


def test_the_limit_reaches_other_threads() -> None:
    """Predictions read the next image in a thread of its own."""
    with at_most(10), ThreadPoolExecutor(1) as pool, pytest.raises(DataError, match="the 10 that"):
        pool.submit(refuse_large, (4, 5)).result()


def test_a_billion_without_being_asked() -> None:
    refuse_large((25_000, 40_000))
    with pytest.raises(DataError, match=r"the 1,000,000,000 that are read"):
        refuse_large((25_001, 40_000))


def test_numbers_that_python_does_not_print() -> None:
    """Json takes 4,300 digits a number, and their product has more."""
    with pytest.raises(
        DataError, match=r"claims over 10\^12 x over 10\^12 pixels .*damaged"
    ) as error:
        refuse_large((10**3000 - 1, 10**3000 - 1))
    assert len(str(error.value)) < 400
    str(error.value.facts)


def test_a_dataset_knows_how_large_its_images_are(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was prepared with a higher limit is trained on without another flag."""
    dataset = Dataset.open(tiny_data)
    name = dataset.ids[0]
    shape = dataset.labels(name).shape
    monkeypatch.setattr(pixel_limit, "MAX_PIXELS", 100)
    with pytest.raises(DataError, match="more than the 100 that"):
        read_image(tiny_data / "images" / dataset.images.at[name, "file"])
    assert dataset.image(name).shape[:2] == dataset.labels(name).shape == shape
    with at_most(99), pytest.raises(DataError, match="more than the 99 that"):
        dataset.image(name)

"""OME-Zarr images of all versions: read right, or refused in words that help."""

from __future__ import annotations

import json
import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr_files import multiscales, write_array, write_group, write_image, write_plate

from cellflow import PrepareConfig, prepare
from cellflow.errors import DataError
from cellflow.io.image_source import find_images
from cellflow.io.images import image_shape, list_images, passed_over, read_image, read_masks
from cellflow.io.large import open_large_image
from cellflow.io.pixel_limit import at_most
from cellflow.io.pixel_size import read_pixel_size

RNG = np.random.default_rng(0)
SEVEN = RNG.integers(0, 60_000, (7, 40, 30), dtype=np.uint16)
GREY = SEVEN[0]
VERSIONS = ["0.4", "0.5"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("axes", "pixels"),
    [
        ("yx", GREY),
        ("cyx", SEVEN),
        ("cyx", SEVEN[:1]),
        ("tczyx", SEVEN[None, :, None]),
        ("zyx", GREY[None]),
        ("czyx", SEVEN[:, None]),
    ],
)
def test_the_finest_level(tmp_path: Path, version: str, axes: str, pixels: Any) -> None:
    path = write_image(tmp_path / "a.ome.zarr", pixels, axes, version=version)
    expected = SEVEN.transpose(1, 2, 0) if 7 in pixels.shape else GREY
    found = read_image(path)
    assert found.dtype == np.uint16 and np.array_equal(found, expected)
    assert image_shape(path) == expected.shape
    assert read_pixel_size(path) == (0.5, 0.25)
    assert list_images(tmp_path) == [path]
    assert passed_over(tmp_path) == []


@pytest.mark.parametrize("dtype", ["u1", "i4", "f4", ">u2", "?", "f8"])
@pytest.mark.parametrize("version", VERSIONS)
def test_types_of_numbers(tmp_path: Path, version: str, dtype: str) -> None:
    pixels = (RNG.normal(size=(40, 30)) * 50).astype(dtype)
    if version == "0.5":  # which leaves the order of bytes to a codec
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    found = read_image(write_image(tmp_path / "a.zarr", pixels, "yx", version=version))
    assert np.array_equal(found, pixels)
    assert found.dtype.isnative and found.dtype.kind != "b"


def test_shards(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", GREY, "yx", levels=1, chunks=(8, 8), shards=(16, 16))
    assert np.array_equal(read_image(path), GREY)


@pytest.mark.parametrize("form", [{}, {"axes": ["t", "c", "z", "y", "x"]}])
def test_before_axes_had_types(tmp_path: Path, form: dict[str, Any]) -> None:
    path = tmp_path / "a.zarr"
    write_group(path, {"multiscales": [{"datasets": [{"path": "0"}], **form}]}, "0.1")
    write_array(path / "0", SEVEN[None, :, None], "0.1")
    assert np.array_equal(read_image(path), SEVEN.transpose(1, 2, 0))
    assert read_pixel_size(path) is None


def test_scales_of_both_places_and_other_units(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", GREY, "yx", version="0.4")
    facts = json.loads((path / ".zattrs").read_text())
    one = facts["multiscales"][0]
    one["coordinateTransformations"] = [{"type": "scale", "scale": [4, 4]}]
    for axis in one["axes"]:
        axis["unit"] = "nanometer"
    (path / ".zattrs").write_text(json.dumps(facts))
    assert read_pixel_size(path) == pytest.approx((0.002, 0.001))
    del one["axes"][0]["unit"]
    (path / ".zattrs").write_text(json.dumps(facts))
    assert read_pixel_size(path) is None


def test_stacks_are_refused(tmp_path: Path) -> None:
    for axes in ("zyx", "tyx"):
        path = write_image(tmp_path / f"{axes}.zarr", SEVEN, axes)
        for read in (read_image, image_shape):
            with pytest.raises(DataError, match=rf"{axes}\.zarr: .*a stack of shape \(7, 40, 30"):
                read(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plate(tmp_path: Path, version: str) -> None:
    plate = write_plate(tmp_path / "p.zarr", SEVEN, ("A/1", "B/2"), version)
    names = [f"p.zarr__{well}__{field}" for well in ("A__1", "B__2") for field in (0, 1)]
    for place in (plate, tmp_path, tmp_path / "*.zarr", tmp_path / "**"):
        found = find_images(place)
        assert list(found) == names
    assert np.array_equal(found[names[1]](), SEVEN[:, ::-1].transpose(1, 2, 0))
    with pytest.raises(DataError, match="found 4 images, such as"):
        read_image(plate)
    assert list(find_images(plate / "A" / "1" / "0")) == names[:1]


@pytest.mark.parametrize("count", [1, 2])
def test_series_of_bioformats2raw(tmp_path: Path, count: int) -> None:
    path = tmp_path / "slide.zarr"
    write_group(path, {"bioformats2raw.layout": 3}, "0.4")
    (path / "OME").mkdir()
    (path / "OME" / "METADATA.ome.xml").write_text("<OME/>")
    for place in range(count):
        write_image(path / str(place), SEVEN[place : place + 1], version="0.4")
    found = find_images(path)
    assert list(found) == (["slide"] if count == 1 else ["slide.zarr__0", "slide.zarr__1"])
    for place, image in enumerate(found.values()):
        assert np.array_equal(image(), SEVEN[place])


def test_no_image_is_looked_for_in_a_zarr(tmp_path: Path) -> None:
    """A zarr is an image, and no sub-folder; its label maps are no images either."""
    labels = {"cells": (GREY > 30_000).astype(np.uint8)}
    write_image(tmp_path / "day" / "a.zarr", SEVEN, labels=labels)
    write_image(tmp_path / "b.zarr", SEVEN, labels=labels)
    assert list(find_images(tmp_path)) == ["b"]
    assert list(find_images(tmp_path, recursive=True)) == ["b", "day__a"]
    assert list(find_images(tmp_path / "**" / "*.zarr")) == ["b", "a"]
    (tmp_path / "list.txt").write_text("day/a.zarr\nb.zarr\n")
    assert list(find_images(tmp_path / "list.txt")) == ["a", "b"]
    with pytest.raises(DataError, match="--recursive"):
        find_images(tmp_path / "day" / "..", img_filter="a")


def test_a_zarr_of_something_else_is_told(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "flows.zarr")).create_array("a", shape=(3, 3), dtype="f4")
    assert list_images(tmp_path) == []
    assert [(path.name, "OME-Zarr" in why) for path, why in passed_over(tmp_path)] == [
        ("flows.zarr", True)
    ]
    with pytest.raises(DataError, match=r"flows\.zarr: a zarr without an OME-Zarr image"):
        find_images(tmp_path / "flows.zarr")


def test_an_image_that_has_changed_is_another(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", GREY, "yx")
    before = find_images(path)["a"].fingerprint
    assert find_images(path)["a"].fingerprint == before
    os.utime(path / "0" / "c" / "0" / "0", ns=(1, 1))
    assert find_images(path)["a"].fingerprint != before


def change(path: Path, **facts: Any) -> None:
    """Change metadata of an array."""
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | facts))


@pytest.mark.parametrize("read", [read_image, read_masks])
def test_more_pixels_than_are_allowed(tmp_path: Path, read: Any) -> None:
    path = write_image(tmp_path / "a.zarr", GREY, "yx")
    change(path / "0" / "zarr.json", shape=[100_000, 100_000])
    tracemalloc.start()
    with pytest.raises(DataError, match=r"a\.zarr: it claims 100,000 x 100,000 .*--max_pixels"):
        read(path)
    with at_most(1199), pytest.raises(DataError, match="the 1,199 that"):
        read(write_image(tmp_path / "b.zarr", GREY, "yx"))
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_channels_and_chunks_that_take_too_much(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", SEVEN)
    change(path / "0" / "zarr.json", shape=[900_000, 40, 30_000])
    with pytest.raises(DataError, match=r"GiB; images of at most 16 GiB"):
        read_image(path)
    path = write_image(tmp_path / "b.zarr", GREY, "yx", version="0.4")
    change(path / "0" / ".zarray", chunks=[100_000, 100_000])
    with pytest.raises(DataError, match=r"b\.zarr: damaged .*chunks claim 19,073 MiB"):
        read_image(path)


@pytest.mark.parametrize(
    ("version", "codec"),
    [
        *(("0.4", codec) for codec in ("zstd", "blosc", "lz4", "gzip", "zlib")),
        *(("0.5", codec) for codec in ("zstd", "blosc", "gzip")),
    ],
)
def test_chunks_that_unpack_to_more(tmp_path: Path, version: str, codec: str) -> None:
    """A few kilobytes of a file, and 10 MB in memory."""
    makers: dict[str, Any] = {
        "zstd": (numcodecs.Zstd, zarr.codecs.ZstdCodec),
        "blosc": (numcodecs.Blosc, zarr.codecs.BloscCodec),
        "lz4": (numcodecs.LZ4, None),
        "gzip": (numcodecs.GZip, zarr.codecs.GzipCodec),
        "zlib": (numcodecs.Zlib, None),
    }
    maker, of_v3 = makers[codec]
    packer = of_v3() if version == "0.5" else maker()
    path = write_image(tmp_path / "a.zarr", GREY, "yx", version=version, compressors=[packer])
    assert np.array_equal(read_image(path), GREY)
    chunk = path / "0" / ("c/0/0" if version == "0.5" else "0.0")
    chunk.write_bytes(maker().encode(np.zeros(10_000_000, np.uint8)))
    assert chunk.stat().st_size < 100_000
    refused_for_its_size(path, 512)


def refused_for_its_size(path: Path, expected: int) -> None:
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"a\.zarr: damaged .*chunk 0.* where {expected} belong"):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 6e6
    tracemalloc.stop()


def zstd_without_size(data: bytes, times: int) -> bytes:
    """A frame of raw blocks that does not say its size, as writers that stream leave it; RFC 8878, 3.1.1."""
    kind = len(data) > 1  # else a block of one byte that is repeated
    blocks = [
        ((len(data) if kind else 2**17) << 3 | (not kind) << 1 | (at == times - 1)).to_bytes(
            3, "little"
        )
        for at in range(times)
    ]
    return b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(block + data for block in blocks)


def test_zstd_that_does_not_say_its_size(tmp_path: Path) -> None:
    path = write_image(
        tmp_path / "a.zarr", GREY, "yx", levels=1, compressors=[zarr.codecs.ZstdCodec()]
    )
    chunk = path / "0" / "c/0/0"
    chunk.write_bytes(zstd_without_size(GREY[:16, :16].tobytes(), 1))
    assert np.array_equal(read_image(path), GREY)
    chunk.write_bytes(zstd_without_size(b"\0", 200))
    refused_for_its_size(path, 512)


@pytest.mark.parametrize("place", ["start", "end"])
@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_shards_whose_pieces_unpack_to_more(tmp_path: Path, codec: str, place: Any) -> None:
    path = write_image(
        tmp_path / "a.zarr", GREY, "yx", levels=1, chunks=(16, 16),
        shards={"shape": (48, 32), "index_location": place},
        compressors=[{"gzip": zarr.codecs.GzipCodec, "zstd": zarr.codecs.ZstdCodec}[codec]()],
    )  # fmt: skip
    assert np.array_equal(read_image(path), GREY)
    bomb = {"gzip": numcodecs.GZip(), "zstd": numcodecs.Zstd()}[codec].encode(bytes(10_000_000))
    shard = path / "0" / "c/0/0"
    whole = shard.read_bytes()
    length = 6 * 16
    index = whole[:length] if place == "start" else whole[-length - 4 : -4]
    table = np.frombuffer(index, "<u8").reshape(-1, 2).copy()
    content = bytes(length + 4) if place == "start" else b""
    table[:] = len(content), len(bomb)
    index = table.tobytes()
    index = bytes(numcodecs.CRC32C(location="end").encode(index))
    shard.write_bytes(index + bomb if place == "start" else bomb + index)
    refused_for_its_size(path, 512)


@pytest.mark.parametrize("codecs", [["bz2"], ["lzma"], ["zlib", "zstd"], ["gzip", "shuffle"]])
def test_packings_whose_size_is_not_known(tmp_path: Path, codecs: list[str]) -> None:
    path = write_image(tmp_path / "a.zarr", GREY, "yx", version="0.4")
    change(path / "0" / ".zarray", filters=[{"id": name} for name in codecs], compressor=None)
    with pytest.raises(DataError, match=r"a\.zarr: its pixels are packed with .*which is not read"):
        read_image(path)
    path = write_image(tmp_path / "b.zarr", GREY, "yx", levels=1, chunks=(8, 8), shards=(16, 16))
    facts = json.loads((path / "0" / "zarr.json").read_text())
    inner = facts["codecs"][0]["configuration"]["codecs"]
    inner[1:] = [{"name": f"numcodecs.{name}"} for name in codecs]
    change(path / "0" / "zarr.json", **facts)
    with pytest.raises(DataError, match=r"b\.zarr: its pixels are packed with .*which is not read"):
        read_image(path)


class Payload:
    """What a pickle does when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("place", ["filters", "compressor"])
def test_no_pickle_is_opened(tmp_path: Path, place: str) -> None:
    """Zarr itself would open it."""
    path = write_image(tmp_path / "a.zarr", GREY, "yx", version="0.4", chunks=(40, 30))
    codec: Any = {"id": "pickle"}
    change(path / "0" / ".zarray", **{place: [codec] if place == "filters" else codec})
    if place == "filters":
        change(path / "0" / ".zarray", compressor=None)
    for chunk in (path / "0").glob("0.0"):
        chunk.write_bytes(pickle.dumps(Payload(tmp_path / "opened")))
    with pytest.raises(DataError, match=r"packed with 'pickle', which is not read"):
        read_image(path)
    assert not (tmp_path / "opened").exists()


def test_links_that_lead_out(tmp_path: Path) -> None:
    secret = write_image(tmp_path / "secret.zarr", GREY, "yx", version="0.4")
    path = write_image(tmp_path / "a.zarr", GREY, "yx", version="0.4")
    next((path / "0").glob("0.0")).unlink()
    (path / "0" / "0.0").symlink_to(secret / "0" / "0.0")
    with pytest.raises(DataError, match=r"0\.0 is a link that leads out"):
        read_image(path)
    write_group(path, multiscales("yx"), "0.4")
    for name in ("../secret.zarr/0", str(secret / "0"), "link"):
        (path / "link").unlink(missing_ok=True)
        (path / "link").symlink_to(secret / "0")
        facts = multiscales("yx")
        facts["multiscales"][0]["datasets"][0]["path"] = name
        write_group(path, facts, "0.4")
        with pytest.raises(DataError, match=r"a\.zarr: it refers to .* not inside"):
            read_image(path)
    write_group(path, {"plate": {"wells": [{"path": ".."}]}}, "0.4")
    with pytest.raises(DataError, match="not inside"):
        find_images(path)


def test_chunks_that_are_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_image(tmp_path / "a.zarr", GREY, "yx", version="0.4")
    chunks = sorted((path / "0").glob("[0-9].[0-9]"))
    chunks[0].unlink()
    assert (read_image(path)[:16, :16] == 0).all()
    assert not caplog.text
    for chunk in chunks[1:]:
        chunk.unlink()
    assert not read_image(path).any()
    assert "a.zarr: none of its chunks is there" in caplog.text


@pytest.mark.parametrize("version", VERSIONS)
def test_of_many_chunks_those_that_are_there_are_read(tmp_path: Path, version: str) -> None:
    pixels = np.zeros((2, 800, 803), np.uint16)
    pixels[:, 400:407, 130:150] = SEVEN[:2, :7, :20]
    pixels[1, 799, 802] = 7
    path = write_image(tmp_path / "a.zarr", pixels, "cyx", version=version, levels=1)
    assert np.array_equal(read_image(path), pixels.transpose(1, 2, 0))


DAMAGES = {
    "no array": lambda p: (p / "0" / "zarr.json").unlink(),
    "no json": lambda p: (p / "0" / "zarr.json").write_text("{"),
    "a list": lambda p: (p / "zarr.json").write_text("[]"),
    "deep": lambda p: (p / "zarr.json").write_text("[" * 100_000),
    "no datasets": lambda p: write_group(p, {"multiscales": [{"datasets": []}]}, "0.5"),
    "no multiscales": lambda p: write_group(p, {"multiscales": []}, "0.5"),
    "negative": lambda p: change(p / "0" / "zarr.json", shape=[-1, 30]),
    "floats": lambda p: change(p / "0" / "zarr.json", shape=[40.5, 30]),
    "no codecs": lambda p: change(p / "0" / "zarr.json", codecs=[]),
    "text": lambda p: change(p / "0" / "zarr.json", data_type="string"),
    "axes": lambda p: write_group(p, multiscales("cyx"), "0.5"),
    "cut chunk": lambda p: next(p.glob("0/c/0/0")).write_bytes(b"xx"),
    "other pixels": lambda p: next(p.glob("0/c/0/0")).write_bytes(bytes(range(256))),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told(tmp_path: Path, damage: str) -> None:
    path = write_image(tmp_path / "a.zarr", GREY, "yx")
    DAMAGES[damage](path)
    with pytest.raises(DataError) as found:
        read_image(path)
    assert str(found.value).startswith(str(path))
    assert find_images(tmp_path).keys() == {"a"} or damage == "no multiscales"


def test_random_damage(tmp_path: Path) -> None:
    """Bytes of metadata and chunks: an error that names the image, or an image of its shape."""
    rng, refused = np.random.default_rng(3), 0
    for version in VERSIONS:
        path = write_image(tmp_path / f"{version}.zarr", SEVEN[:2], version=version)
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        files = [file for file in files if file.relative_to(path).parts[0] != "1"]
        for _ in range(100):
            file = files[int(rng.integers(len(files)))]
            data = file.read_bytes()
            broken = bytearray(data)
            for place in rng.integers(0, len(data), rng.integers(1, 8)):
                broken[place] = rng.integers(256)
            file.write_bytes(broken)
            try:
                assert read_image(path).ndim in (2, 3)
            except DataError as error:
                refused += 1
                assert str(error).startswith(str(path))
            file.write_bytes(data)
    assert refused > 60


def test_a_shape_of_which_hardly_a_chunk_is_there(tmp_path: Path) -> None:
    """A damaged digit: 250 million pixels of zeros took 5 s, and gigabytes."""
    path = tmp_path / "a.zarr"
    labels = np.pad(np.ones((20, 30), np.uint16), 10)
    write_image(path, labels[None] * np.uint16(9), version="0.4", labels={"cells": labels})
    for part, size in (("0", 4_999_999), ("labels/cells/0", 5_999_999)):
        file = path / part / ".zarray"
        kept = file.read_text()
        told = json.loads(kept)
        told["shape"][-1] = size
        file.write_text(json.dumps(told))
        with pytest.raises(DataError) as error:
            prepare(PrepareConfig(tmp_path, out=tmp_path / "data"))
        assert ("chunks are there" in str(error.value)) == (part == "0")
        if part == "0":
            with pytest.raises(DataError, match=r"only . of its .* chunks are there"):
                read_image(path)
            told["shape"] = [9_999, 4_999_999, 50]
            file.write_text(json.dumps(told))
            with pytest.raises(DataError, match=r"only . of its .* chunks are there"):
                open_large_image(path)
        file.write_text(kept)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("size", [10**30, 2**63, 2**41])
def test_an_axis_that_nothing_is_as_long_as(tmp_path: Path, version: str, size: int) -> None:
    path = tmp_path / "a.zarr"
    write_image(path, np.ones((2, 40, 50), np.uint16), version=version)
    file = path / "0" / ("zarr.json" if version == "0.5" else ".zarray")
    told = json.loads(file.read_text())
    told["shape"][1] = size
    file.write_text(json.dumps(told))
    for read in (read_image, open_large_image):
        with pytest.raises(DataError, match=rf"a\.zarr.*expected lengths of axes, found .*{size}"):
            read(path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_files_of_other_programs_are_no_chunks(tmp_path: Path, version: str) -> None:
    """Google Drive and Windows put them into folders."""
    path = tmp_path / "a.zarr"
    pixels = np.arange(4000, dtype=np.uint16).reshape(2, 40, 50)
    write_image(path, pixels, version=version)
    for name in ("desktop.ini", "Thumbs.db", "c/desktop.ini"):
        place = path / "0" / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"[.ShellClassInfo]" * 100_000)
    assert np.array_equal(read_image(path), np.moveaxis(pixels, 0, -1))


@pytest.mark.parametrize(
    ("axes", "turned"),
    [(["Y", "X"], False), (["x", "y"], True), ([{"name": "X", "type": "space"}, {"name": "Y", "type": "space"}], True)],
)  # fmt: skip
def test_names_of_axes(tmp_path: Path, axes: list[Any], turned: bool) -> None:
    path = tmp_path / "a.zarr"
    pixels = np.arange(2000, dtype=np.uint16).reshape(40, 50)
    write_group(
        path,
        {"multiscales": [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]},
        "0.4",
    )
    write_array(path / "0", pixels, "0.4")
    expected = pixels.T if turned else pixels
    assert np.array_equal(read_image(path), expected)
    assert image_shape(path) == expected.shape
    with open_large_image(path) as image:
        assert np.array_equal(image.read(image.box), expected)

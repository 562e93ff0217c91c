"""OME-Zarr images read box by box."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr_files import write_array, write_image, write_plate

from cellflow.errors import DataError
from cellflow.io.images import read_image
from cellflow.io.large import open_large_image
from cellflow.io.pixel_size import PixelSize
from cellflow.types import Box

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 60_000, (50, 70), dtype=np.uint16)
COLOUR = RNG.integers(0, 256, (3, 50, 70), dtype=np.uint8)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["yx", "cyx", "tczyx", "yxc"])
@pytest.mark.parametrize("chunks", ["small", "planes", "sharded"])
def test_boxes_are_those_of_the_whole(tmp_path: Path, version: str, axes: str, chunks: str) -> None:
    pixels: Any = {
        "yx": GREY,
        "cyx": COLOUR,
        "tczyx": COLOUR[None, :, None],
        "yxc": np.moveaxis(COLOUR, 0, -1),
    }[axes]
    options: dict[str, Any] = {}
    if chunks == "planes":
        options["chunks"] = pixels.shape
    if chunks == "sharded" and version == "0.5":
        options = {"chunks": tuple(min(8, n) for n in pixels.shape)}
        options["shards"] = tuple(16 if n >= 16 else n for n in pixels.shape)
    path = write_image(tmp_path / "a.zarr", pixels, axes, version=version, **options)
    whole = read_image(path)
    with open_large_image(path) as image:
        assert image.levels == ((50, 70), (25, 35))
        assert image.channels == (whole.shape[2] if whole.ndim == 3 else 1)
        assert image.dtype == whole.dtype
        for box in (image.box, Box(0, 1, 0, 1), Box(13, 50, 15, 70), Box(16, 32, 16, 32)):
            found = image.read(box)
            assert found.dtype == whole.dtype and np.array_equal(found, whole[box.slices])
        assert np.array_equal(image.read(Box(3, 20, 5, 30), level=1), whole[::2, ::2][3:20, 5:30])
        assert image.pixel_size() == PixelSize(0.5, 0.25)
    with open_large_image(path, level=1) as image:
        assert image.shape == (25, 35) and image.factor() == (2.0, 2.0)
        assert image.pixel_size() == PixelSize(1.0, 0.5)
        assert np.array_equal(image.read(image.box), whole[::2, ::2])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_box(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.zarr"
    if not path.exists():
        write_image(path, COLOUR, chunks=(2, 13, 9))
    whole = read_image(path)
    ends = [
        sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2))) for n in (50, 70)
    ]
    box = Box(*ends[0], *ends[1])
    with open_large_image(path) as image:
        assert np.array_equal(image.read(box), whole[box.slices])


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3"])
def test_old_versions_know_no_scales(tmp_path: Path, version: str) -> None:
    path = write_image(tmp_path / "a.zarr", COLOUR[None, :, None], "tczyx", version="0.4")
    facts = json.loads((path / ".zattrs").read_text())
    for scale in facts["multiscales"]:
        scale["version"] = version
        if version == "0.3":
            scale["axes"] = ["t", "c", "z", "y", "x"]
        else:
            del scale["axes"]
        for level in scale["datasets"]:
            del level["coordinateTransformations"]
    (path / ".zattrs").write_text(json.dumps(facts))
    with open_large_image(path, level=1) as image:
        assert image.pixel_size() is None and image.factor() == (2.0, 2.0)
        assert np.array_equal(image.read(image.box), read_image(path)[::2, ::2])


@pytest.mark.parametrize(
    ("version", "encoding"),
    [
        ("0.4", {"name": "v2", "separator": "/"}),
        ("0.4", {"name": "v2", "separator": "."}),
        ("0.5", {"name": "v2", "separator": "."}),
        ("0.5", {"name": "default", "separator": "."}),
        ("0.5", {"name": "default", "separator": "/"}),
    ],
)
def test_a_damaged_chunk_and_sound_ones(
    tmp_path: Path, version: str, encoding: dict[str, str]
) -> None:
    """Each chunk is found by its name, however it is named, and looked at before it is unpacked."""
    path = write_image(
        tmp_path / "a.zarr", GREY, "yx", version=version, chunk_key_encoding=encoding
    )
    prefix = (
        "c" + encoding["separator"] if version == "0.5" and encoding["name"] == "default" else ""
    )
    chunk = path / "0" / f"{prefix}1{encoding['separator']}2"
    data = chunk.read_bytes()
    chunk.write_bytes(data[: len(data) // 2])
    sound = Box(0, 16, 0, 70)
    with open_large_image(path) as image:
        assert np.array_equal(image.read(sound), GREY[:16])
        with pytest.raises(
            DataError, match=r"a\.zarr, level 0, rows 20 to 21, columns 30 to 40: damaged or trunc"
        ):
            image.read(Box(20, 21, 30, 40))
    chunk.write_bytes(b"\x28\xb5\x2f\xfd\xe0" + (2**33).to_bytes(8, "little") + bytes(20))
    with (
        open_large_image(path) as image,
        pytest.raises(DataError, match=r"the chunk .*2 claims 8,589,934,592 bytes, where 512 bel"),
    ):
        image.read(Box(20, 21, 30, 40))
    (tmp_path / "elsewhere").write_bytes(data)
    chunk.unlink()
    chunk.symlink_to(tmp_path / "elsewhere")
    with (
        open_large_image(path) as image,
        pytest.raises(DataError, match="is a link that leads out of it"),
    ):
        image.read(Box(20, 21, 30, 40))
    chunk.unlink()
    with open_large_image(path) as image:
        assert not image.read(Box(16, 32, 32, 48)).any()  # the fill value, as zarr has it


def test_a_piece_of_a_shard_that_claims_too_much(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", GREY, "yx", chunks=(8, 8), shards=(16, 16), levels=1)
    shard = path / "0" / "c" / "1" / "1"
    data = bytearray(shard.read_bytes())
    data[:13] = b"\x28\xb5\x2f\xfd\xe0" + (2**33).to_bytes(8, "little")
    shard.write_bytes(data)
    with open_large_image(path) as image:
        assert np.array_equal(image.read(Box(0, 16, 0, 70)), GREY[:16])
        with pytest.raises(DataError, match="claims 8,589,934,592 bytes, where 128 belong"):
            image.read(Box(17, 18, 17, 18))


def test_chunks_that_do_not_go_into_memory(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", GREY, "yx", version="0.4")
    facts = json.loads((path / "0" / ".zarray").read_text())
    (path / "0" / ".zarray").write_text(json.dumps(facts | {"chunks": [60_000, 60_000]}))
    with pytest.raises(DataError, match=r"a\.zarr: its chunks claim 6,866 MiB each"):
        open_large_image(path)


def test_no_limit_on_pixels_and_little_memory(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", GREY, "yx", levels=1)
    array = zarr.create_array(
        str(path / "0"), shape=(200_000, 100_000), chunks=(512, 512), dtype="uint16", overwrite=True
    )
    array[100_000:100_100, 50_000:50_050] = 7
    with pytest.raises(DataError, match="more than the 1,000,000,000 that are read"):
        read_image(path)
    tracemalloc.start()
    with open_large_image(path) as image:
        found = image.read(Box(99_999, 100_200, 49_999, 50_200))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.sum() == 7 * 100 * 50 and not found[0].any() and not found[:, 0].any()
    assert peak < 2**24


def test_levels_that_are_missing_or_of_another_kind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_image(tmp_path / "a.zarr", GREY, "yx", levels=3)
    write_array(path / "2", GREY[::4, ::4].astype(np.uint8), "0.5", overwrite=True)
    with open_large_image(path) as image:
        assert len(image.levels) == 2
    assert "level 2 and those after it cannot be read (expected uint16" in caplog.text
    shutil.rmtree(path / "1")
    with open_large_image(path) as image:
        assert len(image.levels) == 1 and np.array_equal(image.read(image.box), GREY)
    assert "level 1 and those after it cannot be read (its level 1 is missing" in caplog.text
    with pytest.raises(DataError, match=r"there is no level 1; it has 0 \(50 x 70\)"):
        open_large_image(path, level=1)


def test_an_image_without_chunks_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_image(tmp_path / "a.zarr", GREY, "yx", levels=1)
    shutil.rmtree(path / "0" / "c")
    with open_large_image(path) as image:
        assert not image.read(image.box).any()
    assert "none of its chunks is there" in caplog.text


def test_a_plate_is_not_one_image(tmp_path: Path) -> None:
    path = write_plate(tmp_path / "p.zarr", COLOUR, ("A/1", "B/2"), "0.5")
    with pytest.raises(
        DataError, match=r"p\.zarr: expected an OME-Zarr image .*found 4 images, such as .*A/1/0"
    ):
        open_large_image(path)
    with open_large_image(path / "B" / "2" / "1") as image:
        assert np.array_equal(image.read(image.box), np.moveaxis(COLOUR[:, ::-1], 0, -1))


def test_a_stack_is_refused_in_the_words_of_whole_reads(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", COLOUR, "zyx")
    with pytest.raises(DataError) as whole:
        read_image(path)
    with pytest.raises(DataError) as parts:
        open_large_image(path)
    assert str(parts.value) == str(whole.value)


def test_scales_of_levels_are_taken(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", GREY, "yx", version="0.4", names=())
    facts = json.loads((path / ".zattrs").read_text())
    datasets = facts["multiscales"][0]["datasets"]
    datasets[1]["coordinateTransformations"][0]["scale"] = [1.25, 0.5]
    (path / ".zattrs").write_text(json.dumps(facts))
    with open_large_image(path, level=1) as image:
        assert image.factor() == (2.5, 2.0) and image.pixel_size() == PixelSize(1.25, 0.5)
    datasets[1]["coordinateTransformations"][0]["scale"] = ["nonsense"]
    (path / ".zattrs").write_text(json.dumps(facts))
    with open_large_image(path, level=1) as image:
        assert image.factor() == (2.0, 2.0)


def test_names_of_channels(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", COLOUR, names=("DAPI", "GFP", "RFP"))
    with open_large_image(path) as image:
        assert image.channel_names() == ("DAPI", "GFP", "RFP")


def test_threads_read_at_once(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.zarr", GREY, "yx")
    boxes = [Box(i, i + 20, i, i + 30) for i in range(30)] * 4
    with open_large_image(path) as image, ThreadPoolExecutor(4) as pool:
        for box, found in zip(boxes, pool.map(image.read, boxes), strict=True):
            assert np.array_equal(found, GREY[box.slices])

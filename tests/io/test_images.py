from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from cellflow.errors import DataError
from cellflow.io.images import (
    image_shape,
    list_images,
    read_image,
    read_labels,
    read_masks,
    write_labels,
)

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 30), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (40, 30), dtype=np.uint16)
COLOUR = RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (40, 30, 4), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray[Any, Any]) -> Path:
    match path.suffix:
        case ".png":
            path.write_bytes(imagecodecs.png_encode(pixels))
        case ".bmp":
            path.write_bytes(imagecodecs.bmp_encode(pixels))
        case ".jpg":
            path.write_bytes(imagecodecs.jpeg8_encode(pixels, level=95))
        case _:
            tifffile.imwrite(path, pixels)
    return path


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("grey.png", GREY),
        ("deep.png", DEEP),
        ("colour.png", COLOUR),
        ("grey.tif", GREY),
        ("deep.tiff", DEEP),
        ("colour.tif", COLOUR),
        ("real.tif", DEEP.astype(np.float32) / 7),
        ("grey.bmp", GREY),
        ("colour.bmp", COLOUR),
    ],
)
def test_native_pixels_and_info(tmp_path: Path, name: str, pixels: np.ndarray[Any, Any]) -> None:
    path = save(tmp_path / name, pixels)
    found = read_image(path)
    assert found.dtype == pixels.dtype
    assert np.array_equal(found, pixels)
    assert image_shape(path) == pixels.shape


def test_jpeg_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", np.full((32, 48), 77, np.uint8))
    assert np.abs(read_image(path).astype(int) - 77).max() <= 2
    assert image_shape(path)[1] == 48


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_dropped(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", ALPHA)
    assert np.array_equal(read_image(path), ALPHA[..., :3])
    assert image_shape(path)[2] == 3


def test_grey_with_alpha_becomes_grey(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(ALPHA[..., :2], "LA").save(path)
    assert np.array_equal(read_image(path), ALPHA[..., 0])
    assert len(image_shape(path)) == 2


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", DEEP)
    other = path.rename(tmp_path / "a.tif")
    assert np.array_equal(read_image(other), DEEP)


def test_channels_of_a_tiff_come_last(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    stacked = np.stack([DEEP, DEEP[::-1]])
    tifffile.imwrite(path, stacked, imagej=True, metadata={"axes": "CYX"})
    assert np.array_equal(read_image(path), np.moveaxis(stacked, 0, -1))
    assert image_shape(path)[2] == 2


def test_one_bit_becomes_uint8(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY > 100)
    assert read_image(path).dtype == np.uint8


def test_a_tiff_of_one_plane_in_a_stack_is_an_image(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY[None])
    assert np.array_equal(read_image(path), GREY)


@pytest.mark.parametrize("read", [read_image, image_shape])
def test_a_stack_is_refused(tmp_path: Path, read: Any) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.zeros((5, 20, 30), np.uint8), photometric="minisblack")
    with pytest.raises(
        DataError, match=r"stack\.tif: expected one 2D image, found a stack .*5, 20"
    ):
        read(path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".bmp"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = save(tmp_path / f"cut{suffix}", RNG.integers(0, 256, (90, 80), dtype=np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=rf"cut\{suffix}: damaged or truncated .*again"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, image_shape])
def test_what_is_not_an_image(tmp_path: Path, read: Any) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"text\.png: not a PNG, TIFF, JPEG, BMP"):
        read(tmp_path / "text.png")
    with pytest.raises(DataError, match=r"empty\.png: the file is empty"):
        read(tmp_path / "empty.png")
    with pytest.raises(DataError, match=r"gone\.png: there is no such file"):
        read(tmp_path / "gone.png")


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    path = save(tmp_path / "nan.tif", np.full((20, 20), np.nan, np.float32))
    with pytest.raises(DataError, match="not finite"):
        read_image(path)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    labels=hnp.arrays(
        st.sampled_from([np.int32, np.uint16, np.int64]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20),
        elements=st.integers(0, 300),
    )
)
def test_labels_round_trip(tmp_path: Path, labels: np.ndarray[Any, Any]) -> None:
    path = tmp_path / "labels.tif"
    write_labels(path, labels)
    assert read_labels(path).dtype == np.int32
    assert np.array_equal(read_labels(path), labels)
    assert tifffile.imread(path).dtype == np.uint16
    assert [item.name for item in tmp_path.iterdir()] == ["labels.tif"]


def test_many_cells_need_32_bits(tmp_path: Path) -> None:
    labels = np.array([[0, 70_000]], np.int32)
    write_labels(tmp_path / "a.tif", labels)
    assert tifffile.imread(tmp_path / "a.tif").dtype == np.uint32
    assert np.array_equal(read_labels(tmp_path / "a.tif"), labels)


def test_labels_that_are_none(tmp_path: Path) -> None:
    for wrong in (np.zeros((3, 4, 5), int), np.zeros((3, 4)), np.full((3, 4), -1)):
        with pytest.raises(DataError, match="labels"):
            write_labels(tmp_path / "a.tif", wrong)
    assert not list(tmp_path.iterdir())


def test_masks_keep_gaps_and_refuse_pictures(tmp_path: Path) -> None:
    gaps = np.array([[0, 5, 5], [9, 0, 5]], np.uint16)
    assert np.array_equal(read_masks(save(tmp_path / "a.png", gaps)), gaps)
    whole = gaps.astype(np.float32)
    assert np.array_equal(read_masks(save(tmp_path / "b.tif", whole)), gaps)
    with pytest.raises(DataError, match="one number per pixel, found 3 channels"):
        read_masks(save(tmp_path / "c.png", COLOUR))
    with pytest.raises(DataError, match="found fractions"):
        read_masks(save(tmp_path / "d.tif", whole + 0.5))
    with pytest.raises(DataError, match="found -3"):
        read_masks(save(tmp_path / "e.tif", np.full((4, 4), -3, np.int16)))


def test_list_images(tmp_path: Path) -> None:
    for name in ("b.TIF", "a.png", "c.txt", ".hidden.png", "d.jpeg"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.TIF", "d.jpeg"]
    with pytest.raises(DataError, match="expected a folder of images, found nothing there"):
        list_images(tmp_path / "gone")
    with pytest.raises(DataError, match="found a file"):
        list_images(tmp_path / "c.txt")

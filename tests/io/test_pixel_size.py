"""Micrometres per pixel of TIFF, ImageJ and OME files, and in label maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from skimage.io import imsave

from cellflow.config.prediction import SENSIBLE_PIXELS
from cellflow.io.images import read_labels, write_labels
from cellflow.io.pixel_size import PixelSize, read_pixel_size, sensible_pixel_size

IMAGE = np.zeros((20, 30), np.uint16)


def written(path: Path, **how: Any) -> PixelSize | None:
    tifffile.imwrite(path / "a.tif", IMAGE, **how)
    return read_pixel_size(path / "a.tif")


def as_imagej(path: Path, unit: bytes, per_unit: tuple[float, float]) -> PixelSize | None:
    """A file with a description as ImageJ writes it, which tifffile does for ASCII only."""
    text = b"ImageJ=1.54f\nunit=" + unit + b"\nloop=false\n"
    how = {"resolution": per_unit, "resolutionunit": "NONE", "metadata": None}
    return written(path, description=text, **how)


@pytest.mark.parametrize(
    ("unit", "micrometres"),
    [
        (b"um", 1), (b"micron", 1), (b"microns", 1), (b"\\u00B5m", 1), (b"\\u00b5m", 1),
        ("µm".encode(), 1), ("µm".encode("latin-1"), 1), ("μm".encode(), 1), (b"nm", 1e-3),
        (b"mm", 1e3), (b"cm", 1e4), (b"inch", 25400), (b"pixel", None), (b"", None), (b"sec", None),
    ],
)  # fmt: skip
def test_units_of_imagej(tmp_path: Path, unit: bytes, micrometres: float | None) -> None:
    scale = micrometres or 1
    found = as_imagej(tmp_path, unit, (scale / 0.65, scale / 0.5))
    assert found == (None if micrometres is None else pytest.approx((0.5, 0.65), rel=1e-4))


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({"PhysicalSizeX": 0.65, "PhysicalSizeY": 0.5}, (0.5, 0.65)),
        ({"PhysicalSizeX": 650, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5}, (0.5, 0.65)),
        ({"PhysicalSizeX": 650, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 0.5}, None),
        ({"PhysicalSizeX": 0.65}, None),
        ({"PhysicalSizeX": 0.0, "PhysicalSizeY": 0.5}, None),
        ({}, None),
    ],
)
def test_ome(tmp_path: Path, axes: dict[str, Any], expected: Any) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", IMAGE, metadata={"axes": "YX", **axes})
    found = read_pixel_size(tmp_path / "a.ome.tif")
    assert found == (None if expected is None else pytest.approx(expected))


def test_ome_goes_before_tags(tmp_path: Path) -> None:
    sizes = {"axes": "YX", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2}
    how = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "a.ome.tif", IMAGE, metadata=sizes, **how)
    assert read_pixel_size(tmp_path / "a.ome.tif") == pytest.approx((0.2, 0.2))


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((1e4 / 0.65, 1e4 / 0.5), "CENTIMETER", (0.5, 0.65)),
        ((25400 / 0.65, 25400 / 0.5), "INCH", (0.5, 0.65)),
        ((1 / 0.65, 1 / 0.5), "NONE", None),
        ((72, 72), "INCH", None), ((96, 96), "INCH", None), ((300, 300), "INCH", None),
        ((118.11, 118.11), "CENTIMETER", None), ((28.35, 28.35), "CENTIMETER", None),
        ((1, 1), "INCH", None), ((4e9, 4e9), "CENTIMETER", None),
    ],
)  # fmt: skip
def test_plain_tags(tmp_path: Path, resolution: Any, unit: str, expected: Any) -> None:
    found = written(tmp_path, resolution=resolution, resolutionunit=unit)
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-4))


def test_a_screen_resolution_that_imagej_kept_is_no_pixel_size(tmp_path: Path) -> None:
    assert as_imagej(tmp_path, b"inch", (72, 72)) is None


def test_what_does_not_say(tmp_path: Path) -> None:
    assert written(tmp_path) is None
    imsave(tmp_path / "a.png", IMAGE.astype(np.uint8), check_contrast=False)
    assert read_pixel_size(tmp_path / "a.png") is None
    assert read_pixel_size(tmp_path / "none.tif") is None
    (tmp_path / "text.tif").write_text("II*")
    assert read_pixel_size(tmp_path / "text.tif") is None


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), kind=st.sampled_from(["imagej", "ome"]))
def test_damaged_metadata_is_none(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    path = tmp_path / f"{kind}.tif"
    metadata = {"axes": "YX", "unit": "um"} | (
        {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5} if kind == "ome" else {}
    )
    tifffile.imwrite(path, IMAGE, metadata=metadata, resolution=(2, 2), **{kind: True})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(4, len(content)))])
    found = read_pixel_size(path)
    assert found is None or sensible_pixel_size(*found) == found


@pytest.mark.parametrize("size", SENSIBLE_PIXELS)
@pytest.mark.parametrize("top", [7, 70_000])
def test_the_smallest_and_the_largest_are_written(tmp_path: Path, size: float, top: int) -> None:
    write_labels(tmp_path / "a.tif", np.full((3, 4), top), PixelSize(size, size))
    assert read_pixel_size(tmp_path / "a.tif") == pytest.approx((size, size), rel=0.01)


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf, 1e9, 1e-9, None, "x", ""])
def test_what_makes_no_sense(value: Any) -> None:
    assert sensible_pixel_size(1.0, value) is None
    assert sensible_pixel_size(value, 1.0) is None


@pytest.mark.parametrize("shape", [(20, 30), (20, 3), (4, 20), (3, 4), (1, 1)])
@pytest.mark.parametrize("top", [7, 70_000])
def test_label_maps_keep_it(tmp_path: Path, shape: tuple[int, int], top: int) -> None:
    labels = np.arange(shape[0] * shape[1]).reshape(shape) % 5
    labels[0, 0] = top
    path = tmp_path / "a.tif"
    write_labels(path, labels, PixelSize(0.5, 0.65))
    np.testing.assert_array_equal(read_labels(path), labels)
    assert read_pixel_size(path) == pytest.approx((0.5, 0.65), rel=1e-4)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.series[0].axes == "YX"
        assert tiff.asarray().dtype.itemsize == (2 if top == 7 else 4)
        assert tiff.is_imagej == (top == 7)
    write_labels(path, labels)
    assert read_pixel_size(path) is None

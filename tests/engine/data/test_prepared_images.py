"""What `prepare` says of images in which nothing can be seen, and keeps of those in several files."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellflow.config import PrepareConfig
from cellflow.engine.data.prepare import prepare

RNG = np.random.default_rng(0)
LABELS = np.kron(np.arange(12).reshape(4, 3), np.ones((10, 10))).astype(np.uint16)
SET = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{own}"><Image ID="Image:0">'
    '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="30" SizeY="40" SizeC="2" SizeZ="1" '
    'SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/><Channel ID="Channel:0:1" SamplesPerPixel="1"/>'
    '<TiffData FirstC="0" IFD="0"><UUID FileName="s0.ome.tif">urn:uuid:0</UUID></TiffData>'
    '<TiffData FirstC="1" IFD="0"><UUID FileName="s1.ome.tif">urn:uuid:1</UUID></TiffData>'
    "</Pixels></Image></OME>"
)


def pixels() -> np.ndarray:
    return RNG.integers(0, 256, (40, 30), dtype=np.uint8)


def test_images_of_one_value_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, image in {"a": pixels(), "b": np.full((40, 30), 7, np.uint8), "c": pixels()}.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", image)
        tifffile.imwrite(tmp_path / f"{name}_masks.tif", LABELS)
    blue = np.dstack(
        [pixels(), pixels(), np.zeros((40, 30), np.uint8)]
    )  # an empty channel is usual
    tifffile.imwrite(tmp_path / "d.tif", blue)
    tifffile.imwrite(tmp_path / "d_masks.tif", LABELS)
    caplog.set_level(logging.WARNING)
    prepare(PrepareConfig(source=tmp_path, out=tmp_path / "data"))
    said = [text for text in caplog.messages if "one value" in text]
    assert len(said) == 1 and "1 of 4 images" in said[0] and "(b)" in said[0]


def test_an_image_in_several_files_is_whole_in_the_dataset(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    planes = [pixels(), pixels()]
    for number, plane in enumerate(planes):
        tifffile.imwrite(
            source / f"s{number}.ome.tif", plane, description=SET.format(own=number),
            metadata=None, ome=False,
        )  # fmt: skip
    (source / "images").mkdir()
    for path in list(source.glob("s?.ome.tif")):
        path.rename(source / "images" / path.name)
    link = source / "images" / "other.tif"
    link.symlink_to(source / "images" / "s0.ome.tif")
    (source / "masks").mkdir()
    for name in ("s0.ome", "s1.ome", "other"):
        tifffile.imwrite(source / "masks" / f"{name}.tif", LABELS, ome=False)
    dataset = prepare(PrepareConfig(source=source, out=tmp_path / "data"))
    for path in source.rglob("*.tif"):
        path.unlink()
    (tmp_path / "data" / "images" / "s1.ome.tif").unlink()
    for name in ("s0.ome", "other"):
        assert np.array_equal(dataset.image(name), np.stack(planes, -1))

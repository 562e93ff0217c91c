"""Images of sources, whatever they lie in, opened to be read box by box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from zarr_files import write_image

from cellflow.config import PrepareConfig
from cellflow.engine.data.prepare import prepare
from cellflow.errors import DataError
from cellflow.io.image_source import find_images
from cellflow.io.large import ArrayImage
from cellflow.io.large.tiff_image import TiffImage
from cellflow.io.large.zarr_image import ZarrImage
from cellflow.io.pixel_size import PixelSize
from cellflow.io.source import SourceImage
from cellflow.types import Box

PIXELS = np.random.default_rng(0).integers(0, 60_000, (40, 30), dtype=np.uint16)


def test_files_are_opened_by_their_path(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, tile=(16, 16), compression="zlib")
    write_image(tmp_path / "b.zarr", PIXELS, "yx")
    Image.fromarray(PIXELS).save(tmp_path / "c.png")
    images = find_images(tmp_path)
    for name, kind in {"a": TiffImage, "b": ZarrImage, "c": ArrayImage}.items():
        with images[name].open_large() as image:
            assert type(image) is kind
            assert np.array_equal(image.read(Box(3, 20, 4, 30)), images[name].pixels()[3:20, 4:30])
            assert image.pixel_size() == images[name].pixel_size()
    with images["b"].open_large(level=1) as image:
        assert image.shape == (20, 15) and image.pixel_size() == PixelSize(1.0, 0.5)
    given = find_images(tmp_path / "b.zarr", pixel_size=2.0)["b"]
    with given.open_large(level=1) as image:
        assert image.pixel_size() == PixelSize(4.0, 4.0)


def test_an_image_of_a_dataset(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for folder, pixels in (("images", PIXELS), ("masks", (PIXELS > 30_000).astype(np.uint8))):
        (source / folder).mkdir(parents=True)
        tifffile.imwrite(source / folder / "a.tif", pixels, compression="zlib")
    dataset = prepare(PrepareConfig(source=source, out=tmp_path / "data"))
    image = find_images(tmp_path / "data")["a"]
    with image.open_large() as large:
        assert np.array_equal(large.read(large.box), PIXELS)
    tifffile.imwrite(dataset.path / "images" / "a.tif", PIXELS[:30])
    with pytest.raises(DataError, match=r"expected 40 x 30 .*as images\.csv says, found 30 x 30"):
        image.open_large()


class Held(SourceImage):
    """An image that is no file."""

    def pixels(self) -> NDArray[Any]:
        return PIXELS


def test_pixels_that_are_no_file(tmp_path: Path) -> None:
    with Held("a", tmp_path / "a", given_size=0.5).open_large() as image:
        assert isinstance(image, ArrayImage) and image.pixel_size() == PixelSize(0.5, 0.5)
        assert np.array_equal(image.read(Box(1, 2, 3, 4)), PIXELS[1:2, 3:4])
    with pytest.raises(DataError, match="the pixels of 'a' are not known"):
        SourceImage("a", tmp_path / "a").open_large()

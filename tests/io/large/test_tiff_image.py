"""TIFFs read box by box: what whole reads give, or the same refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from cellflow.io.images import read_image
from cellflow.io.large import ArrayImage, LargeImage, TiffImage, open_large_image
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

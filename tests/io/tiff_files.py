"""TIFFs of many kinds, and pyramids, as other programs write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

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


def write_kinds(folder: Path) -> dict[str, Path]:
    """A file of each kind, by its name."""
    found = {}
    for name, (pixels, options) in KINDS.items():
        found[name] = folder / f"{name}.tif"
        tifffile.imwrite(found[name], pixels, **options)
    return found


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

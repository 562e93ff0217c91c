"""Size of a pixel in micrometres, as TIFF, ImageJ, OME and OME-Zarr metadata tell it."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import tifffile

from cellflow.config.prediction import SENSIBLE_PIXELS
from cellflow.io import _ome_zarr
from cellflow.io._image_header import kind_of_file
from cellflow.io._tiff_chain import refuse_torn_chain
from cellflow.io._zarr_metadata import is_zarr

__all__ = ["MICROMETRES_PER_CM", "PixelSize", "read_pixel_size", "sensible_pixel_size"]

MICROMETRES_PER_CM = 1e4

_MICROMETRES = {
    "pm": 1e-6,
    "a": 1e-4, "å": 1e-4, "angstrom": 1e-4,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3, "nanometers": 1e-3,
    "um": 1.0, "µm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "micrometers": 1.0,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3,
    "cm": MICROMETRES_PER_CM, "centimeter": 1e4, "centimetre": 1e4,
    "m": 1e6, "meter": 1e6, "metre": 1e6,
    "inch": 25400.0, "in": 25400.0,
}  # fmt: skip
_TAG_UNITS = {2: "inch", 3: "cm"}
"""Values of the tag ResolutionUnit."""
_PRINT_DPI = (72, 96, 100, 120, 150, 200, 240, 300, 400, 600)
"""Pixels per inch that programs write who know nothing of a microscope."""


class PixelSize(NamedTuple):
    """Micrometres per pixel along Y and X."""

    height: float
    width: float

    @property
    def area(self) -> float:
        """Square micrometres of a pixel."""
        return self.height * self.width


def read_pixel_size(path: Path) -> PixelSize | None:
    """Micrometres per pixel that an image file tells.

    OME-XML (``PhysicalSizeX``, ``PhysicalSizeY`` with their units) goes before ImageJ's metadata (unit, and
    the resolution tags as pixels per unit), and these before plain resolution tags in inches or centimetres.

    Resolutions for print and screen (72, 96, 150, 300 ... pixels per inch) are no pixel sizes, whatever
    the unit that they are written in: programs put them into files of which they know nothing. For the same
    reason nothing is read from PNG, JPEG and BMP. Of an OME-Zarr image the scale of its finest level
    is taken, where its axes have units.

    Parameters
    ----------
    path : Path
        An image.

    Returns
    -------
    PixelSize or None
        None where it is not known, or makes no sense: 0, negative, not finite, less than a hundredth of a
        nanometre or more than a centimetre. What is damaged is not known; no error is raised.
    """
    with suppress(Exception):  # whatever damaged metadata makes the library or a parser raise
        if is_zarr(Path(path)):
            scale = _ome_zarr.read_scale(Path(path)) or []
            return sensible_pixel_size(*(size * _micrometres(unit) for size, unit in scale))
        if kind_of_file(Path(path)) == "TIFF":
            refuse_torn_chain(path)
            with tifffile.TiffFile(path) as tiff:
                return _from_ome(tiff.ome_metadata) or _from_tags(tiff)
    return None


def sensible_pixel_size(height: Any, width: Any) -> PixelSize | None:
    """A pixel size of two numbers, if they make sense."""
    try:
        size = PixelSize(float(height), float(width))
    except (TypeError, ValueError):
        return None
    low, high = SENSIBLE_PIXELS
    return size if all(low <= value <= high for value in size) else None


def _from_ome(xml: str | None) -> PixelSize | None:
    """The first image's."""
    with suppress(ElementTree.ParseError):
        pixels = ElementTree.fromstring(xml or "").find(".//{*}Pixels")
        if pixels is not None:
            sizes = [
                float(pixels.get(f"PhysicalSize{axis}", "nan"))
                * _micrometres(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
                for axis in "YX"
            ]
            return sensible_pixel_size(*sizes)
    return None


def _from_tags(tiff: tifffile.TiffFile) -> PixelSize | None:
    """Of the first page's resolution, in the unit of ImageJ or that of TIFF."""
    tags = tiff.pages[0].tags
    imagej = tiff.imagej_metadata or {}
    unit = str(imagej.get("unit") or _TAG_UNITS.get(int(tags.valueof("ResolutionUnit", 1)), ""))
    each = _micrometres(unit)
    resolutions = [tags.valueof(f"{axis}Resolution") for axis in "YX"]
    sizes = [each * under / over for over, under in resolutions]
    return None if any(map(_is_printed, sizes)) else sensible_pixel_size(*sizes)


def _is_printed(micrometres: float) -> bool:
    """Whether a pixel is that of a usual print or screen resolution."""
    return any(math.isclose(micrometres, 25400 / dpi, rel_tol=2e-3) for dpi in _PRINT_DPI)


def _micrometres(unit: str) -> float:
    """Micrometres of a unit of length; nan of another unit, such as pixel."""
    text = re.sub(r"\\u00b5|\\u03bc|Âµ|Î¼|μ", "µ", unit.strip(), flags=re.IGNORECASE)
    return _MICROMETRES.get(text.lower(), math.nan)

"""A diameter in micrometres as one in pixels of the images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress

from cellflow.config.checks import MICROMETRES
from cellflow.errors import DataError, PackageError
from cellflow.io.source import SourceImage
from cellflow.storage.sizes import few_text

__all__ = ["diameter_in_pixels"]

_ALIKE = 1.02
"""Pixel sizes whose ratio is smaller are one: they were rounded in different ways."""


def diameter_in_pixels(
    diameter: float | str | None, images: Mapping[str, SourceImage], level: int = 0
) -> float | None:
    """A diameter that was given, in pixels of a level of the images.

    Parameters
    ----------
    diameter : float, str or None
        Pixels, or micrometres such as ``12um``.
    images : mapping of str to SourceImage
        Images by id. They are asked for their pixel sizes only where those are needed.
    level : int
        Level of their pyramids.

    Returns
    -------
    float or None
        None where none was given.

    Raises
    ------
    DataError
        If an image does not tell its pixel size, or two have different ones. One that cannot be opened does not
        count, unless all are such: what is wrong with it is told when it is its turn.
    """
    if not isinstance(diameter, str):
        return diameter
    found = MICROMETRES.fullmatch(diameter)
    assert found is not None  # checked with the config
    sizes = {name: _pixel(image, level) for name, image in images.items()}
    unknown = [name for name, size in sizes.items() if size is None]
    damaged = {name for name in unknown if not _opens(images[name])}
    unknown = [name for name in unknown if name not in damaged]
    if unknown or len(damaged) == len(sizes):
        raise DataError(
            f"--diameter {diameter}: the pixel size of {few_text(unknown or sizes)} is not known. Give it with "
            "--pixel_size, or the diameter in pixels.",
            id=next(iter(unknown or sizes)),
        )
    known = {name: size for name, size in sizes.items() if size is not None}
    smallest, largest = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    if known[largest] > _ALIKE * known[smallest]:
        raise DataError(
            f"--diameter {diameter}: images have different pixel sizes, {known[smallest]:.4g} micrometres "
            f"({smallest}) to {known[largest]:.4g} ({largest}). Predict them in one command a size.",
            expected=known[smallest],
            found=known[largest],
        )
    return float(found[1]) / known[smallest]


def _pixel(image: SourceImage, level: int) -> float | None:
    """Side in micrometres of a square pixel of the same area; None where it is not known, or there is no image."""
    size = None
    if level:
        with suppress(DataError, PackageError), image.open_large(level) as large:
            size = large.pixel_size()
    else:
        size = image.pixel_size()
    return None if size is None else math.sqrt(size.area)


def _opens(image: SourceImage) -> bool:
    try:
        image.open_large().close()
    except (DataError, PackageError):
        return False
    return True

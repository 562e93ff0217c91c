"""Images that are read box by box, never whole: slides, plates and all others by one interface."""

from __future__ import annotations

from pathlib import Path

from cellflow.io._damage import unreadable
from cellflow.io._image_header import kind_of_file
from cellflow.io.channel_names import read_channel_names
from cellflow.io.image_folders import SLIDE_SUFFIXES
from cellflow.io.images import is_zarr, read_image
from cellflow.io.large.array_image import ArrayImage
from cellflow.io.large.coarse import coarse_pixels
from cellflow.io.large.large_image import LargeImage, place_text
from cellflow.io.large.slide_image import SlideImage
from cellflow.io.large.tiff_image import open_tiff
from cellflow.io.large.zarr_image import ZarrImage
from cellflow.io.pixel_size import PixelSize, read_pixel_size

__all__ = ["ArrayImage", "LargeImage", "coarse_pixels", "open_large_image", "place_text"]


def open_large_image(
    path: Path,
    *,
    level: int = 0,
    pixel_size: PixelSize | None = None,
    max_pixels: int | None = None,
) -> LargeImage:
    """Open an image that is read box by box.

    Parameters
    ----------
    path : Path
        The folder of an OME-Zarr image, a TIFF, a slide of a scanner (by its ending: .svs, .ndpi, .mrxs ...,
        which need the extra ``slides``), or any file that `cellflow.io.images.read_image` takes. PNG, JPEG
        and the like are read whole, within its limit on pixels, and kept in memory; all others have no limit.
    level : int
        That which is used, 0 for the finest.
    pixel_size : PixelSize, optional
        Micrometres per pixel of the finest level, whatever the file says.
    max_pixels : int, optional
        As of `cellflow.io.images.read_image`, for images that can only be read whole.

    Returns
    -------
    LargeImage
        To be closed, as by a ``with``.

    Raises
    ------
    DataError
        If the file is missing, damaged or no such image, there is no such level, or its tiles, strips or
        chunks are larger than `large_image.LARGEST_CHUNK`.
    PackageError
        If the file is a slide and OpenSlide is not installed.
    """
    path = Path(path)
    if is_zarr(path):
        return ZarrImage(path, level=level, pixel_size=pixel_size)
    try:
        kind = kind_of_file(path)
    except OSError as error:
        raise unreadable(path, error) from error
    if path.suffix.lower() in SLIDE_SUFFIXES:
        return SlideImage(path, level=level, pixel_size=pixel_size)
    if kind == "TIFF":
        image = open_tiff(path, level=level, pixel_size=pixel_size)
        if image is not None:
            return image
    pixels, names = read_image(path, max_pixels=max_pixels), read_channel_names(path)
    size = pixel_size or read_pixel_size(path)
    return ArrayImage(path, pixels, level=level, pixel_size=size, channel_names=names)

"""Read 2D images and label maps in their native dtype; write label maps.

Formats are recognised by content, not by name: PNG, TIFF, JPEG, BMP, JPEG 2000 and WebP;
a folder that is a zarr is an OME-Zarr image. Whatever is wrong with a file ends in one `DataError` that names the
file.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io import _image_header as header
from cellflow.io import _jpeg, _jpeg2000, _ome_zarr, _tiff
from cellflow.io._damage import check_numbers, damage_told, unreadable
from cellflow.io._zarr_metadata import is_zarr
from cellflow.io.image_folders import IMAGE_SUFFIXES, is_text, list_images, passed_over
from cellflow.io.pixel_limit import refuse_large
from cellflow.io.pixel_size import MICROMETRES_PER_CM, PixelSize
from cellflow.numeric.colours import labels_from_colours
from cellflow.storage.atomic import atomic_path

__all__ = [
    "IMAGE_SUFFIXES",
    "copy_image",
    "image_shape",
    "is_text",
    "is_zarr",
    "list_images",
    "passed_over",
    "read_image",
    "read_labels",
    "read_masks",
    "write_labels",
    "write_planes",
]

_log = logging.getLogger(__name__)

_DECODERS = {
    "PNG": imagecodecs.png_decode,
    "JPEG": imagecodecs.jpeg8_decode,
    "JPEG 2000": imagecodecs.jpeg2k_decode,
    "WebP": imagecodecs.webp_decode,
}
_ZARR = "OME-Zarr"
_OF_OME = "bBhHiIfd"
"""Types of numbers that OME-TIFF has."""
_LOSSY = ("JPEG", "JPEG 2000")
"""And WebP, unless its first chunk is the one without loss."""


def read_image(path: Path, *, max_pixels: int | None = None) -> NDArray[Any]:
    """Read a 2D image in its native dtype, the way up in which viewers show it.

    Parameters
    ----------
    path : Path
        PNG, TIFF, JPEG, BMP, JPEG 2000 or WebP, or the folder of an OME-Zarr image, of which the finest
        level is read. Alpha is dropped; the channels of a multi-channel image come last, whether they lie
        first or last in the file.
    max_pixels : int, optional
        Height times width that it may claim to have; without it see `cellflow.io.pixel_limit`.

    Returns
    -------
    (H, W) or (H, W, C) ndarray
        uint8, uint16 or whatever the file holds; 1-bit images become uint8. Indices of a palette become
        the colours they stand for, but for files of ImageJ, whose palette only colours the display.
        TIFFs of which 0 is white keep their numbers, as in ImageJ. The orientation that cameras write
        (EXIF, TIFF tag 274) is applied.

    Raises
    ------
    DataError
        If the file is missing, truncated, of an unknown format, a stack or a set of several images, in
        CMYK, larger than is allowed, or holds values that are not finite real numbers.
    """
    return _read(Path(path), indices=False, most=max_pixels)


def image_shape(path: Path) -> tuple[int, ...]:
    """Shape of what `read_image` gives, ``(H, W)`` or ``(H, W, C)``, for most files without unpacking the pixels.

    Raises
    ------
    DataError
        If the file is no image that is known; of one that `read_image` refuses for its pixels or colours there may
        be a shape.
    """
    if is_zarr(path):
        with damage_told(path, _ZARR):
            return _ome_zarr.read_shape(path)
    data, kind = _read_bytes(path)
    with damage_told(path, kind):
        if kind == "TIFF":
            return _tiff.read_shape(path)
        if kind == "JPEG 2000":
            found = _jpeg2000.read_header(data)
            if not found.palette:
                channels = found.channels - found.alpha
                return found[:2] if channels == 1 else (*found[:2], channels)
        elif kind != "BMP":
            with header.open_picture(data, kind) as picture:
                return header.shape(picture, data)
    return read_image(path).shape


def _read(path: Path, *, indices: bool, most: int | None) -> NDArray[Any]:
    """Pixels of an image; of a label map with `indices`, which are numbers where an image would have colours."""
    if is_zarr(path):
        with damage_told(path, _ZARR):
            return _checked(_ome_zarr.read_pixels(path, most), path)
    data, kind = _read_bytes(path)
    with damage_told(path, kind):
        if indices and (lossy := _lossy_packing(path, data, kind)):
            raise DataError(
                f"{path}: a label map with {lossy} compression, which changes labels along every outline. "
                f"Export it again as {'TIFF without it' if kind == 'TIFF' else 'TIFF'} or PNG.",
                path=path,
            )
        if kind == "TIFF":
            return _checked(_tiff.read_pixels(path, colours=not indices, most=most), path)
        if kind == "JPEG 2000":
            return _checked(_read_jpeg2000(data, most), path)
        with header.open_picture(data, kind) as picture:
            header.refuse_swollen(header.claim(picture, data, kind), len(data), kind)
            refuse_large((picture.height, picture.width), most)
            header.refuse_animation(picture)
            if indices and picture.mode == "P":
                pixels = header.stored(picture, data)
            elif kind == "BMP":  # of a damaged one the decoder of imagecodecs reads on in memory
                pixels = np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))
            else:
                pixels = _decode(data, kind, path)
            how = header.orientation(picture, data)  # last, as it may read a PNG to its end
        return _checked(header.turn(pixels, how), path)


def _lossy_packing(path: Path, data: bytes, kind: str) -> str:
    """The compression from which pixels do not come back as they were, or of which nothing says that they do."""
    if kind == "TIFF":
        return _tiff.lossy_packing(path)
    return kind if kind in _LOSSY or (kind == "WebP" and data[12:16] != b"VP8L") else ""


def _read_jpeg2000(data: bytes, most: int | None) -> NDArray[Any]:
    """Pixels without alpha."""
    found = _jpeg2000.read_header(data)
    samples = found.height * found.width * found.channels
    claimed = header.Claim(samples * (1 + (found.bits > 8) * 3), samples * found.bits // 8)
    header.refuse_swollen(claimed, len(data), "JPEG 2000")
    refuse_large((found.height, found.width), most)
    pixels = np.asarray(_DECODERS["JPEG 2000"](data))
    return pixels[..., :-1] if found.alpha and pixels.ndim == 3 else pixels


def _decode(data: bytes, kind: str, path: Path) -> NDArray[Any]:
    pixels = np.asarray(_DECODERS[kind](data))
    if kind == "JPEG" and not _jpeg.is_whole(data):
        raise ValueError("the end of the image is missing")
    if kind == "JPEG" and pixels.ndim == 3 and pixels.shape[2] == 4:
        raise DataError(f"{path}: a CMYK JPEG; save it as grey or RGB.", path=path)
    has_alpha = pixels.ndim == 3 and pixels.shape[2] in (2, 4)
    return pixels[..., :-1] if has_alpha else pixels


def read_masks(
    path: Path, *, colours: bool = False, max_pixels: int | None = None
) -> NDArray[np.int64]:
    """Read a label map made elsewhere, as it is: gaps and labels of several parts stay.

    Parameters
    ----------
    path : Path
    colours : bool
        Whether each colour of a picture is a cell, see `labels_from_colours` of `cellflow.numeric.colours`.

    Returns
    -------
    (H, W) int64 ndarray
        0 background. In a file with a palette the indices are the labels; a picture of three equal
        channels gives one of them.

    Raises
    ------
    DataError
        If it is not one whole non-negative number per pixel, larger than is allowed, or was saved with
        loss (JPEG), which changes labels along every outline.
    """
    path = Path(path)
    pixels = _read(path, indices=True, most=max_pixels)
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        text = (
            f"{path}: expected a label map with one number per pixel, found 2 channels. Save the one with "
            "the cells as a file of its own."
        )
        raise DataError(text, path=path, found=pixels.shape)
    if pixels.ndim == 3 and colours:
        with damage_told(path, "picture"):
            return _labels_of_picture(path, pixels)
    if pixels.ndim != 2:
        text = (
            f"{path}: expected a label map with one number per pixel, found {pixels.shape[2]} channels of "
            "colours. If each cell has a colour of its own, add --colours; else save the label map itself."
        )
        raise DataError(text, path=path, found=pixels.shape)
    if pixels.dtype.kind == "f" and not np.array_equal(pixels, np.rint(pixels)):
        text = (
            f"{path}: expected whole numbers as labels, found fractions. Export the labels themselves, "
            "neither scaled nor smoothed."
        )
        raise DataError(text, path=path, found=pixels.dtype)
    low, high = pixels.min(initial=0), pixels.max(initial=0)
    if low < 0 or float(high) >= 2**63:
        text = f"{path}: expected labels of 0 and more, found {low if low < 0 else high}. Export the labels themselves."
        raise DataError(text, path=path, expected=0, found=low if low < 0 else high)
    return pixels.astype(np.int64)


def _labels_of_picture(path: Path, pixels: NDArray[Any]) -> NDArray[np.int64]:
    """Number the colours of a picture, and say which is the background where it is not black."""
    labels = labels_from_colours(pixels)
    background = pixels[labels == 0][0]  # it is black that is there, or on the border
    colour = ", ".join(map(str, background.tolist()))
    if background.any() and not _files_told(path.parent, colour):
        _files_told(path.parent, colour).append(path)
        _log.info("%s: %s is taken for the background (%s)", path.parent, colour, path.name)
    return labels


@lru_cache(maxsize=64)
def _files_told(folder: Path, colour: str) -> list[Path]:
    """Files of which a colour was told: one for all of a folder, which may be thousands."""
    return []


def write_labels(path: Path, labels: NDArray[Any], pixel_size: PixelSize | None = None) -> None:
    """Write a label map atomically as a zlib-compressed TIFF.

    Parameters
    ----------
    path : Path
        Ends in .tif.
    labels : (H, W) integer ndarray
        Non-negative; stored as uint16, or as uint32 when there are more than 65,535 cells.
    pixel_size : PixelSize, optional
        Micrometres per pixel. Written as ImageJ writes them, so that Fiji shows the scale; ImageJ knows no
        uint32, which gets resolution tags in centimetres instead.
    """
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        text = f"{path}: expected (H, W) integer labels, found {labels.shape} {labels.dtype}."
        raise DataError(text, path=path, found=labels.dtype)
    top = int(labels.max(initial=0))
    if int(labels.min(initial=0)) < 0 or top >= 2**32:
        raise DataError(f"{path}: expected labels from 0 to 4,294,967,295.", path=path)
    small = labels.astype(np.uint16 if top < 2**16 else np.uint32)
    with atomic_path(Path(path)) as temporary:
        tifffile.imwrite(temporary, small, compression="zlib", **_resolution(small, pixel_size))


def _resolution(labels: NDArray[Any], pixel_size: PixelSize | None) -> dict[str, Any]:
    """A pixel size as arguments of tifffile."""
    if pixel_size is None:
        return {}
    unit = 1.0 if labels.dtype == np.uint16 else MICROMETRES_PER_CM
    per_unit = unit / pixel_size.width, unit / pixel_size.height
    if labels.dtype != np.uint16:
        return {"resolution": per_unit, "resolutionunit": "CENTIMETER"}
    return {"imagej": True, "resolution": per_unit, "metadata": {"axes": "YX", "unit": "um"}}


def copy_image(path: Path, pixels: NDArray[Any], target: Path) -> None:
    """Copy the file of an image byte for byte; one whose planes lie in several files becomes one file.

    Parameters
    ----------
    path : Path
        The image.
    pixels : (H, W) or (H, W, C) ndarray
        What `read_image` makes of it.
    target : Path
        With the ending of `path`.
    """
    if header.kind_of_file(path) == "TIFF" and _tiff.is_in_several_files(path):
        write_planes(target, pixels)
    else:
        shutil.copyfile(path, target)


def write_planes(
    path: Path,
    pixels: NDArray[Any],
    channel_names: Sequence[str] = (),
    pixel_size: PixelSize | None = None,
) -> None:
    """Write an image ``(H, W)`` or ``(H, W, C)`` without loss, as a TIFF of one plane a channel.

    Where something is known of its channels or pixels, it is an OME-TIFF that says so; of numbers that OME has no name
    for (64 bit whole ones, 16 bit real ones) a plain TIFF without it.
    """
    planes = pixels if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    metadata: dict[str, Any] = {"axes": "CYX"[-planes.ndim :]}
    if channel_names:
        names = list(channel_names)
        metadata["Channel"] = {"Name": names if planes.ndim == 3 else names[0]}
    if pixel_size is not None:
        metadata |= {"PhysicalSizeX": pixel_size.width, "PhysicalSizeY": pixel_size.height}
    ome = len(metadata) > 1 and pixels.dtype.char in _OF_OME
    facts = metadata if ome else {"axes": metadata["axes"]}
    tifffile.imwrite(
        path, planes, ome=ome, photometric="minisblack", metadata=facts, compression="zlib"
    )


def read_labels(path: Path, *, max_pixels: int | None = None) -> NDArray[np.int32]:
    """Read a label map that `write_labels` wrote, as ``(H, W)`` int32.

    Raises
    ------
    DataError
        As `read_masks`, and for a number that int32 does not hold.
    """
    masks = read_masks(path, max_pixels=max_pixels)
    top, most = int(masks.max(initial=0)), np.iinfo(np.int32).max
    if top > most:
        text = f"{path}: expected labels of at most {most:,}, found {top:,}. Number the cells from 1 on."
        raise DataError(text, path=Path(path), expected=most, found=top)
    return masks.astype(np.int32)


def _read_bytes(path: Path) -> tuple[bytes, str]:
    """What is in a file, and its kind; of a TIFF, which is read part by part, no more than tells that."""
    try:
        with path.open("rb") as file:
            start = file.read(header.SIGNATURE_BYTES)
            kind = _kind_of(start, path)
            if kind == "TIFF":
                return start, kind
            size = path.stat().st_size
            if size > header.SMALL:
                with damage_told(path, kind):
                    start += file.read(header.SMALL)
                    header.refuse_padded(start, size, kind)
            return start + file.read(), kind
    except OSError as error:
        raise unreadable(path, error) from error


def _kind_of(data: bytes, path: Path) -> str:
    if not data:
        raise DataError(f"{path}: the file is empty. Copy or export the file again.", path=path)
    kind = header.kind_of(data)
    if kind is None:
        raise DataError(
            f"{path}: not a PNG, TIFF, JPEG, BMP, JPEG 2000 or WebP image, whatever its name "
            "says. Convert it to one of these.",
            path=path,
        )
    return kind


def _checked(pixels: NDArray[Any], path: Path) -> NDArray[Any]:
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or min(pixels.shape[:2], default=0) < 1:
        text = f"{path}: expected one 2D image, found shape {pixels.shape}."
        raise DataError(text, path=path, found=pixels.shape)
    return np.ascontiguousarray(check_numbers(pixels, path))

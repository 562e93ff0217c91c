"""Read 2D images and label maps in their native dtype; write label maps.

Formats are told by content, not by name: PNG, TIFF, JPEG and BMP. Whatever is wrong with a file ends
in one `DataError` that names the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io.pixel_size import MICROMETRES_PER_CM, PixelSize
from cellflow.storage.atomic import atomic_path

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageInfo",
    "image_info",
    "list_images",
    "read_image",
    "read_labels",
    "read_masks",
    "write_labels",
]

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_DECODERS = {
    "PNG": imagecodecs.png_decode,
    "JPEG": imagecodecs.jpeg8_decode,
    "BMP": imagecodecs.bmp_decode,
}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # by colour type, alpha dropped
_MAX_CHANNELS = 4


@dataclass(frozen=True)
class ImageInfo:
    """Size and type of an image as `read_image` returns it."""

    height: int
    width: int
    channels: int
    dtype: str


def read_image(path: Path) -> NDArray[Any]:
    """Read a 2D image in its native dtype.

    Parameters
    ----------
    path : Path
        PNG, TIFF, JPEG or BMP. Alpha is dropped; the channels of a multi-channel TIFF come last.

    Returns
    -------
    (H, W) or (H, W, C) ndarray
        uint8, uint16 or whatever the file holds; 1-bit images become uint8.

    Raises
    ------
    DataError
        If the file is missing, truncated, of an unknown format, a stack of several planes, or holds
        values that are not finite real numbers.
    """
    path = Path(path)
    data = _read_bytes(path)
    kind = _kind_of(data, path)
    try:
        pixels = _read_tiff(path) if kind == "TIFF" else np.asarray(_DECODERS[kind](data))
    except DataError:
        raise
    except Exception as error:  # the codecs raise many kinds of error on damaged files
        raise _damaged(path, kind, str(error)) from error
    if kind == "JPEG" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise _damaged(path, kind, "the end of the image is missing")
    if kind == "JPEG" and pixels.ndim == 3 and pixels.shape[2] == 4:
        raise DataError(f"{path}: a CMYK JPEG; save it as grey or RGB.")
    return _checked(_drop_alpha(pixels) if kind != "TIFF" else pixels, path)


def image_info(path: Path) -> ImageInfo:
    """Size, channels and dtype of an image; for PNG and TIFF without decoding the pixels.

    Raises
    ------
    DataError
        If the file is not an image that `read_image` takes.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(33)
        kind = _kind_of(head, path)
        if kind == "PNG":
            return _png_info(head, path)
        if kind == "TIFF":
            with tifffile.TiffFile(path) as tiff:
                series = tiff.series[0]
                order = _tiff_order(series.axes, series.shape, path)
                shape = [series.shape[axis] for axis in order]
                channels = shape[2] if len(shape) == 3 else 1
                alpha = _has_alpha(tiff.pages[0])
                return ImageInfo(shape[0], shape[1], channels - alpha, str(series.dtype))
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, KeyError, IndexError, struct.error) as error:
        if isinstance(error, DataError):
            raise
        raise _damaged(path, "image", str(error)) from error
    pixels = read_image(path)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    return ImageInfo(pixels.shape[0], pixels.shape[1], channels, str(pixels.dtype))


def read_masks(path: Path) -> NDArray[np.int64]:
    """Read a label map made elsewhere, as it is: gaps and labels of several parts stay.

    Returns
    -------
    (H, W) int64 ndarray
        0 background.

    Raises
    ------
    DataError
        If it is not one whole non-negative number per pixel.
    """
    pixels = read_image(path)
    if pixels.ndim != 2:
        raise DataError(
            f"{path}: expected a label map with one number per pixel, found {pixels.shape[2]} "
            "channels. Save the label map itself, not a coloured picture of it."
        )
    if pixels.dtype.kind == "f" and not np.array_equal(pixels, np.rint(pixels)):
        raise DataError(f"{path}: expected whole numbers as labels, found fractions.")
    masks = pixels.astype(np.int64)
    if masks.size and masks.min() < 0:
        raise DataError(f"{path}: expected labels of 0 and more, found {masks.min()}.")
    return masks


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
        raise DataError(
            f"{path}: expected (H, W) integer labels, found {labels.shape} {labels.dtype}."
        )
    top = int(labels.max(initial=0))
    if int(labels.min(initial=0)) < 0 or top >= 2**32:
        raise DataError(f"{path}: expected labels from 0 to 4,294,967,295.")
    small = labels.astype(np.uint16 if top < 2**16 else np.uint32)
    with atomic_path(Path(path)) as temporary:
        tifffile.imwrite(temporary, small, compression="zlib", **_resolution(small, pixel_size))


def _resolution(labels: NDArray[Any], pixel_size: PixelSize | None) -> dict[str, Any]:
    """How tifffile is told of a pixel size."""
    if pixel_size is None:
        return {}
    unit = 1.0 if labels.dtype == np.uint16 else MICROMETRES_PER_CM
    per_unit = unit / pixel_size.width, unit / pixel_size.height
    if labels.dtype != np.uint16:
        return {"resolution": per_unit, "resolutionunit": "CENTIMETER"}
    return {"imagej": True, "resolution": per_unit, "metadata": {"axes": "YX", "unit": "um"}}


def read_labels(path: Path) -> NDArray[np.int32]:
    """Read a label map that `write_labels` wrote, as ``(H, W)`` int32."""
    return read_masks(path).astype(np.int32)


def list_images(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name; hidden files are passed over.

    Raises
    ------
    DataError
        If the folder does not exist or cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of images, found {_what_is(folder)}.")
    try:
        return sorted(
            item
            for item in folder.iterdir()
            if item.suffix.lower() in IMAGE_SUFFIXES and item.name[0] != "." and item.is_file()
        )
    except OSError as error:
        raise _unreadable(folder, error) from error


def _what_is(path: Path) -> str:
    return "a file" if path.exists() else "nothing there"


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror or error}).")


def _damaged(path: Path, kind: str, reason: str) -> DataError:
    return DataError(
        f"{path}: damaged or truncated {kind} file ({reason}). Copy or export the file again."
    )


def _kind_of(data: bytes, path: Path) -> str:
    if not data:
        raise DataError(f"{path}: the file is empty. Copy or export the file again.")
    for signature, kind in _SIGNATURES.items():
        if data.startswith(signature):
            return kind
    raise DataError(
        f"{path}: not a PNG, TIFF, JPEG or BMP image, whatever its name says. "
        "Convert it to one of these."
    )


def _png_info(head: bytes, path: Path) -> ImageInfo:
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise _damaged(path, "PNG", "no header")
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    return ImageInfo(height, width, _PNG_CHANNELS[colour], "uint16" if bits == 16 else "uint8")


def _read_tiff(path: Path) -> NDArray[Any]:
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        order = _tiff_order(series.axes, series.shape, path)
        others = [axis for axis in range(len(series.shape)) if axis not in order]
        pixels = np.transpose(series.asarray().reshape(series.shape), [*order, *others])
        pixels = pixels.reshape(pixels.shape[: len(order)])  # the others have length 1
        return pixels[..., :-1] if _has_alpha(tiff.pages[0]) else pixels


def _has_alpha(page: Any) -> bool:
    """Whether the last sample of a TIFF page is alpha (1 associated, 2 unassociated)."""
    extra = tuple(getattr(page, "extrasamples", ()))
    return bool(extra) and int(extra[-1]) in (1, 2) and int(page.samplesperpixel) in (2, 4)


def _tiff_order(axes: str, shape: tuple[int, ...], path: Path) -> list[int]:
    """Axes in the order Y, X and, if there are any, channels; axes of length 1 are left out."""
    long = {
        name: axis
        for axis, name in enumerate(axes)
        if shape[axis] > 1 or name in "YX"  # a plane of one pixel height is still a plane
    }
    others = [name for name in long if name not in "YX"]
    few = len(others) == 1 and others[0] in "SC" and shape[long[others[0]]] <= _MAX_CHANNELS
    if {"Y", "X"} <= long.keys() and (not others or few):
        return [long["Y"], long["X"], *(long[name] for name in others)]
    raise DataError(
        f"{path}: expected one 2D image, found a stack of shape {tuple(shape)} (axes {axes}). "
        f"Save one plane per file, with at most {_MAX_CHANNELS} channels in the last axis."
    )


def _drop_alpha(pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        pixels = pixels[..., :-1]
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


def _checked(pixels: NDArray[Any], path: Path) -> NDArray[Any]:
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or min(pixels.shape[:2], default=0) < 1:
        raise DataError(f"{path}: expected one 2D image, found shape {pixels.shape}.")
    if pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8)
    if pixels.dtype.kind not in "iuf":
        raise DataError(f"{path}: expected whole or real numbers, found {pixels.dtype}.")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise DataError(f"{path}: holds values that are not finite (NaN or infinity).")
    return np.ascontiguousarray(pixels)

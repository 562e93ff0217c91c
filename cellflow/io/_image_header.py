"""What an image file says of itself before its pixels are unpacked: kind, size, orientation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from cellflow.errors import DataError
from cellflow.io import _jpeg2000
from cellflow.io._png import refuse_short_pixels
from cellflow.types import Box

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
    **dict.fromkeys(_jpeg2000.SIGNATURES, "JPEG 2000"),
}
SIGNATURE_BYTES = 12
"""By which the kind of a file is known."""
_PICTURES: dict[str, Callable[[BytesIO], ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "BMP": BmpImageFile,
    "WebP": WebPImageFile,
}
"""Not `Image.open`, which has a limit of its own on the size."""
_CHANNELS = {"P": 3, "RGB": 3, "RGBA": 3, "CMYK": 4}
"""Of what is read, alpha dropped; all other modes have one."""
_PNG_DEPTH, _BMP_BITS = 24, 28
"""Where a PNG says how many bits a sample has, and a BMP how many a pixel."""
ORIENTATION = 274
"""The tag of TIFF and EXIF."""

SMALL = 2**26
"""Bytes that any file may unpack to."""
LARGEST = 2**34
"""Bytes that no file may unpack to."""
_RATIOS = {
    "PNG": 1_100, "JPEG": 5_000, "BMP": 300, "WebP": 1_000_000, "JPEG 2000": 10_000_000,
    "none": 1, "packbits": 130, "deflate": 1_100, "LZW": 3_000,
}  # fmt: skip
"""By how much a file of a kind can be larger unpacked, at most and generously."""
_OTHER_RATIO = 50_000


class Claim(NamedTuple):
    """How many bytes of pixels a file claims to hold."""

    unpacked: int
    """In memory."""
    stored: int
    """Before their compression: pixels of 1 bit take an eighth of a byte, indices of a palette one."""


def kind_of(data: bytes) -> str | None:
    """PNG, JPEG, BMP, TIFF, JPEG 2000 or WebP by its signature; None for anything else."""
    if data.startswith(b"RIFF") and data[8:SIGNATURE_BYTES] == b"WEBP":
        return "WebP"
    return next((kind for mark, kind in _SIGNATURES.items() if data.startswith(mark)), None)


def kind_of_file(path: Path) -> str | None:
    """As `kind_of`, of a file of which no more than that is read."""
    with path.open("rb") as file:
        return kind_of(file.read(SIGNATURE_BYTES))


def open_picture(data: bytes, kind: str) -> ImageFile:
    """A PNG, JPEG, BMP or WebP of which the header has been read, and the pixels have not."""
    return _PICTURES[kind](BytesIO(data))


def shape(picture: ImageFile, data: bytes) -> tuple[int, ...]:
    """``(H, W)`` or ``(H, W, C)`` of what is read of a PNG, JPEG or WebP."""
    width, height = picture.size
    channels = _CHANNELS.get(picture.mode, 1)
    turned = turned_shape((height, width), orientation(picture, data))
    return turned if channels == 1 else (*turned, channels)


def claim(picture: ImageFile, data: bytes, kind: str) -> Claim:
    """Bytes that the pixels take as the header has it."""
    pixels, bands = picture.size[0] * picture.size[1], len(picture.getbands())
    depth = data[_PNG_DEPTH] if kind == "PNG" else 8
    bits = data[_BMP_BITS] if kind == "BMP" else depth * bands
    return Claim(pixels * 4 * (1 + (depth > 8)), pixels * bits // 8)


def refuse_swollen(claimed: Claim, size: int, packing: str) -> None:
    """Refuse a file whose header claims more pixels than its `size` can hold, before memory is taken.

    `packing` is the kind of file, or the compression of a TIFF. A DataError says that it is larger than anything
    that is read whole, a ValueError that it is damaged.
    """
    can_hold = size * _RATIOS.get(packing, _OTHER_RATIO)
    if claimed.unpacked > SMALL and claimed.stored > can_hold:
        raise ValueError(
            f"it claims {claimed.unpacked / 2**20:,.0f} MiB of pixels, which its {size:,} bytes cannot "
            "hold"
        )
    if claimed.unpacked > LARGEST:
        text = (
            f"its pixels take {claimed.unpacked / 2**30:,.1f} GiB; images of at most "
            f"{LARGEST // 2**30} GiB are read. Cut it into parts."
        )
        raise DataError(text, expected=LARGEST, found=claimed.unpacked)


def refuse_padded(start: bytes, size: int, kind: str) -> None:
    """Refuse a file that is larger than the image it begins with, before memory is taken for all of it.

    A ValueError tells of it. `start` is what any image's header lies in.
    """
    if kind == "WebP":
        needs = int.from_bytes(start[4:8], "little") + 8
    elif kind == "JPEG 2000":
        found = _jpeg2000.read_header(start)
        needs = found.height * found.width * found.channels * (1 + found.bits // 8)
    else:
        with open_picture(start, kind) as picture:
            needs = claim(picture, start, kind).unpacked
    if size > 2 * needs + SMALL:
        raise ValueError(
            f"its {size:,} bytes are more than its pixels can take, {needs:,} unpacked"
        )


def stored(picture: ImageFile, data: bytes) -> NDArray[Any]:
    """Pixels as they lie in the file, indices of a palette too; Pillow makes zeros of those that a PNG has not."""
    if not picture.tile:
        raise ValueError("it has no pixels")
    if picture.format == "PNG":
        refuse_short_pixels(data, len(picture.getbands()))
    return np.asarray(picture)


def refuse_animation(picture: ImageFile) -> None:
    """Refuse a WebP of several pictures."""
    frames = int(getattr(picture, "n_frames", 1)) if picture.format == "WEBP" else 1
    if frames > 1:
        text = f"an animation of {frames} pictures; save each as a file of its own."
        raise DataError(text, expected=1, found=frames)


def orientation(picture: ImageFile, data: bytes) -> int:
    """How a picture is to be turned, 1 to 8 as in EXIF; 1, as it is, where nothing says so."""
    if "exif" not in picture.info and picture.format == "PNG" and b"eXIf" in data:
        picture.load()  # it comes after the pixels
    exif = Image.Exif()
    with suppress(Exception):  # a damaged block of remarks does not make the picture unreadable
        exif.load(picture.info.get("exif", b""))
        return known_orientation(exif.get(ORIENTATION, 1))
    return 1


def known_orientation(value: Any) -> int:
    """A value of the tag, 1 if it is none of 1 to 8."""
    return int(value) if value in range(1, 9) else 1


def turn(pixels: NDArray[Any], how: int) -> NDArray[Any]:
    """Turn pixels ``(H, W)`` or ``(H, W, C)`` so that they stand as their orientation says."""
    if how >= 5:
        pixels = pixels.swapaxes(0, 1)
    if how in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if how in (3, 4, 7, 8) else pixels


def unturned_box(box: Box, how: int, shape: tuple[int, int]) -> Box:
    """Where a box of what `turn` gives lies in the pixels that it was given, which have `shape`."""
    top, bottom, left, right = box
    height, width = turned_shape(shape, how)
    if how in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    if how in (2, 3, 6, 7):
        left, right = width - right, width - left
    return Box(left, right, top, bottom) if how >= 5 else Box(top, bottom, left, right)


def turned_shape(shape: tuple[int, int], how: int) -> tuple[int, int]:
    """Height and width of what `turn` gives."""
    return (shape[1], shape[0]) if how >= 5 else shape

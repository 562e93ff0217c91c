"""What the first bytes of an image file say: its kind, size, palette and orientation."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cellflow.errors import DataError

__all__ = [
    "PNG_HEAD",
    "Claim",
    "PngHeader",
    "claim",
    "kind_of",
    "orientation",
    "png_header",
    "refuse_swollen",
    "turn",
    "turned_shape",
]

PNG_HEAD = 33
"""Bytes of a PNG up to the end of its header."""
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}
"""By colour type, alpha dropped."""
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type, as they are stored."""
_PALETTE = 3
_ORIENTATION = 274
"""The tag of TIFF and EXIF."""
_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of segments that say the size of a JPEG."""
_START_OF_SCAN = 0xDA

SMALL = 2**26
"""Bytes that any file may unpack to."""
LARGEST = 2**34
"""Bytes that no file may unpack to."""
_RATIOS = {
    "PNG": 1_100, "JPEG": 5_000, "BMP": 300,
    "none": 1, "packbits": 130, "deflate": 1_100, "LZW": 3_000,
}  # fmt: skip
"""By how much a file of a kind can be larger unpacked, at most and generously."""
_OTHER_RATIO = 50_000


class PngHeader(NamedTuple):
    """What a PNG says of itself, before its orientation."""

    shape: tuple[int, int]
    channels: int
    dtype: str
    palette: bool
    bits: int
    """Of a pixel, as it is stored."""


class Claim(NamedTuple):
    """How many bytes of pixels a file claims to hold."""

    unpacked: int
    """In memory."""
    stored: int
    """Before their compression: pixels of 1 bit take an eighth of a byte, indices of a palette one."""


def kind_of(data: bytes) -> str | None:
    """PNG, JPEG, BMP or TIFF by its signature; None for anything else."""
    return next((kind for mark, kind in _SIGNATURES.items() if data.startswith(mark)), None)


def png_header(data: bytes) -> PngHeader:
    """Read the header of a PNG; raises ValueError or KeyError where there is none."""
    if len(data) < PNG_HEAD or data[12:16] != b"IHDR":
        raise ValueError("no header")
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    if not width or not height:
        raise ValueError(f"a size of {height} x {width}")
    dtype = "uint16" if bits == 16 else "uint8"
    return PngHeader(
        (height, width),
        _PNG_CHANNELS[colour],
        dtype,
        colour == _PALETTE,
        bits * _PNG_SAMPLES[colour],
    )


def claim(data: bytes, kind: str) -> Claim | None:
    """Bytes that the pixels take as the header has it, None where it does not say."""
    if kind == "PNG":
        head = png_header(data)
        pixels = head.shape[0] * head.shape[1]
        return Claim(pixels * 4 * np.dtype(head.dtype).itemsize, pixels * head.bits // 8)
    if kind == "BMP" and len(data) >= PNG_HEAD:
        width, height, _, bits = struct.unpack("<iiHH", data[18:30])
        return Claim(abs(width * height) * 4, abs(width * height) * bits // 8)
    for marker, payload in _jpeg_segments(data) if kind == "JPEG" else ():
        if marker in _JPEG_SIZES and len(payload) >= 6:
            height, width, channels = struct.unpack(">HHB", payload[1:6])
            return Claim(height * width * channels, height * width * channels)
    return None


def refuse_swollen(claimed: Claim, size: int, packing: str) -> None:
    """Refuse a file whose header claims more pixels than its bytes can hold, before memory is taken.

    Parameters
    ----------
    claimed : Claim
        Bytes of the pixels.
    size : int
        Bytes of the file.
    packing : str
        Kind of file, or compression of a TIFF.

    Raises
    ------
    ValueError
        With both sizes.
    DataError
        If it is larger than anything that is read whole.
    """
    can_hold = size * _RATIOS.get(packing, _OTHER_RATIO)
    if claimed.unpacked > SMALL and claimed.stored > can_hold:
        raise ValueError(
            f"it claims {claimed.unpacked / 2**20:,.0f} MiB of pixels, which its {size:,} bytes cannot "
            "hold"
        )
    if claimed.unpacked > LARGEST:
        raise DataError(
            f"its pixels take {claimed.unpacked / 2**30:,.1f} GiB; images of at most "
            f"{LARGEST // 2**30} GiB are read. Cut it into parts."
        )


def orientation(data: bytes, kind: str) -> int:
    """How a PNG or JPEG is to be turned, 1 to 8 as in EXIF; 1, as it is, where nothing says so."""
    segments = {"PNG": _png_chunks, "JPEG": _jpeg_segments}.get(kind)
    for name, payload in segments(data) if segments else ():
        if name == b"eXIf":
            return _exif_orientation(b"Exif\0\0" + payload)
        if name == 0xE1 and payload.startswith(b"Exif\0\0"):
            return _exif_orientation(payload)
    return 1


def turn(pixels: NDArray[Any], how: int) -> NDArray[Any]:
    """Turn pixels ``(H, W)`` or ``(H, W, C)`` so that they stand as their orientation says."""
    if how >= 5:
        pixels = pixels.swapaxes(0, 1)
    if how in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if how in (3, 4, 7, 8) else pixels


def turned_shape(shape: tuple[int, int], how: int) -> tuple[int, int]:
    """Height and width of what `turn` gives."""
    return (shape[1], shape[0]) if how >= 5 else shape


def _exif_orientation(block: bytes) -> int:
    exif = Image.Exif()
    with suppress(Exception):  # a damaged block of remarks does not make the picture unreadable
        exif.load(block)
        found = exif.get(_ORIENTATION, 1)
        return int(found) if found in range(1, 9) else 1
    return 1


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of the chunks of a PNG, but those of the pixels."""
    place = 8
    while place + 8 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        name = data[place + 4 : place + 8]
        if name != b"IDAT":
            yield name, data[place + 8 : place + 8 + length]
        place += length + 12


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers and contents of the segments of a JPEG before its pixels."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _START_OF_SCAN or length < 2:
            return
        yield marker, data[place + 4 : place + 2 + length]
        place += 2 + length

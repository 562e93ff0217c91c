"""What a JPEG 2000 file says of itself before it is unpacked (ISO/IEC 15444-1, annexes A and I)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_CODESTREAM = b"\xff\x4f\xff\x51"
"""Start of codestream, and the size marker that must follow."""
SIGNATURES = (b"\0\0\0\x0cjP  \r\n\x87\n", _CODESTREAM)
_SUPERBOX, _STREAM, _DEFINITION, _PALETTE = b"jp2h", b"jp2c", b"cdef", b"pclr"
_OPACITY = (1, 2)
"""Types of channels that are alpha, plain and premultiplied."""


class Header(NamedTuple):
    """Size of an image in pixels, number of its components, and whether the last of them is alpha."""

    height: int
    width: int
    channels: int
    bits: int
    """Of a sample."""
    alpha: bool
    palette: bool


def read_header(data: bytes) -> Header:
    """Read the header of the codestream, which is what decoders go by, and what the file adds to it."""
    boxes: dict[bytes, bytes] = {}
    if not data.startswith(_CODESTREAM):
        boxes = dict(reversed(list(_boxes(data, 0, len(data)))))  # of one kind the first counts
    stream = boxes.get(_STREAM, b"") if boxes else data
    if not stream.startswith(_CODESTREAM) or len(stream) < 43:
        raise ValueError("no codestream")
    # the far and the near end of the image on its grid, X before Y
    numbers = [int.from_bytes(stream[at : at + 4], "big") for at in range(8, 24, 4)]
    width, height = numbers[0] - numbers[2], numbers[1] - numbers[3]
    channels = int.from_bytes(stream[40:42], "big")
    if width < 1 or height < 1 or channels < 1:
        raise ValueError(f"{height} x {width} pixels of {channels} channels")
    alpha = any(kind in _OPACITY for kind in _types(boxes.get(_DEFINITION, b"")))
    bits = (stream[42] & 0x7F) + 1
    return Header(height, width, channels, bits, alpha, _PALETTE in boxes)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Boxes with their types, those inside the header box too."""
    while start + 8 <= end:
        length, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        first = start + 8
        if length == 1:
            length, first = int.from_bytes(data[first : first + 8], "big"), first + 8
        stop = end if length == 0 else start + length
        if stop < first or stop > end:
            stop = end  # cut off, which the decoder tells
        if kind == _SUPERBOX:
            yield from _boxes(data, first, stop)
        elif kind in (_STREAM, _DEFINITION, _PALETTE):
            yield kind, data[first:stop]
        start = stop


def _types(definition: bytes) -> list[int]:
    """Types of the channels that a definition box has: after a count, three numbers of 2 bytes each."""
    return [
        int.from_bytes(definition[at : at + 2], "big") for at in range(4, len(definition) - 3, 6)
    ]

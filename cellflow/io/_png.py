"""Whether the pixels of a PNG are all there (ISO/IEC 15948, 8.2 and 10): Pillow fills up those that are not."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_SIGNATURE, _HEAD, _SUM = 8, 8, 4
"""Bytes before the chunks, of length and name before each of them, and of its sum behind it."""
_WHOLE = ((0, 0, 1, 1),)
_INTERLACED = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
"""First column and row, and steps between them, of each pass."""
_PIECE = 2**16


def refuse_short_pixels(data: bytes, samples: int) -> None:
    """Refuse a PNG of so many samples a pixel whose packed pixels end before its rows do; a ValueError tells of it."""
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    bits = data[24] * samples
    expected = 0
    for left, top, across, down in _INTERLACED if data[28] else _WHOLE:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            expected += rows * (
                1 + -(-columns * bits // 8)
            )  # a byte before each row names its filter
    found = _unpacked(data, expected)
    if found < expected:
        raise ValueError(f"its pixels end after {found:,} of {expected:,} bytes")


def _unpacked(data: bytes, most: int) -> int:
    """Bytes that the pixels unpack to, counted piece by piece up to `most`."""
    total, unpacker = 0, zlib.decompressobj()
    for packed in _pixel_chunks(data):
        while packed and total < most and not unpacker.eof:
            total += len(unpacker.decompress(packed, _PIECE))
            packed = unpacker.unconsumed_tail
    while total < most and not unpacker.eof and (rest := unpacker.decompress(b"", _PIECE)):
        total += len(rest)
    return total


def _pixel_chunks(data: bytes) -> Iterator[bytes]:
    at = _SIGNATURE
    while at + _HEAD <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + _HEAD]
        if kind == b"IDAT":
            yield data[at + _HEAD : at + _HEAD + length]
        at += _HEAD + length + _SUM

"""What a JPEG of any kind, of 12 bits or lossless too, says of itself before it is unpacked (ITU-T T.81, annex B)."""

from __future__ import annotations

from collections.abc import Iterator

_END, _SCAN = 0xD9, 0xDA
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LONE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length."""


def samples_claimed(data: bytes) -> int:
    """Height times width times components, as the frame has them; 0 where there is none."""
    for marker, at in _segments(data):
        if marker in _FRAMES and at + 8 <= len(data):
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (3, 5))
            return height * width * data[at + 7]
        if marker == _SCAN:
            break
    return 0


def is_whole(data: bytes) -> bool:
    """Whether the end of the image is there; what other programs put behind it may hold anything."""
    return any(marker == _END for marker, _ in _segments(data))


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Markers, each with the place behind it, up to the end of the image; bytes between them are passed over."""
    at = 0
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 1:
        marker = data[at + 1]
        at += (
            1 if marker == 0xFF else 2
        )  # which fills, and 0 stands for a byte 255 among packed pixels
        if marker in (0x00, 0xFF):
            continue
        yield marker, at
        if marker == _END:
            return
        if marker not in _LONE:
            at += int.from_bytes(data[at : at + 2], "big")

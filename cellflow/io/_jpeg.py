"""What a JPEG of any kind, of 12 bits or lossless too, says of itself before it is unpacked (ITU-T T.81, annex B)."""

from __future__ import annotations

from collections.abc import Iterator

_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LONE = {0x01, *range(0xD0, 0xD8), _START}
"""Markers without a length."""
_IN_DATA = {0x00, *range(0xD0, 0xD8), 0xFF}
"""What may follow a byte 255 among packed pixels: it stands for itself, starts them anew, or fills."""


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
    """Markers, each with the place behind it, up to the end of the image or to what is no marker."""
    at = 0
    while at + 1 < len(data) and data[at] == 0xFF:
        marker, at = data[at + 1], at + 2
        if marker == 0xFF:  # which fills
            at -= 1
            continue
        yield marker, at
        if marker == _END:
            return
        if marker not in _LONE:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
        if marker == _SCAN:
            at = data.find(b"\xff", at)
            while 0 <= at < len(data) - 1 and data[at + 1] in _IN_DATA:
                at = data.find(b"\xff", at + 1 + (data[at + 1] != 0xFF))
            if at < 0:
                return

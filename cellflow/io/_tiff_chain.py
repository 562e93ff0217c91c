"""The directories of a TIFF, looked at before the library reads them."""

from __future__ import annotations

import struct
from pathlib import Path

_BIG = 43
_FAR = 2**32
"""Bytes from which on offsets of 4 bytes do not tell a place (NDPI)."""


def refuse_torn_chain(path: Path) -> None:
    """Refuse a TIFF whose directories go round in a circle, or claim more entries than the file holds.

    A ValueError tells of it. tifffile reads as many pages as such a circle gives and tries all entries: minutes for a
    file of some hundred bytes.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(16)
        order = "<" if start[:2] == b"II" else ">"
        big = struct.unpack(f"{order}H", start[2:4])[0] == _BIG
        if len(start) < 16 or (size >= _FAR and not big):
            return
        count, place, entry = (
            (f"{order}Q", f"{order}Q", 20) if big else (f"{order}H", f"{order}I", 12)
        )
        width = struct.calcsize(place)
        (at,), seen = struct.unpack(place, start[width : 2 * width]), set[int]()
        while at and at + 8 <= size:
            if at in seen:
                raise ValueError(f"its directories go round in a circle, back to byte {at:,}")
            seen.add(at)
            file.seek(at)
            (entries,) = struct.unpack(count, file.read(struct.calcsize(count)))
            end = at + struct.calcsize(count) + entries * entry
            if end > size:
                raise ValueError(f"a directory of {entries:,} entries in a file of {size:,} bytes")
            file.seek(end)
            after = file.read(width)
            at = struct.unpack(place, after)[0] if len(after) == width else 0

"""Tiles and strips of a TIFF that are pictures of their own, with sizes of their own."""

from __future__ import annotations

import math
from typing import Any

from cellflow.io import _image_header as header
from cellflow.io import _jpeg, _jpeg2000

_ROOM = 2**20
"""Samples that any piece may have: some programs write more rows than their strip has."""


def refuse_swollen_pieces(page: Any) -> None:
    """Have a page refuse to unpack a piece whose own header claims more than twice the samples that it has room for.

    JPEG, JPEG 2000, PNG and WebP are known; other packings know how much they may give. A ValueError tells of it
    when the piece is read.
    """
    unpack, most = page.decode, max(2 * math.prod(page.chunks), _ROOM)

    def decode(data: bytes | None, *index: int, **more: Any) -> Any:
        claimed = samples_claimed(data) if data is not None else 0
        if claimed > most:
            raise ValueError(f"a tile or strip of {claimed:,} samples, where {most:,} are too many")
        return unpack(data, *index, **more)

    page.decode = decode


def samples_claimed(data: bytes) -> int:
    """Height times width times channels of a picture by its header; 0 where that is of another kind or damaged."""
    kind = header.kind_of(data)
    try:
        if kind == "JPEG":
            return _jpeg.samples_claimed(data)
        if kind == "JPEG 2000":
            found = _jpeg2000.read_header(data)
            return found.height * found.width * found.channels
        if kind in ("PNG", "WebP"):
            with header.open_picture(data, kind) as picture:
                return math.prod(picture.size) * len(picture.getbands())
    except (
        Exception
    ):  # of whatever kind Pillow raises: what cannot be read is for the codec to tell
        return 0
    return 0

"""How many pixels an image may claim to have before it is unpacked: one limit for the whole process.

It is no argument of every reader because images, label maps and their headers are read in many places, in
several threads, and one that was forgotten would have no limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cellflow.config.shared import MAX_PIXELS
from cellflow.errors import DataError

__all__ = ["at_most", "refuse_large", "room_for"]

_COUNTED = 10**12
"""Lengths from here on are not printed: Python refuses numbers of more than 4,300 digits."""
_given: int | None = None


@contextmanager
def at_most(pixels: int) -> Iterator[None]:
    """Let images have at most so many pixels, height times width, while the context lasts."""
    global _given
    before, _given = _given, None if pixels == MAX_PIXELS else pixels
    try:
        yield
    finally:
        _given = before


def room_for(pixels: int) -> int:
    """The limit for an image that is known, from a record of ours, to have so many pixels.

    A dataset that was prepared with a higher limit is read by commands that have none of their own.
    """
    return max(MAX_PIXELS, pixels) if _given is None else _given


def refuse_large(shape: tuple[int, int], most: int | None = None) -> None:
    """Refuse an image for the height and width that it claims to have, before memory is taken.

    Parameters
    ----------
    shape : (int, int)
        Height and width.
    most : int, optional
        Pixels that are taken; without it those of `at_most`, else 1,000,000,000.

    Raises
    ------
    DataError
        If there are more.
    """
    limit = room_for(0) if most is None else most
    pixels = int(shape[0]) * int(shape[1])
    if pixels > limit:
        large = f"add --max_pixels {pixels}, or " if pixels < _COUNTED**2 else ""
        text = (
            f"it claims {_text(shape[0])} x {_text(shape[1])} pixels (height x width), more than the {limit:,} that "
            f"are read. If it is that large, {large}cut it into parts; else it is damaged."
        )
        raise DataError(text, expected=limit, found=min(pixels, _COUNTED**2))


def _text(length: int) -> str:
    return f"{length:,}" if length < _COUNTED else "over 10^12"

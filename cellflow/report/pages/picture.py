"""Pictures of pages, as WebP."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

__all__ = ["address_of", "picture_bytes", "picture_uri", "shrunk"]

QUALITY = 80
"""Of WebP, where 100 is the best."""

Pixels = NDArray[np.uint8]


def picture_uri(pixels: Pixels, *, quality: int = QUALITY) -> str:
    """A picture, ``(H, W)`` or ``(H, W, 3)``, as the address of an ``<img>``: WebP within the page."""
    return address_of(picture_bytes(pixels, quality=quality))


def address_of(webp: bytes) -> str:
    """The address of an ``<img>`` for a WebP file that is there."""
    return "data:image/webp;base64," + b64encode(webp).decode("ascii")


def shrunk(pixels: Any, side: int) -> Pixels:
    """A picture whose longer side has at most `side` pixels, by the mean of what falls in one."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return np.asarray(pixels, np.uint8)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def picture_bytes(pixels: Pixels, *, quality: int = QUALITY) -> bytes:
    """A picture as the bytes of a WebP file."""
    coloured = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    packed = imagecodecs.webp_encode(np.ascontiguousarray(coloured), level=quality, lossless=False)
    return bytes(packed)

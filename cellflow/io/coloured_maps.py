"""Label maps in which each cell has a colour of its own."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric.colours import labels_from_colours

__all__ = ["labels_of_picture"]

_log = logging.getLogger(__name__)


def labels_of_picture(path: Path, pixels: NDArray[Any]) -> NDArray[np.int64]:
    """Number the colours of a picture, and say which is the background where it is not black."""
    labels = labels_from_colours(pixels)
    background = pixels[labels == 0][0]  # it is black that is there, or on the border
    colour = ", ".join(map(str, background.tolist()))
    if background.any() and not _files_told(path.parent, colour):
        _files_told(path.parent, colour).append(path)
        _log.info("%s: %s is taken for the background (%s)", path.parent, colour, path.name)
    return labels


@lru_cache(maxsize=64)
def _files_told(folder: Path, colour: str) -> list[Path]:
    """Files of which a colour was told: one for all of a folder, which may be thousands."""
    return []

"""Outlines as text in Cellpose's form, ``X_cp_outlines.txt``: a line per cell, ``x,y,x,y``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.io.shapes import Ring, outlines_from_labels
from cellflow.storage.atomic import write_text

__all__ = ["TEXT_ENDING", "write_text_outlines"]

TEXT_ENDING = "_cp_outlines.txt"


def write_text_outlines(path: Path, labels: NDArray[Any]) -> None:
    """Write the ring around the largest part of every cell, atomically; holes and other parts are lost.

    Cellpose's macro for ImageJ makes a polygon of every line. Its corners are those of pixels, so that it
    surrounds just the pixels of a cell in one piece.

    Parameters
    ----------
    path : Path
        File to write.
    labels : (H, W) integer ndarray
    """
    outlines = outlines_from_labels(labels).values()
    # of the part that has the largest area with its holes filled
    rings = (max((part[0] for part in outline), key=_area) for outline in outlines)
    lines = [",".join(map(str, ring[:-1].astype(np.int64).ravel().tolist())) for ring in rings]
    write_text(path, "".join(f"{line}\n" for line in lines))


def _area(ring: Ring) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return abs(float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))) / 2

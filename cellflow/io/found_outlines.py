"""What lies in a file of outlines, and its cells on an image: cut at the edge, refused where they are elsewhere."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io.shapes import FARTHEST, Outline, box_of, instances_from_outlines, reaches_out
from cellflow.storage.sizes import few_text, plural
from cellflow.types import Instances, shorten

__all__ = ["FoundOutlines", "cells_of", "printable"]

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class FoundOutlines:
    """What lies in a file of outlines.

    Attributes
    ----------
    cells : list of Outline
        In pixels; they may overlap and leave the image.
    names : list of str
        What each is called, for messages.
    types : list of str
        Class of each, empty where it has none.
    left_out : Counter of str
        How many others there are, by what they are.
    remarks : Counter of str
        How many were read in a way of their own, by what is said of it.
    planes : set of str
        Slices and times of a stack on which they were drawn; empty where that is not said.
    """

    cells: list[Outline] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    planes: set[str] = field(default_factory=set)

    def add(self, name: str, outline: Outline, cell_type: str = "") -> None:
        """Add a cell; an outline without a point is counted only."""
        parts = [[ring for ring in part if len(ring)] for part in outline]
        if not any(parts):
            self.left_out["empty outline"] += 1
            return
        self.cells.append(parts)
        self.names.append(shorten(printable(name), 40))
        self.types.append(cell_type)


def cells_of(
    found: FoundOutlines, shape: tuple[int, int], *, path: Path, image_id: str
) -> Instances:
    """The cells of a file on their image, in its order.

    What reaches over the edge is cut there, and what holds no pixel's centre left out; both are said.

    Parameters
    ----------
    found : FoundOutlines
    shape : tuple of int
        ``(H, W)`` of the image.
    path : Path
        The file, for messages.
    image_id : str
        The image, for messages.

    Raises
    ------
    DataError
        If outlines lie wholly outside the image, are nowhere, or were drawn on several slices of a stack.
    """
    _check_places(found, path, image_id)
    cells = instances_from_outlines(found.cells, shape)
    out = np.array([reaches_out(outline, shape) for outline in found.cells], dtype=bool)
    there = cells.areas > 0
    size = f"{shape[0]} x {shape[1]} (height x width)"
    outside = np.flatnonzero(out & ~there)
    if len(outside):
        text = (
            f"{path}: {plural(len(outside), 'outline')} outside the image {image_id} of {size}: "
            f"{few_text(_place_text(found, at) for at in outside)}. Were they drawn on another image, or at another "
            "scale? Remove them, or pair the file with its own image."
        )
        raise DataError(
            text, path=path, id=image_id, expected=shape, found=[found.names[at] for at in outside]
        )
    cut, specks = _named(found, out & there), _named(found, ~there)
    if cut:
        text = "%s: cut at the edge of the image of %s: %s (%s)"
        _log.warning(text, path, size, plural(len(cut), "outline"), few_text(cut))
    if specks:
        text = "%s: left out, because no pixel's centre lies inside: %s (%s)"
        _log.warning(text, path, plural(len(specks), "outline"), few_text(specks))
    ends = cells.offsets[1:][there]
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), ends])
    return Instances(shape, cells.starts, cells.lengths, offsets)


def printable(text: str) -> str:
    """A text of a foreign file as it can be written into tables, messages and logs."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _named(found: FoundOutlines, which: NDArray[np.bool_]) -> list[str]:
    return [found.names[at] for at in np.flatnonzero(which)]


def _place_text(found: FoundOutlines, at: int) -> str:
    x0, y0, x1, y1 = box_of(found.cells[at])
    return f"{found.names[at]} (x {x0:.0f} to {x1:.0f}, y {y0:.0f} to {y1:.0f})"


def _check_places(found: FoundOutlines, path: Path, image_id: str) -> None:
    """Refuse coordinates that are no places, and outlines of several images in one file."""
    boxes = np.array([box_of(outline) for outline in found.cells]).reshape(-1, 4)
    nowhere = ~(np.abs(boxes) <= FARTHEST).all(axis=1)  # nan is nowhere too
    if nowhere.any():
        text = (
            f"{path}: coordinates that are no place in an image, in {few_text(_named(found, nowhere))}: expected "
            f"numbers of pixels, found {boxes[nowhere][0].tolist()}. Export the outlines again."
        )
        raise DataError(text, path=path, id=image_id)
    if len(found.planes) > 1:
        text = (
            f"{path}: the outlines lie on several slices or times of a stack ({few_text(sorted(found.planes))}); an "
            f"image is one plane. Save those of one plane, or, if {image_id} is one, remove the positions (in "
            "Fiji: ROI manager, More >> Remove Positions...)."
        )
        raise DataError(text, path=path, id=image_id, expected=1, found=len(found.planes))

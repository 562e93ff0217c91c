"""Facts that tell label maps from other pictures: parts of cells, specks, contacts, background, run order.

Arithmetic only; what is said of it stands in `cellflow.io.mask_findings`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellflow.errors import DataError
from cellflow.numeric._runs import offsets_of, part_of_runs, parts_of, runs_in_rows
from cellflow.numeric.labels import check_labels, instances_from_labels
from cellflow.numeric.rle import instances_from_rles
from cellflow.types import Instances

__all__ = [
    "MapFacts",
    "PartFacts",
    "map_facts",
    "order_of_rles",
    "part_facts",
    "split_parts",
    "without_repeats",
]

SPECK = 2
"""A part of so few pixels is a speck."""
_MIN_PART = 10
_MIN_PART_SHARE = 0.05
"""A part counts as one that could be a cell from so many pixels, and this share of its label's largest."""
MANY_PARTS = 3
"""Parts that could be cells, from which on one label is hardly one cell."""
_MANY_LABELS = 20
"""Where there are so many labels, two parts in most of them are reported as well: numbers used twice."""
_MAX_IMAGES, _MAX_RLES = 20, 1000
_REUSED, _ALL_SPECKS = 1.5, 0.9
"""Parts a value from which on numbers come again, and a share of specks that no cells have: of the small
cells of a label map that was made smaller, each has its own number, and half are larger than a speck."""
_PICTURE_SPECKS = 0.03
_PICTURE_CONTACT = 0.1
"""A picture from these shares on: photographs have specks of 0.1 and contact of 0.4 at least (244 images of
three data sets), label maps made by hand at most 0.0001 and 0.04 (202 of two)."""
_CRUMBLED = 3
_CRUMBLED_CONTACT = 0.03
"""So too where there are so many parts for each label and for each part that could be a cell, from this
contact on: label maps whose outlines alone were smoothed. Those made by hand have 1.3 parts a label at most."""
_VOID = (255, 65535)
_VOID_TOUCHES = 0.75
_MIN_AROUND = 4
"""Values for pixels that no cell has and that are no background, the share of all cells that lie beside them, and so
many cells as tell it of a single part."""


@dataclass(frozen=True)
class PartFacts:
    """How the cells of one image are made of separate parts (pixels that touch at a corner are one part).

    Attributes
    ----------
    n_cells : int
    n_parts : int
        Parts of all cells, specks too.
    n_split : int
        Cells of at least two parts that could be cells by their size.
    n_many : int
        Cells of at least `MANY_PARTS` such parts.
    n_large : int
        Such parts of all cells.
    speck_share : float
        Share of the cells' pixels that lie in parts of at most `SPECK` pixels.
    """

    n_cells: int
    n_parts: int
    n_split: int
    n_many: int
    n_large: int
    speck_share: float

    @property
    def holds_many_cells_in_one(self) -> bool:
        """Whether labels stand for foreground or classes, or numbers were used more than once."""
        if self.n_many and 4 * self.n_many >= self.n_cells:
            return True
        return self.n_cells >= _MANY_LABELS and 2 * self.n_split > self.n_cells


@dataclass(frozen=True)
class MapFacts:
    """Facts that tell a label map from another picture.

    Attributes
    ----------
    n_values : int
        Different values besides 0.
    parts : PartFacts
        The same values taken for cells.
    contact : float
        Share of pixels besides 0 that have another value besides 0 to the right or below.
    background : int
        A value besides 0 that lies all around as only a background does; 0 if there is none.
    background_share : float
        Its share of the image.
    void : int
        255 or 65535 where that lies around cells with numbers from 1 on, as pixels to be left out are marked; else 0.
    """

    n_values: int
    parts: PartFacts
    contact: float
    background: int
    background_share: float
    void: int

    @property
    def is_picture(self) -> bool:
        """Whether values change from pixel to pixel: a photograph, or labels blurred by JPEG or resizing."""
        parts = self.parts
        noisy = parts.speck_share >= _PICTURE_SPECKS and self.contact >= _PICTURE_CONTACT
        # Small cells are specks too, but each has a number of its own; the values of a picture come
        # again, or change with every pixel.
        noisy &= parts.n_parts > _REUSED * parts.n_cells or parts.speck_share >= _ALL_SPECKS
        crumbled = _CRUMBLED * max(parts.n_cells, parts.n_large) <= parts.n_parts
        return noisy or (crumbled and self.contact >= _CRUMBLED_CONTACT)


def part_facts(instances: Instances) -> PartFacts:
    """Count the separate parts of every cell."""
    owner, areas = parts_of(instances)
    n_cells = len(instances)
    if not n_cells:
        return PartFacts(0, 0, 0, 0, 0, 0.0)
    largest = np.zeros(n_cells, dtype=np.int64)
    np.maximum.at(largest, owner, areas)
    large = areas >= np.maximum(_MIN_PART, _MIN_PART_SHARE * largest[owner])
    per_cell = np.bincount(owner[large], minlength=n_cells)
    specks = areas[areas <= SPECK].sum()
    return PartFacts(
        n_cells,
        len(areas),
        int((per_cell >= 2).sum()),
        int((per_cell >= MANY_PARTS).sum()),
        int(large.sum()),
        float(specks / max(1, areas.sum())),
    )


def map_facts(labels: Any) -> MapFacts:
    """Measure a label map.

    Parameters
    ----------
    labels : (H, W) integer ndarray
        0 background; numbers may have gaps.
    """
    array = check_labels(labels)
    parts = part_facts(instances_from_labels(array))
    background = _background(array)
    share = float((array == background).mean())
    return MapFacts(parts.n_cells, parts, _contact(array), background, share, _void(array))


def order_of_rles(images: Iterable[tuple[Sequence[str], tuple[int, int]]]) -> Literal["C", "F"]:
    """Tell row-major from column-major runs: read in the wrong order, cells fall into many parts.

    Parameters
    ----------
    images : iterable of (sequence of str, tuple of int)
        The strings of each image and its ``(H, W)``. Square images say nothing, since their cells are as
        compact one way as the other, and wrong strings are passed over; of the first `_MAX_IMAGES` others
        the first `_MAX_RLES` each are looked at.

    Returns
    -------
    "C" or "F"
        Column-major only where it at least halves the parts.
    """
    telling = (
        (rles[:_MAX_RLES], shape) for rles, shape in images if any(rles) and shape[0] != shape[1]
    )
    row_major = column_major = 0
    for rles, shape in islice(telling, _MAX_IMAGES):
        with suppress(DataError):
            row_major += len(parts_of(instances_from_rles(rles, shape, "C"))[1])
            column_major += len(parts_of(instances_from_rles(rles, shape, "F"))[1])
    return "F" if 0 < 2 * column_major <= row_major else "C"


def without_repeats(instances: Instances) -> Instances:
    """Leave out cells of exactly the same pixels as an earlier one."""
    seen: set[tuple[bytes, bytes]] = set()
    first = np.zeros(len(instances), dtype=np.bool_)
    for index, (starts, lengths) in enumerate(instances):
        pixels = starts.tobytes(), lengths.tobytes()
        first[index] = pixels not in seen
        seen.add(pixels)
    if first.all():
        return instances
    n_runs = np.diff(instances.offsets)
    kept = np.repeat(first, n_runs)
    offsets = offsets_of(n_runs[first])
    return Instances(instances.shape, instances.starts[kept], instances.lengths[kept], offsets)


def split_parts(instances: Instances) -> Instances:
    """Make every separate part a cell of its own, in the order of the cells they come from.

    Pixels that touch at a corner are one part.
    """
    owner, rows, begins, ends = runs_in_rows(instances)
    part, n_parts = part_of_runs(instances.shape, owner, rows, begins, ends)
    order = np.argsort(part, kind="stable")
    starts = (rows * instances.shape[1] + begins)[order]
    counts = np.bincount(part, minlength=n_parts)
    return Instances(instances.shape, starts, (ends - begins)[order], offsets_of(counts))


def _contact(array: NDArray[Any]) -> float:
    inside = array != 0
    touches = np.zeros(array.shape, dtype=np.bool_)
    touches[:, :-1] |= inside[:, 1:] & (array[:, 1:] != array[:, :-1])
    touches[:-1] |= inside[1:] & (array[1:] != array[:-1])
    return float((touches & inside).sum() / max(1, inside.sum()))


def _void(array: NDArray[Any]) -> int:
    """The largest value of 8 or 16 bits where most cells, numbered without larger gaps, touch it; else 0."""
    value = int(array.max(initial=0))
    if value not in _VOID:
        return 0
    others = np.unique(array[(array != value) & (array != 0)])
    if len(others) < 2 or others[-1] > 2 * len(others):  # a map of classes, perhaps
        return value if _encloses(array, value) else 0
    marked = array == value
    if len(others) < _MIN_AROUND and ndimage.label(marked, np.ones((3, 3)))[1] < 2:
        return 0  # a cell that has this number
    around = ndimage.binary_dilation(marked, np.ones((3, 3)))
    touched = np.isin(others, array[around]).sum()
    return value if _VOID_TOUCHES * len(others) <= touched else 0


def _encloses(array: NDArray[Any], value: int) -> bool:
    """Whether a value parts all others, several of them, from the background."""
    others = (array != 0) & (array != value)
    if ndimage.label(others)[1] < _MIN_AROUND:
        return False
    rim = ndimage.binary_dilation(others, np.ones((3, 3))) & ~others
    return bool((array[rim] == value).mean() >= _VOID_TOUCHES)


def _background(array: NDArray[Any]) -> int:
    """The value of one connected part that has three corners and touches all four sides; 0 without one."""
    if not array.size:
        return 0
    values, counts = np.unique(array[[0, 0, -1, -1], [0, -1, 0, -1]], return_counts=True)
    value = values[counts.argmax()]
    if counts.max() < 3 or not value:
        return 0
    parts, _ = ndimage.label(array == value, np.ones((3, 3)))
    sides = (parts[0], parts[-1], parts[:, 0], parts[:, -1])
    corners = np.bincount(parts[[0, 0, -1, -1], [0, -1, 0, -1]])
    corners[0] = 0
    around = corners.max() >= 3 and all((side == corners.argmax()).any() for side in sides)
    return int(value) if around else 0

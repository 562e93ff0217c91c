"""Pictures of `cellflow eda`: images that are shown with the outlines of their cells, and single cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, islice, zip_longest
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.engine.data.findings import Finding
from cellflow.engine.pages.outline_path import box_of_cell, outline_path
from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.numeric.mask_checks import without_repeats
from cellflow.report.overlays import grey_or_rgb
from cellflow.report.pages.eda import View
from cellflow.rng import generator
from cellflow.types import Box, Instances

__all__ = ["LABELS_SHOWN", "Views", "chosen_labels", "chosen_samples"]

SIDE = 640
"""Of a picture, in pixels at most."""
CROP, CROP_ROOM = 96, 2.0
"""Side of the smallest picture of a single cell, and how many times as wide as the cell it is."""
LABELS_SHOWN, OF_A_KIND = 24, 8
"""Single cells that are shown at most, and those of one kind."""
SHOWN_KINDS = (
    "many cells in one", "whole image", "in parts", "with specks", "hollow", "tiny", "overlapping",
)  # fmt: skip
"""Kinds of findings whose cells are shown."""


class Views:
    """Makes pictures: of images whose pixels are at hand, and of others, which are read again.

    Parameters
    ----------
    dataset : Dataset
    wanted : iterable of str
        Images whose pictures are kept while all are read.
    """

    def __init__(self, dataset: Dataset, wanted: Iterable[str]) -> None:
        self._dataset, self._wanted = dataset, set(wanted)
        self._kept: dict[str, tuple[NDArray[np.uint8], str, int]] = {}

    def keep(self, name: str, pixels: NDArray[Any], cells: Instances) -> None:
        """Make the picture of an image if it is wanted."""
        if name in self._wanted:
            self._kept[name] = _picture(pixels, cells)

    def image(self, name: str, caption: str) -> View | None:
        """An image with all its cells; None if it cannot be read."""
        try:
            if name not in self._kept:
                self._kept[name] = _picture(self._dataset.image(name), self._cells(name))
        except DataError:
            return None  # `verify` tells of it
        picture, outlines, count = self._kept[name]
        return View(name, caption, picture, outlines, count=count)

    def cells(self, wanted: Mapping[tuple[str, int], tuple[str, str]]) -> list[View]:
        """Single cells with what is around them, by id and number, with kind and reason; each image is read once."""
        found = dict[tuple[str, int], View]()
        for name in dict.fromkeys(name for name, _ in wanted):
            pixels, cells = self._dataset.image(name), self._cells(name)
            for key, about in wanted.items():
                if key[0] == name:
                    found[key] = _cell_view(key, about, pixels, cells)
        return [found[key] for key in wanted]

    def _cells(self, name: str) -> Instances:
        return without_repeats(self._dataset.instances(name))


def chosen_samples(images: pd.DataFrame, count: int, seed: int) -> dict[str, list[str]]:
    """Ids of images to show, by cell type: as many of each as of the others, drawn by the seed."""
    kinds = images["cell_type"] if "cell_type" in images else pd.Series("", images.index)
    drawn = [
        (str(kind), generator(seed, "eda", str(kind)).permutation(sorted(members.index)))
        for kind, members in kinds.groupby(kinds)
    ]
    turns = zip_longest(*([(kind, str(name)) for name in names] for kind, names in drawn))
    rows = islice(turns, max(1, count // max(1, len(drawn))))
    taken = [item for item in chain.from_iterable(rows) if item is not None][:count]
    return {
        kind: sorted(name for of, name in taken if of == kind)
        for kind in sorted({of for of, _ in taken})
    }


def chosen_labels(
    findings: Iterable[Finding], sizes: pd.DataFrame
) -> dict[tuple[str, int], tuple[str, str]]:
    """Cells to show, by id and number, with what is found and why: some of every kind, in turns.

    Parameters
    ----------
    findings : iterable of Finding
    sizes : DataFrame
        Of `odd_cells`.
    """
    kinds: dict[str, list[tuple[tuple[str, int], str]]] = {kind: [] for kind in SHOWN_KINDS}
    for item in findings:
        if item.cell is not None and item.kind in kinds:
            kinds[item.kind].append(((item.id, item.cell), item.reason))
    kinds["odd size"] = [
        ((str(name), int(cell)), str(why))
        for name, cell, why in zip(sizes["id"], sizes["cell"], sizes["why"], strict=True)
    ]
    kinds = {kind: _one_of_each_image_first(items)[:OF_A_KIND] for kind, items in kinds.items()}
    chosen: dict[tuple[str, int], tuple[str, str]] = {}
    turns = zip_longest(*([(kind, *item) for item in items] for kind, items in kinds.items()))
    for turn in chain.from_iterable(turns):
        if turn is not None and len(chosen) < LABELS_SHOWN:
            kind, key, why = turn
            chosen.setdefault(key, (kind, why))
    return dict(sorted(chosen.items(), key=lambda entry: list(kinds).index(entry[1][0])))


def _one_of_each_image_first(
    items: list[tuple[tuple[str, int], str]],
) -> list[tuple[tuple[str, int], str]]:
    turns = pd.Series([name for (name, _), _ in items], dtype=object)
    order = turns.groupby(turns).cumcount().sort_values(kind="stable").index
    return [items[place] for place in order]


def _picture(pixels: NDArray[Any], cells: Instances) -> tuple[NDArray[np.uint8], str, int]:
    picture = shown(pixels, SIDE)
    scale = picture.shape[1] / cells.shape[1]
    return picture, outline_path(cells, range(len(cells)), scale=scale), len(cells)


def shown(pixels: NDArray[Any], side: int) -> NDArray[np.uint8]:
    """An image as it is seen, at most `side` pixels wide and high: three channels in colour, others their mean."""
    planes = (
        pixels
        if pixels.ndim == 2 or pixels.shape[2] == 3
        else pixels.mean(axis=2, dtype=np.float32)
    )
    return grey_or_rgb(_smaller(planes, side))


def _smaller(pixels: NDArray[Any], side: int) -> NDArray[Any]:
    """The mean of what falls in one pixel, before it is brought to eight bits."""
    import cv2

    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_AREA))


def _cell_view(
    key: tuple[str, int], about: tuple[str, str], pixels: NDArray[Any], cells: Instances
) -> View:
    """A cell, marked, with its surroundings and the other cells in them."""
    name, cell, (kind, caption) = key[0], key[1] - 1, about
    own = box_of_cell(cells, cell)
    side = int(max(CROP, CROP_ROOM * own.shape[0], CROP_ROOM * own.shape[1]))
    corner = (own.top + own.bottom - side) // 2, (own.left + own.right - side) // 2
    crop, scale = _crop(pixels, corner, side)
    box = Box(corner[0], corner[0] + side, corner[1], corner[1] + side)
    near = [
        other
        for other in range(len(cells))
        if other != cell and not box_of_cell(cells, other).intersection(box).is_empty
    ]
    around = outline_path(cells, near, scale=scale, corner_yx=corner)
    marked = outline_path(cells, [cell], scale=scale, corner_yx=corner)
    return View(name, caption, crop, around, marked=marked, cell=cell + 1, kind=kind)


def _crop(
    pixels: NDArray[Any], corner: tuple[int, int], side: int
) -> tuple[NDArray[np.uint8], float]:
    """A square of an image as it is seen, black beyond the border, and its pixels for one of the image."""
    y, x = corner
    inside = shown(pixels[max(0, y) : y + side, max(0, x) : x + side], SIDE // 2)
    scale = inside.shape[1] / (min(pixels.shape[1], x + side) - max(0, x))
    top, left = round(max(0, -y) * scale), round(max(0, -x) * scale)
    long = max(round(side * scale), top + inside.shape[0], left + inside.shape[1])
    crop = np.zeros((long, long, 3), np.uint8)
    crop[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return crop, scale

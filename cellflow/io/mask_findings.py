"""What is said of masks that people bring: pictures, backgrounds, classes, foreground, empty sets."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io.images import read_image, read_masks
from cellflow.numeric.mask_checks import MapFacts, PartFacts, map_facts, part_facts, without_repeats
from cellflow.storage.sizes import few_text, plural
from cellflow.types import Instances

__all__ = ["MaskReview", "check_label_map", "looks_like_label_map", "read_label_map"]

_TONES = 16
"""Values that a picture has at least; a map of fewer that a model made is a bad prediction."""

_REGION = 0.9
"""Share of an image that no cell has where there are others."""

_log = logging.getLogger(__name__)


def read_label_map(
    path: Path, *, predicted: bool = False, colours: bool = False
) -> NDArray[np.int64]:
    """Read a label map made elsewhere, and refuse what cannot be one.

    Parameters
    ----------
    path : Path
        The file.
    predicted : bool
        Whether a model made it: one cell around everything, or a few that crumble, are then a bad answer, and no
        wrong file.
    colours : bool
        Whether each colour of a picture is a cell.

    Returns
    -------
    (H, W) int64 ndarray
        0 background; gaps and labels of several parts stay.

    Raises
    ------
    DataError
        If it is not one whole non-negative number per pixel, if it is a picture (a photograph, a label
        map that was smoothed), or if its background is not 0.
    """
    return check_label_map(path, read_masks(path, colours=colours), predicted=predicted)


def check_label_map(
    path: Path, masks: NDArray[np.int64], *, predicted: bool = False
) -> NDArray[np.int64]:
    """The label map of a file, which is refused if it cannot be one; see `read_label_map`."""
    facts = map_facts(masks)
    if facts.background and not predicted:
        raise DataError(
            _background_text(path, facts), path=path, expected=0, found=facts.background
        )
    if facts.is_picture and not (predicted and facts.n_values < _TONES):
        raise DataError(
            f"{path}: expected a label map (0 is background, each cell has a number of its own), found a "
            f"picture: {facts.n_values} values in {facts.parts.n_parts} separate parts, of which "
            f"{facts.parts.n_parts - facts.parts.n_large} are too small for cells. Images look like this, and "
            "masks that were saved as JPEG or resized with smoothing. "
            "Give the label maps, as PNG or TIFF, resized without smoothing (nearest).",
            path=path,
        )
    if facts.void and not predicted:
        raise DataError(
            f"{path}: the value {facts.void} lies around the cells (numbers from 1 on), as a border or as pixels to "
            "be left out; it would be a cell. Set these pixels to 0, or to the numbers of the cells, in "
            "all label maps.",
            path=path, expected=0, found=facts.void,
        )  # fmt: skip
    return masks


def _background_text(path: Path, facts: MapFacts) -> str:
    value, share = facts.background, facts.background_share
    if share == 1:
        return (
            f"{path}: every pixel is {value}: one cell over the whole image. Where this stands for an image "
            "without cells, the mask must be 0 everywhere; export it again."
        )
    return (
        f"{path}: the value {value} lies around everything ({share:.0%} of the image, all four sides); "
        "expected a background of 0. Set these pixels to 0, and give each cell a number of its own from 1 on."
    )


def looks_like_label_map(path: Path) -> bool:
    """Whether an image file would pass for a label map with cells: images and masks may be swapped."""
    try:
        pixels: NDArray[Any] = read_image(path)
    except DataError:
        return False
    if pixels.ndim != 2 or pixels.dtype.kind not in "iu" or (pixels < 0).any():
        return False
    facts = map_facts(pixels)
    return facts.n_values > 0 and not facts.is_picture and not facts.background


class MaskReview:
    """Looks at the cells of every image, and says at the end what is odd about the set."""

    def __init__(self) -> None:
        self._facts: dict[str, PartFacts] = {}
        self._shares: dict[str, float] = {}
        self._repeats: dict[str, int] = {}
        self._regions: list[str] = []

    def add(self, image_id: str, instances: Instances) -> Instances:
        """Look at one image; returns its cells, each once."""
        single = without_repeats(instances)
        self._facts[image_id] = part_facts(single)
        self._shares[image_id] = single.areas.sum() / max(1, single.shape[0] * single.shape[1])
        if len(single) > 1 and single.areas.max() >= _REGION * single.shape[0] * single.shape[1]:
            self._regions.append(image_id)
        if len(single) < len(instances):
            self._repeats[image_id] = len(instances) - len(single)
        return single

    def warn(self, way_out: str) -> None:
        """Log one line for each odd thing.

        Parameters
        ----------
        way_out : str
            What to do about labels that hold many cells, as a sentence.
        """
        facts = self._facts
        with_cells = [name for name, fact in facts.items() if fact.n_cells]
        if self._repeats:
            _log.warning(
                "The same cell more than once, in exactly the same pixels: %s in %d of %d images (%s). "
                "Each is counted once; remove the repeated rows.",
                *(plural(sum(self._repeats.values()), "repeat"), len(self._repeats), len(facts)),
                few_text([f"{name} ({count})" for name, count in self._repeats.items()]),
            )
        if self._regions:
            _log.warning(
                "One object covers nearly all of the image, and others lie in it: in %d of %d images (%s). If it is "
                "the outline of a region, and no cell, remove it: it leaves no background.",
                *(len(self._regions), len(facts), few_text(self._regions)),
            )
        if facts and not with_cells:
            text = "No image has a cell: the masks of all %d images are empty. Check that these are the masks."
            _log.warning(text, len(facts))
        points = [name for name in with_cells if facts[name].speck_share > 0.5]
        if points:
            text = "Most cells are points of 1 or 2 pixels in %d of %d images (%s). Give masks of whole cells."
            _log.warning(text, len(points), len(facts), few_text(points))
        if not self.warn_of_parts(way_out) and self._one_cell_each(with_cells):
            _log.warning(
                "Every image has exactly one cell (%d of %d images have any). If the masks show foreground and "
                "background only, number the cells first: each needs a number of its own. %s",
                *(len(with_cells), len(facts), way_out),
            )

    def warn_of_parts(self, way_out: str) -> bool:
        """Log one line for images whose labels hold many cells each; whether there are any."""
        merged = [name for name, fact in self._facts.items() if fact.holds_many_cells_in_one]
        self._tell_of_parts(merged, way_out)
        return bool(merged)

    def warn_of_foreground(self, way_out: str) -> None:
        """The same for predictions, of which one label everywhere, in two parts mostly, tells enough."""
        with_cells = [fact for fact in self._facts.values() if fact.n_cells]
        split = [name for name, fact in self._facts.items() if fact.n_split]
        single = all(fact.n_cells == 1 for fact in with_cells) and 2 * len(split) > len(with_cells)
        if not self.warn_of_parts(way_out) and single:
            self._tell_of_parts(split, way_out)

    def _tell_of_parts(self, names: list[str], way_out: str) -> None:
        if names:
            _log.warning(
                "In %d of %d images labels lie in many separate parts, so that many cells count as one: "
                "%s. If the masks show foreground and background, or classes, or if numbers were used twice: "
                "each cell needs a number of its own. %s",
                *(len(names), len(self._facts)),
                few_text([f"{name} ({self._parts_text(name)})" for name in names]),
                way_out,
            )

    def _one_cell_each(self, names: list[str]) -> bool:
        """Whether all have one cell, and are so many, or the cell in such parts, that it may be foreground."""
        facts = [self._facts[name] for name in names]
        single = bool(facts) and all(fact.n_cells == 1 for fact in facts)
        return single and (len(facts) > 2 or any(fact.n_split for fact in facts))

    def _parts_text(self, name: str) -> str:
        fact = self._facts[name]
        if fact.n_cells == 1:
            share = 100 * self._shares[name]
            return f"one object of {share:.0f} % of the image in {fact.n_large} parts"
        return f"{plural(fact.n_cells, 'label')} in {fact.n_large} parts"

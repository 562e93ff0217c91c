"""What may be wrong with the cells of an image, cell by cell."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.engine.data.findings import Finding
from cellflow.numeric.cell_faults import CellFacts, cell_facts
from cellflow.numeric.mask_checks import part_facts, without_repeats
from cellflow.storage.sizes import plural
from cellflow.types import Instances

__all__ = ["CELL_KINDS", "cell_findings", "fixes_of"]

TINY = 15
"""Cells of fewer pixels are tiny: Cellpose's smallest mask."""
TINY_SHARE = 0.05
"""So are those of less than this part of the median cell of their image, a fifth of its diameter, unless the
border cuts them."""
WHOLE_IMAGE = 0.9
"""A cell of this part of the image is taken for one that covers it."""
SPECKS = 0.1
"""Parts beside the largest that have at most this part of a cell's pixels are specks."""

CELL_KINDS = (
    "many cells in one",
    "whole image",
    "with specks",
    "in parts",
    "hollow",
    "tiny",
    "overlapping",
    "repeated",
    "at the border",
)
_FIX_OF_KIND = {"many cells in one": "split", "with specks": "largest", "hollow": "fill"}
"""What `cellflow prepare --fix` does about them; parts of a size may well be those of one cell."""


def fixes_of(kinds: Set[str]) -> list[str]:
    """What to give `cellflow prepare --fix` where these kinds were found."""
    fixes = [fix for kind, fix in _FIX_OF_KIND.items() if kind in kinds]
    # it takes all cells alike, and would cut those in parts of a size too
    return [fix for fix in fixes if fix != "largest" or "in parts" not in kinds]


def cell_findings(image_id: str, instances: Instances) -> Iterator[Finding]:
    """Look at the cells of one image, each once."""
    cells = without_repeats(instances)
    if len(cells) < len(instances):
        count = plural(len(instances) - len(cells), "cell")
        yield Finding(
            "repeated", image_id, f"{count} in exactly the pixels of another; counted once"
        )
    facts, parts = cell_facts(cells), part_facts(cells)
    if parts.holds_many_cells_in_one:
        labels, share = plural(parts.n_cells, "label"), facts.areas.sum() / _pixels(cells)
        text = f"{labels} over {share:.0%} of the image in {parts.n_large} parts: each cell needs a number"
        yield Finding("many cells in one", image_id, text, wrong=True)
    reasons = _reasons(facts, _pixels(cells), many_in_one=parts.holds_many_cells_in_one)
    for kind, of_kind in reasons.items():
        for cell, reason in of_kind.items():
            yield Finding(kind, image_id, reason, cell=cell + 1)


def _reasons(facts: CellFacts, pixels: int, *, many_in_one: bool) -> dict[str, dict[int, str]]:
    """Why cells are of a kind, by kind and place of the cell."""
    areas, rest = facts.areas, facts.areas - facts.largest_part
    several = facts.parts > 1
    specks = several & (rest <= SPECKS * areas)
    median = float(np.median(areas)) if len(areas) else 0.0

    def of(where: NDArray[np.bool_], text: str, *values: NDArray[Any]) -> dict[int, str]:
        return {int(i): text.format(*(value[i] for value in values)) for i in np.flatnonzero(where)}

    in_parts = "{} parts, the largest {} of {} pixels"
    parts = (facts.parts, facts.largest_part, areas)
    return {
        "whole image": of(areas >= WHOLE_IMAGE * pixels, "{:.0%} of the image", areas / pixels),
        "with specks": {} if many_in_one else of(specks, in_parts, *parts),
        "in parts": {} if many_in_one else of(several & ~specks, in_parts, *parts),
        "hollow": of(
            facts.holes > 0,
            "pixels of background enclosed: {}, pixels of the cell: {}",
            facts.holes,
            areas,
        ),
        "tiny": of(
            (areas < TINY) | ((areas < TINY_SHARE * median) & ~facts.at_border),
            f"{{}} pixels; the median cell of the image has {median:.0f}",
            areas,
        ),
        "overlapping": of(
            facts.shared > 0, "{} of {} pixels belong to another cell too", facts.shared, areas
        ),
        "at the border": of(
            facts.at_border, "touches the border and may go on beyond; {} pixels", areas
        ),
    }


def _pixels(instances: Instances) -> int:
    return max(1, instances.shape[0] * instances.shape[1])

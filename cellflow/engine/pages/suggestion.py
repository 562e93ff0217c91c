"""What the page of `cellflow suggest` shows, and the tables beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from cellflow.io.source import SourceImage
from cellflow.numeric.suggestion import Choice
from cellflow.storage.atomic import write_csv, write_text

__all__ = ["Pool", "Suggested", "SuggestionFacts", "outline_path", "write_suggestion"]

COARSE = 500
"""Outlines are as fine as an image of this many pixels along its longer side needs them."""


@dataclass(frozen=True, eq=False)
class Pool:
    """The candidates.

    Attributes
    ----------
    table : DataFrame
        A row each, by id: doubt, doubt_place, unlike, unlike_place, nearest, cell_type, cells.
    styles : (N, D) float32 ndarray
    known_styles : (M, D) float32 ndarray
        Of the annotated images.
    known_ids : list of str
    """

    table: pd.DataFrame
    styles: NDArray[np.float32]
    known_styles: NDArray[np.float32]
    known_ids: list[str]


@dataclass(frozen=True)
class Suggested:
    """A suggested image: its id and file, how it was chosen, why in words, and its predicted cells.

    `outlines` is an SVG path in pixels of the image, `shape` its height and width.
    """

    id: str
    path: Path
    choice: Choice
    reason: str
    outlines: str
    shape: tuple[int, int]


@dataclass(frozen=True, eq=False)
class SuggestionFacts:
    """All that the page and the tables say."""

    run: str
    members: int
    annotated: int
    wanted: int
    images: int
    chosen: list[Suggested]
    pool: Pool
    left_out: dict[str, str]
    failed: dict[str, str]
    command: str
    made_by: str


def write_suggestion(
    folder: Path, facts: SuggestionFacts, images: Mapping[str, SourceImage]
) -> None:
    """Write ``suggest.csv``, ``candidates.csv``, ``chosen.txt`` and ``suggest.html`` into a folder."""
    write_csv(folder / "suggest.csv", suggested_table(facts))
    write_csv(folder / "candidates.csv", _candidates(facts, images))
    write_text(folder / "chosen.txt", "".join(f"{item.path}\n" for item in facts.chosen))


def suggested_table(facts: SuggestionFacts) -> pd.DataFrame:
    """A row per suggested image, the best first."""
    columns = ["doubt", "doubt_place", "unlike", "unlike_place", "nearest", "cell_type", "cells"]
    rows = facts.pool.table.loc[[item.id for item in facts.chosen], columns].reset_index()
    rows.insert(0, "rank", np.arange(1, len(rows) + 1))
    rows.insert(2, "path", [str(item.path) for item in facts.chosen])
    rows["stands_for"] = [item.choice.stands_for for item in facts.chosen]
    rows["stands_for_images"] = [item.choice.nearer for item in facts.chosen]
    rows["reason"] = [item.reason for item in facts.chosen]
    return rows.round(6)


def _candidates(facts: SuggestionFacts, images: Mapping[str, SourceImage]) -> pd.DataFrame:
    """A row per image of the folder: what was found of it, or why it was not looked at."""
    ranks = {item.id: rank for rank, item in enumerate(facts.chosen, 1)}
    table = facts.pool.table[["doubt", "unlike", "nearest", "cell_type", "cells"]]
    table = table.reindex(list(images)).reset_index()
    table["cells"] = table["cells"].astype("Int64")
    table.insert(1, "path", [str(image.path) for image in images.values()])
    table.insert(2, "rank", pd.array([ranks.get(name) for name in images], "Int64"))
    table["left_out"] = [facts.left_out.get(name, "") for name in images]
    table["failed"] = [facts.failed.get(name, "") for name in images]
    return table.round(6)


def outline_path(labels: NDArray[Any]) -> str:
    """Outlines of cells as the ``d`` of an SVG path, in pixels of the image, not finer than can be seen."""
    coarse = max(labels.shape) / COARSE
    parts = []
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        cell = (labels[box] == label).astype(np.uint8)
        for ring in cv2.findContours(cell, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]:
            corner = box[1].start, box[0].start
            points = cv2.approxPolyDP(ring, coarse / 2, closed=True)[:, 0] + corner
            parts.append("M" + "L".join(f"{x} {y}" for x, y in points.tolist()) + "Z")
    return "".join(parts)

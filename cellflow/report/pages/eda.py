"""The page of `cellflow eda`: a dataset at a first look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.report.pages import eda_charts, eda_tables
from cellflow.report.pages.page import write_page
from cellflow.report.pages.picture import picture_uri
from cellflow.storage.sizes import plural

__all__ = ["EdaFacts", "Hint", "View", "write_eda_page"]

QUALITY = 70
"""Of pictures, which are many: of noise a page keeps what is seen."""


@dataclass(frozen=True)
class Hint:
    """What a dataset asks for, in words.

    Attributes
    ----------
    kind : "good", "note" or "warning"
    about : str
        What it is about, in a few words.
    text : str
        What is so, and why it matters.
    command : str
        What to type, if there is something to type.
    """

    kind: Literal["good", "note", "warning"]
    about: str
    text: str
    command: str = ""


@dataclass(frozen=True, eq=False)
class View:
    """A picture with the outlines of cells, which a click makes large.

    Attributes
    ----------
    id : str
        Of the image.
    caption : str
        What is to be said of it.
    pixels : (H, W, 3) uint8 ndarray
    outlines : str
        Path of SVG, in pixels of the picture.
    marked : str
        Path of the cell that it is about.
    count : int or None
        Cells of the image.
    cell : int or None
        Number of the cell that it is about, from 1.
    kind : str
        What is found of it.
    """

    id: str
    caption: str
    pixels: NDArray[np.uint8]
    outlines: str
    marked: str = ""
    count: int | None = None
    cell: int | None = None
    kind: str = ""


@dataclass(frozen=True, eq=False)
class EdaFacts:
    """What the page shows; the tables are those of `cellflow.engine.pages.eda.EdaResult`.

    Attributes
    ----------
    place : str
        The dataset folder.
    images, cells, findings : DataFrame
    group : str or None
        Column of groups.
    folds : str
        The split in words; empty where there is none.
    hints : sequence of Hint
    samples : mapping of str to sequence of View
        Images by cell type, with the title of each.
    odd, labels : sequence of View
        Images unlike the rest, and single cells that deserve a look.
    odd_images : DataFrame
        All of them: id, why, distance.
    next : str
        The command that comes next.
    """

    place: str
    images: pd.DataFrame
    cells: pd.DataFrame
    findings: pd.DataFrame
    group: str | None
    folds: str
    hints: Sequence[Hint]
    samples: Mapping[str, Sequence[View]]
    odd: Sequence[View]
    labels: Sequence[View]
    odd_images: pd.DataFrame
    next: str


def write_eda_page(path: Path, facts: EdaFacts, *, made_by: str = "") -> None:
    """Write the page, atomically."""
    images, cells = facts.images, facts.cells
    folds = images["fold"].notna().any()
    number = count()
    shown = {
        "facts": facts,
        "tiles": eda_tables.tiles(images, cells, facts.group),
        "type_table": eda_tables.type_table(images, cells),
        "layout_table": eda_tables.layout_table(images),
        "finding_table": eda_tables.finding_table(facts.findings),
        "finding_rows": eda_tables.finding_rows(facts.findings),
        "image_table": eda_tables.image_table(images, facts.group),
        "odd_table": eda_tables.odd_table(facts.odd_images),
        "group_table": eda_tables.group_table(images) if facts.group else None,
        "fold_table": eda_tables.fold_table(images) if folds else None,
        "size_charts": eda_charts.size_charts(images, cells),
        "number_charts": eda_charts.number_charts(images),
        "intensity_charts": eda_charts.intensity_charts(images),
        "group_charts": eda_charts.group_charts(images, facts.group) if facts.group else [],
        "fold_charts": eda_charts.fold_charts(images) if folds else [],
        "samples": [_gallery(views, number, title) for title, views in facts.samples.items()],
        "labels": _gallery(facts.labels, number),
        "odd": _gallery(facts.odd, number),
        "boxes": eda_charts.BOXES,
        "image_limit": eda_tables.MOST_ROWS,
    }
    title = f"A first look at {Path(facts.place).resolve().name}"
    assets = ("eda.css", "eda.js")
    write_page(path, "eda.html", shown, title=title, made_by=made_by, assets=assets, charts=True)


def _gallery(views: Sequence[View], number: Iterator[int], title: str = "") -> dict[str, Any]:
    """Pictures that belong together, with a title."""
    shown = [_view(view) | {"number": next(number)} for view in views]
    return {"title": title, "views": shown}


def _view(view: View) -> dict[str, Any]:
    height, width = view.pixels.shape[:2]
    about = "" if view.cell is None else f"cell {view.cell}, {view.kind}"
    if view.count is not None:
        about = plural(view.count, "cell")
    uri = picture_uri(view.pixels, quality=QUALITY)
    return {**vars(view), "about": about, "uri": uri, "height": height, "width": width}

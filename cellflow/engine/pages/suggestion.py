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

from cellflow.errors import DataError
from cellflow.io.source import SourceImage
from cellflow.numeric.suggestion import Choice
from cellflow.report.overlays import grey_or_rgb
from cellflow.report.pages.picture import picture_uri, shrunk
from cellflow.report.pages.suggestion import Card, Dot, Part, write_suggestion_page
from cellflow.storage.atomic import write_csv, write_text
from cellflow.storage.sizes import plural

__all__ = ["Pool", "Suggested", "SuggestionFacts", "outline_path", "write_suggestion"]

SIDE = 480
"""Pixels along the longer side of a picture in the page; its outlines are as fine as that needs them."""
PLACE = "The bar is its place among all images that were looked at"
UNLIKE = "How unlike its style is to that of the nearest annotated image, 0 to 1"
STANDS_FOR = (
    "Other images that are more like it than like any annotated or earlier one; the bar is how much it covers of what "
    "there is to learn, against the most in the list"
)
DRAW_FIRST = (
    "Let the models draw first: this writes a file for Cellpose's window for each suggested image. Correct them "
    "there, which is quicker than drawing anew."
)


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
    dots, explained = _map(facts.pool, {item.id for item in facts.chosen})
    page = {
        "run": facts.run,
        "summary": [
            ("Suggested", len(facts.chosen), f"of {facts.wanted} asked for"),
            ("Looked at", len(facts.pool.table), f"of {plural(facts.images, 'image')}"),
            ("Annotated already", facts.annotated, "images of the run's dataset"),
            ("Models", facts.members, "that looked at each image"),
        ],
        "hints": _hints(facts),
        "rows": _rows(facts),
        "passed_over": [
            {"id": name, "why": why} for name, why in {**facts.failed, **facts.left_out}.items()
        ],
        "csv": (folder / "suggest.csv").read_text("utf-8"),
        "commands": [(DRAW_FIRST, facts.command)] if facts.chosen else [],
    }
    cards = _cards(facts, images)
    write_suggestion_page(
        folder / "suggest.html", page, cards, dots=dots, explained=explained, made_by=facts.made_by
    )


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
    table.insert(1, "path", [str(image.path.absolute()) for image in images.values()])
    table.insert(2, "rank", pd.Series([ranks.get(name) for name in images], dtype="Int64"))
    table["left_out"] = [facts.left_out.get(name, "") for name in images]
    table["failed"] = [facts.failed.get(name, "") for name in images]
    return table.round(6)


def _hints(facts: SuggestionFacts) -> list[tuple[str, str]]:
    """What to know of the list."""
    table, chosen = facts.pool.table, len(facts.chosen)
    agree = 1 - float(table["doubt"].mean()) if chosen else 0.0
    empty = int((table["cells"] == 0).sum())
    several, styled = facts.members > 1, bool(facts.pool.styles.shape[1])
    told = bool((table["cell_type"] != "").any())
    hints = [
        (facts.failed, "warning", f"{plural(len(facts.failed), 'image')} could not be used; the reasons are below."),
        (not chosen, "warning", "Nothing to suggest: no image is left that can be used and is not annotated."),
        (
            0 < chosen < facts.wanted, "note",
            f"There are no more than {chosen}: every image that is not annotated is in the list, once.",
        ),
        (
            not several, "note",
            "A single model has no other to disagree with: its doubt is how unsure its cell probability and its flow "
            "are where cells may be, which says less. Train more folds for a better list.",
        ),
        (
            chosen and several, "note",
            f"The masks of two models agree by {agree:.2f} on average (competition score, 1 is the same).",
        ),
        (
            2 * empty > len(table), "warning",
            f"No cell is found in {empty} of {plural(len(table), 'image')}, on which the models agree for that "
            "reason alone. Train longer first, or see whether --diameter fits these images.",
        ),
        (
            not facts.annotated, "note",
            "What is annotated already is not known, so nothing is left out for that: --data names the dataset.",
        ),
        (
            chosen and not styled, "warning",
            "This network has no styles: images are chosen by doubt and type alone, and may be alike.",
        ),
        (
            chosen and not told, "note",
            "The types of cells are not known, so the list is spread by looks alone; where the dataset has types, "
            "cellflow oof teaches them.",
        ),
        (
            facts.left_out, "note",
            f"{plural(len(facts.left_out), 'image')} left out, of which another form is annotated or suggested; see "
            "the end of this page.",
        ),
    ]  # fmt: skip
    return [(kind, text) for so, kind, text in hints if so]


def _cards(facts: SuggestionFacts, images: Mapping[str, SourceImage]) -> list[Card]:
    """The suggested images with their pictures."""
    most = max((item.choice.stands_for for item in facts.chosen), default=0) or 1
    doubt = (
        "How far the masks of the models are apart"
        if facts.members > 1
        else "How unsure the model is"
    )
    cards = []
    for rank, item in enumerate(facts.chosen, 1):
        row: Any = facts.pool.table.loc[item.id]
        choice = item.choice
        parts = [
            Part("Doubt", row["doubt_place"], f"{row['doubt']:.2f}", f"{doubt}. {PLACE}"),
            Part("Unlike", row["unlike_place"], f"{row['unlike']:.2f}", f"{UNLIKE}. {PLACE}"),
            Part("Stands for", choice.stands_for / most, str(choice.nearer), STANDS_FOR),
        ]
        cards.append(
            Card(
                rank, item.id, str(item.path), item.reason, row["cell_type"], int(row["cells"]), row["nearest"], parts,
                _picture(images[item.id]), item.outlines, item.shape,
            )
        )  # fmt: skip
    return cards


def _picture(image: SourceImage) -> str:
    """A small picture of an image that was read before; empty where it has gone since."""
    try:
        return picture_uri(shrunk(grey_or_rgb(image.pixels()), SIDE))
    except DataError:
        return ""


def _map(pool: Pool, chosen: set[str]) -> tuple[list[Dot], float]:
    """Annotated images and candidates in the plane of the two largest principal axes of all their styles."""
    from sklearn.decomposition import PCA

    parts = [styles for styles in (pool.known_styles, pool.styles) if len(styles)]
    styles = np.concatenate(parts) if parts else pool.styles
    if min(styles.shape) < 2 or not np.ptp(styles, axis=0).any():
        return [], 0.0
    pca = PCA(2, svd_solver="full").fit(styles)
    places = pca.transform(styles)
    dots = [
        Dot(x, y, name, "annotated", "annotated")
        for name, (x, y) in zip(pool.known_ids, places.tolist(), strict=False)
    ]
    for (name, row), (x, y) in zip(
        pool.table.iterrows(), places[len(pool.known_ids) :].tolist(), strict=True
    ):
        says = f"doubt {row['doubt']:.2f}, unlike {row['unlike']:.2f}"
        dots.append(Dot(x, y, str(name), "suggested" if name in chosen else "candidate", says))
    return dots, float(pca.explained_variance_ratio_.sum())


def _rows(facts: SuggestionFacts) -> list[dict[str, Any]]:
    """All images that were looked at, the suggested ones first, then those with the most to teach."""
    rows: dict[str, dict[str, Any]] = facts.pool.table.to_dict("index")  # type: ignore[assignment]
    for name, row in rows.items():
        row |= {"id": name, "rank": None, "href": None}
    for rank, item in enumerate(facts.chosen, 1):
        rows[item.id] |= {"rank": rank, "href": f"#image-{rank}"}
    last = len(rows) + 1
    return sorted(
        rows.values(),
        key=lambda row: (row["rank"] or last, -row["doubt_place"] - row["unlike_place"]),
    )


def outline_path(labels: NDArray[Any]) -> str:
    """Outlines of cells as the ``d`` of an SVG path, in pixels of the image, not finer than can be seen."""
    coarse = max(labels.shape) / SIDE
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

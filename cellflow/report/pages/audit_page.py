"""The page of an audit: suspected annotations as cards, to be marked ok, fix or drop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric.suspicion import KINDS
from cellflow.report.pages.page import write_page
from cellflow.report.pages.picture import picture_uri, shrunk
from cellflow.report.text.audit import KIND_NAMES

__all__ = ["Card", "edge_path", "write_audit_page"]

SIDE = 320
"""Crops of a longer side are made smaller."""


@dataclass(frozen=True, eq=False)
class Card:
    """A suspicion.

    Attributes
    ----------
    id, cell_type : str
        Of the image.
    values : mapping of str to str
        Its row in the list, by column, as the list spells it.
    picture : (H, W, 3) uint8 ndarray
        Crop of the image.
    maps : mapping of str to (H, W) integer ndarray
        Label maps of the crop: annotated (all annotations), suspect (those in question), predicted (all
        predicted cells), chosen (those that speak against them).
    """

    id: str
    cell_type: str
    values: Mapping[str, str]
    picture: NDArray[np.uint8]
    maps: Mapping[str, NDArray[Any]]


def write_audit_page(path: Path, cards: Sequence[Card], facts: Mapping[str, Any]) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
        File to write, ends in .html.
    cards : sequence of Card
        The strongest suspicions first.
    facts : mapping
        run, total (suspicions in all), images, flows, decided, usual, columns, data_hash, table, apply, command
        and oof_command.
    """
    kinds = Counter(card.values["kind"] for card in cards)
    shown = {
        "cards": [_drawn(card) for card in cards],
        "rows": [dict(card.values) for card in cards],
        "kinds": [(kind, KIND_NAMES[kind], kinds[kind]) for kind in KINDS if kinds[kind]],
        "kind_names": KIND_NAMES,
        "types": sorted({card.cell_type for card in cards} - {""}),
        "folds": sorted({card.values["fold"] for card in cards}, key=int),
        **facts,
    }
    write_page(
        path, "audit.html", shown,
        title=f"Label audit of {facts['run']}", made_by=facts["command"],
        assets=["audit.css", "audit.js"],
    )  # fmt: skip


def _drawn(card: Card) -> dict[str, Any]:
    """What the template shows of a card."""
    height, width = card.picture.shape[:2]
    return {
        **card.values,
        "id": card.id,
        "cell_type": card.cell_type,
        "picture": picture_uri(shrunk(card.picture, SIDE)),
        "height": height,
        "width": width,
        "paths": {name: edge_path(labels) for name, labels in card.maps.items()},
        "fixable": bool(card.values["proposal"]),
        "removable": bool(card.values["cell"]),
    }


def edge_path(labels: NDArray[Any]) -> str:
    """The lines between the cells of a label map and around them, as an SVG path on the edges of pixels.

    Where a cell goes on beyond the map no line is drawn.
    """
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    lines = [f"M{x} {y + 1}h{n}" for y, x, n in _runs(down)]
    lines += [f"M{x + 1} {y}v{n}" for x, y, n in _runs(right.T)]
    return "".join(lines)


def _runs(where: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Row, first column and length of every run of true values in a row."""
    padded = np.pad(where.astype(np.int8), ((0, 0), (1, 1)))
    change = np.diff(padded, axis=1)
    rows, starts = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]
    return list(zip(rows.tolist(), starts.tolist(), (ends - starts).tolist(), strict=True))

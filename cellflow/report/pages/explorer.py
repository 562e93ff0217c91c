"""The explorer of a report: every image with its outlines and errors, for a page and the files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.numeric.cell_errors import ERRORS, KINDS, POOR_BELOW, CellErrors
from cellflow.numeric.flow_picture import flow_picture
from cellflow.report.pages.picture import picture_uri

__all__ = [
    "EXPLORER_ASSETS",
    "LAYERS",
    "ExplorerFacts",
    "ExplorerImage",
    "explorer_values",
    "image_script",
    "ring_text",
]

EXPLORER_ASSETS = (
    "explorer.css",
    "explorer_cells.js",
    "explorer_state.js",
    "explorer_list.js",
    "explorer_layers.js",
    "explorer_drawing.js",
    "explorer_keys.js",
    "explorer.js",
)
"""What a page with an explorer needs of ``assets/``; the scripts in this order."""
LAYERS = ("image", "seen", "flow", "cellprob", "disagreement")
"""Pictures that an image can have: ``N.webp``, ``N_seen.webp``, ``N_flow.webp`` ..."""
CALLED = "cellflowExplorer"
"""The function of the page that ``N.js`` calls."""
_ORIGIN, _FAR = 79, 39
"""A move of a ring is a letter: ``chr(79 + pixels)``, from ``(`` to ``v``."""
_WHEEL = 72
"""Pixels of the wheel that explains the colours of flows."""


@dataclass(frozen=True)
class ExplorerImage:
    """An image in the explorer.

    Attributes
    ----------
    id, cell_type : str
    fold : int
    number : int
        Of its files: ``N.js``, ``N.webp`` ...
    key : str
        What its files were made of; the page asks the files for it.
    scores : mapping of str to number or None
        score, n_true, n_predicted, n_found, n_missed, n_false of ``oof/scores.csv``.
    size : tuple of int
        Height and width in pixels.
    layers : tuple of str
        Of `LAYERS`: the pictures that are there.
    counts : mapping of str to int, or None
        Errors of each kind; None where truth or prediction is not there.
    thumbnail : str
        Address of a small picture.
    problem : str
        Why it cannot be shown; empty where it can.
    """

    id: str
    fold: int
    cell_type: str
    number: int
    key: str
    scores: Mapping[str, float | int | None]
    size: tuple[int, int] = (0, 0)
    layers: tuple[str, ...] = ()
    counts: Mapping[str, int] | None = None
    thumbnail: str = ""
    problem: str = ""


@dataclass(frozen=True)
class ExplorerFacts:
    """What the explorer of a report shows.

    Attributes
    ----------
    images : sequence of ExplorerImage
    folder : str
        Of the files, seen from the page.
    masks : str
        Which predicted outlines these are.
    members : sequence of str
        Runs whose flows the disagreement is of; empty where there is no more than one.
    notes : sequence of (kind, text)
        What is not there, and why, as `macros.html` shows hints.
    has_truth, has_prediction : bool
        Whether there are outlines of either.
    """

    images: Sequence[ExplorerImage]
    folder: str = "report-files"
    masks: str = ""
    members: Sequence[str] = ()
    notes: Sequence[tuple[str, str]] = field(default_factory=tuple)
    has_truth: bool = True
    has_prediction: bool = True

    @property
    def totals(self) -> dict[str, int] | None:
        """Errors of each kind in all images; None where they are not known."""
        known = [item.counts for item in self.images if item.counts is not None]
        if not known:
            return None
        return {kind: sum(counts[kind] for counts in known) for kind in ERRORS}


def explorer_values(facts: ExplorerFacts) -> dict[str, Any]:
    """What ``explorer.html`` needs in its template."""
    return {"explorer": facts, "explorer_data": _data(facts), "poor_below": POOR_BELOW}


def _data(facts: ExplorerFacts) -> dict[str, Any]:
    """What ``explorer_state.js`` reads."""
    there = {layer for item in facts.images for layer in item.layers}
    return {
        "folder": facts.folder,
        "layers": [layer for layer in LAYERS if layer in there],
        "truth": facts.has_truth,
        "predicted": facts.has_prediction,
        "wheel": _wheel() if "flow" in there else "",
        "images": [_image(item) for item in facts.images],
    }


def _image(item: ExplorerImage) -> dict[str, Any]:
    names = ("id", "fold", "number", "key", "size", "layers", "counts", "problem")
    own = {name: getattr(item, name) for name in names}
    return {**own, "type": item.cell_type, "thumb": item.thumbnail, **item.scores}


def image_script(
    number: int,
    key: str,
    truth: Sequence[Sequence[NDArray[Any]]],
    prediction: Sequence[Sequence[NDArray[Any]]],
    errors: CellErrors | None,
) -> str:
    """The text of ``N.js``: outlines of an image, and what each cell is.

    Parameters
    ----------
    number, key
        As in `ExplorerImage`.
    truth, prediction : sequence of sequence of (N, 2) ndarray
        The rings of each cell, as `ring_text` takes them; a point is inside where it is inside an odd number.
    errors : CellErrors or None
        What the cells are, in the same order.
    """
    value: dict[str, Any] = {
        "number": number,
        "key": key,
        "truth": [[ring_text(ring) for ring in rings] for rings in truth],
        "predicted": [[ring_text(ring) for ring in rings] for rings in prediction],
        "errors": None,
    }
    if errors is not None:
        value["errors"] = [[kind, list(true), list(found)] for kind, true, found in errors.errors]
        for name, side in (("truth", "truth"), ("predicted", "prediction")):
            value[f"{name}Kinds"] = [KINDS[kind] for kind in getattr(errors, side)]
            value[f"{name}Hit"] = [int(hit) for hit in getattr(errors, f"{side}_hit")]
            value[f"{name}Iou"] = [round(float(iou), 3) for iou in getattr(errors, f"{side}_iou")]
    return f"{CALLED}({json.dumps(value, separators=(',', ':'))});\n"


def ring_text(ring: NDArray[Any]) -> str:
    """A ring along the edges of pixels in few letters: ``"X,Y:"`` of its start, then a letter for each move.

    Moves go along x, then y, then x again; ``O`` stands still, letters after it go on, letters before it back.

    Parameters
    ----------
    ring : (N, 2) ndarray
        x, then y of every corner, whole numbers; each differs from the next in one of them. The last is the
        first.
    """
    points = np.rint(ring).astype(np.int64)
    letters: list[str] = []
    for move in np.diff(points, axis=0):
        for axis in (0, 1):
            left = int(move[axis])
            while left:
                if len(letters) % 2 != axis:
                    letters.append(chr(_ORIGIN))
                step = max(-_FAR, min(_FAR, left))
                letters.append(chr(_ORIGIN + step))
                left -= step
    return f"{points[0, 0]},{points[0, 1]}:{''.join(letters)}"


def _wheel() -> str:
    """A disc in which each point has the colour of a flow that goes there from the centre."""
    y, x = (np.mgrid[:_WHEEL, :_WHEEL] + 0.5) * 2 / _WHEEL - 1
    disc = flow_picture(np.stack([y, x]).astype(np.float32))
    disc[np.hypot(y, x) > 1] = 0
    return picture_uri(disc)

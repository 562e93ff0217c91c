"""What the page of an audit shows of each suspicion: a crop with the annotations and the prediction."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.io.audit_list import COLUMNS, AuditRow, row_values
from cellflow.io.dataset import Dataset
from cellflow.numeric.labels import labels_from_instances
from cellflow.report.overlays import grey_or_rgb
from cellflow.report.pages.audit_page import Card, write_audit_page
from cellflow.storage.nearby import beside
from cellflow.storage.run_folder import RunFolder
from cellflow.types import Instances

__all__ = ["write_page_of"]

AROUND = 0.8
"""A crop shows this part of the cells' longer side around them on each side."""
SMALLEST = 40
"""Side of a crop in pixels at least, where the image has as many."""

Labels = NDArray[np.int32]


def write_page_of(
    path: Path,
    run: RunFolder,
    dataset: Dataset,
    rows: Sequence[AuditRow],
    shown: Mapping[str, Any],
    read_masks: Callable[[str], Labels],
) -> None:
    """Write the page of an audit.

    Parameters
    ----------
    path : Path
        File to write, ends in .html.
    run, dataset
        What was looked at.
    rows : sequence of AuditRow
        All suspicions, the strongest first.
    shown : mapping
        n, images, flows, decided, usual, command, oof_command and table of the audit.
    read_masks : callable
        Out-of-fold mask of an image by its id.
    """
    first = rows[: shown["n"]]
    cards: dict[int, Card] = {}
    for name in dict.fromkeys(row.id for row in first):
        places = [place for place, row in enumerate(first) if row.id == name]
        picture = grey_or_rgb(dataset.image(name))
        annotations, predicted = dataset.instances(name), read_masks(name)
        annotated = labels_from_instances(annotations)
        for place in places:
            cards[place] = _card(first[place], picture, annotations, annotated, predicted)
    write_audit_page(
        path,
        [cards[place] for place in range(len(first))],
        {
            **shown,
            "run": run.name,
            "total": len(rows),
            "columns": COLUMNS,
            "data_hash": dataset.hash,
            "apply": f"cellflow prepare {shlex.quote(str(dataset.path))} --audit audit-list.csv --out "
            f"{beside(dataset.path, '-audited')}",
        },
    )


def _card(
    row: AuditRow,
    picture: NDArray[np.uint8],
    annotations: Instances,
    annotated: Labels,
    predicted: Labels,
) -> Card:
    y, x = _window(row.box_yxyx, annotations.shape)
    suspects = np.zeros(annotations.shape, dtype=np.int32)
    for number in row.cells:
        for start, length in zip(*annotations.runs(number - 1), strict=True):
            suspects.reshape(-1)[start : start + length] = number
    chosen = np.where(np.isin(predicted, row.predicted), predicted, 0)
    return Card(
        row.id,
        row.cell_type,
        row_values(row),
        picture[y, x],
        {
            "annotated": annotated[y, x],
            "suspect": suspects[y, x],
            "predicted": predicted[y, x],
            "chosen": chosen[y, x],
        },
    )


def _window(box: tuple[int, int, int, int], shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a crop around a box, square where the image allows it."""
    height, width = box[2] - box[0], box[3] - box[1]
    side = max(SMALLEST, round(max(height, width) * (1 + 2 * AROUND)))
    return (
        _span((box[0] + box[2]) / 2, side, shape[0]),
        _span((box[1] + box[3]) / 2, side, shape[1]),
    )


def _span(middle: float, side: int, size: int) -> slice:
    """So many pixels around the middle, moved inside the image."""
    first = max(0, min(round(middle - side / 2), size - side))
    return slice(first, min(size, first + side))

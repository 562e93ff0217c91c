"""What a prediction writes beside its label maps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellflow.engine.segmentation.cell_table import CELL_COLUMNS
from cellflow.errors import DataError
from cellflow.io.images import read_labels
from cellflow.io.pixel_size import PixelSize
from cellflow.io.source import SourceImage
from cellflow.io.tables import read_rows

__all__ = ["Exports"]


Rows = dict[str, list[list[str]]]


@dataclass(frozen=True)
class Exports:
    """What a prediction writes.

    Attributes
    ----------
    masks : bool
        Label TIFFs.
    submission : bool
        ``submission.csv``.
    cells : bool
        ``cells.csv``.
    outlines : bool
        PNGs of the images with outlines.
    """

    masks: bool = True
    submission: bool = True
    cells: bool = True
    outlines: bool = False


def read_export_table(path: Path, names: set[str]) -> Rows:
    """Rows of some images in a table of ours, by their id; none if there is no table."""
    found: Rows = {}
    if names and path.is_file():
        for row in read_rows(path, ("id",), exact=True)[1]:
            if row.values["id"] in names:
                found.setdefault(row.values["id"], []).append(list(row.values.values()))
    return found


def count_cells(path: Path) -> int:
    return int(np.max(read_labels(path), initial=0))


def _has_all_columns(cells: Path) -> bool:
    """Whether a cell table is there, and not one of an older cellflow that measured less."""
    with suppress(DataError):
        return list(read_rows(cells, ("id",), exact=True)[0]) == ["id", *CELL_COLUMNS]
    return False


def pixel_size_of(reader: Callable[[], Any]) -> PixelSize | None:
    """Micrometres per pixel of an image that knows them."""
    return reader.pixel_size() if isinstance(reader, SourceImage) else None

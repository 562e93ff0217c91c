"""A row and an outline for every cell of a slide: made by blocks, put together in the order of the numbers."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.engine.exports.geojson import MEASURED
from cellflow.engine.segmentation.cell_table import CELL_COLUMNS, measure_cells
from cellflow.engine.slides.cell_list import JoinedCells
from cellflow.engine.slides.cell_steps import owned_parts
from cellflow.engine.slides.label_step import LABELS
from cellflow.engine.slides.store import SlideStore
from cellflow.engine.slides.work import SlideJob, Work, open_work
from cellflow.io.formats.geojson import COLLECTION_END, COLLECTION_HEAD, detection
from cellflow.io.label_pyramid import LabelPyramid
from cellflow.io.shapes import Outline, outlines_from_labels
from cellflow.storage.atomic import atomic_path
from cellflow.storage.csv_text import csv_writer, write_frame
from cellflow.types import Box

__all__ = ["CELLS", "OUTLINES", "join_tables", "measure_owned"]

CELLS, OUTLINES = "cells.csv", "cells.geojson"
"""The table and the detections in the folder of a slide."""


def measure_owned(job: SlideJob, name: str) -> None:
    """Rows and outlines of the cells whose first pixel lies in a block."""
    work = open_work(job)
    joined = JoinedCells(work.store)
    rows = joined.owned(name)
    rows = rows[joined.numbers(rows) > 0]
    lines: dict[int, tuple[str, str]] = {}
    for part, chosen in owned_parts(work, name, joined.table(rows)):
        lines |= _lines(work, part, joined.numbers(rows[chosen]))
    numbers = sorted(lines)
    work.store.save(
        "tables",
        name,
        numbers=np.array(numbers, dtype=np.int64),
        rows=_packed([lines[number][0] for number in numbers]),
        outlines=_packed([lines[number][1] for number in numbers]),
    )


def _lines(work: Work, part: Box, numbers: NDArray[np.int64]) -> dict[int, tuple[str, str]]:
    """The line of the table, and that of the detections, of cells that lie in a part with all of their pixels."""
    plan, store = work.plan, work.store
    numbers = np.sort(numbers)
    found = LabelPyramid(work.job.folder / LABELS).read(part).astype(np.int64)
    at = np.minimum(np.searchsorted(numbers, found), len(numbers) - 1)
    labels = np.where(numbers[at] == found, at + 1, 0).astype(np.int32)
    table = measure_cells(
        labels,
        intensity=work.intensity(part),
        cellprob=store.read("cellprob", part).astype(np.float32),
        disagreement=store.read("disagreement", part).astype(np.float32),
        cell_type=plan.cell_type,
        diameter=plan.diameter,
        pixel_area=math.nan if plan.pixel_size is None else plan.pixel_size.area,
    )
    _move(table, part)
    table["label"] = numbers[table["label"].to_numpy() - 1]
    table.insert(0, "id", plan.id)
    outlines = outlines_from_labels(labels)
    features = [
        detection(
            int(row["label"]),
            _moved(outlines[place], part),
            plan.id,
            cell_type=plan.cell_type,
            measured={column: float(row[column]) for column in MEASURED},
        )
        for place, row in enumerate(table.to_dict("records"), 1)
    ]
    return {
        int(number): (text, feature)
        for number, text, feature in zip(table["label"], _csv_lines(table), features, strict=True)
    }


def _move(table: pd.DataFrame, part: Box) -> None:
    """Places in pixels of the whole slide, in place; the same to the bit whatever part they were measured in."""
    for axis, origin in (("y", part.top), ("x", part.left)):
        table[f"box_{axis}0"] += origin
        table[f"box_{axis}1"] += origin
        area, centroid = table["area"], table[f"centroid_{axis}"]
        table[f"centroid_{axis}"] = ((centroid * area).round() + area * origin) / area


def _moved(outline: Outline, part: Box) -> Outline:
    """An outline in pixels of the whole slide."""
    return [[ring + np.array([part.left, part.top]) for ring in rings] for rings in outline]


def _csv_lines(table: pd.DataFrame) -> list[str]:
    """The rows of a table; ids hold no line breaks."""
    text = io.StringIO(newline="")
    write_frame(text, table, header=False)
    return text.getvalue().split("\n")[:-1]


def _packed(lines: list[str]) -> NDArray[np.uint8]:
    return np.frombuffer("\n".join(lines).encode(), dtype=np.uint8)


def _unpacked(packed: NDArray[np.uint8]) -> list[str]:
    return packed.tobytes().decode().split("\n")


def join_tables(store: SlideStore, folder: Path) -> None:
    """Write the table and the detections of all cells, in the order of their numbers.

    Numbers are those of first pixels, so the cells that a row of blocks owns come before those of the next.
    """
    with (
        atomic_path(folder / CELLS) as rows_path,
        atomic_path(folder / OUTLINES) as outlines_path,
        rows_path.open("w", encoding="utf-8", newline="") as rows,
        outlines_path.open("w", encoding="utf-8") as outlines,
    ):
        csv_writer(rows).writerow(["id", *CELL_COLUMNS])
        outlines.write(COLLECTION_HEAD)
        _write_all(store, rows, outlines)
        outlines.write(COLLECTION_END)


def _write_all(store: SlideStore, rows: TextIO, outlines: TextIO) -> None:
    before = ""
    for row in range(store.grid.rows):
        for line, feature in _of_row(store, row):
            rows.write(line + "\n")
            outlines.write(before + feature)
            before = ",\n"


def _of_row(store: SlideStore, row: int) -> Iterator[tuple[str, str]]:
    """Lines of the cells that a row of blocks owns, in the order of their numbers."""
    found: list[tuple[int, str, str]] = []
    for column in range(store.grid.columns):
        part: dict[str, Any] = store.load("tables", f"{row}_{column}")
        numbers = part["numbers"].tolist()
        if numbers:
            found += zip(numbers, _unpacked(part["rows"]), _unpacked(part["outlines"]), strict=True)
    for _, line, feature in sorted(found):
        yield line, feature

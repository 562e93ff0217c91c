"""``cells.csv``: a row per cell, ``id`` and then the columns of `measure_cells`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cellflow.engine.exports.export import (
    PARTS,
    Export,
    Labels,
    PredictedImage,
    ids_of_files,
    rows_by_id,
)
from cellflow.engine.segmentation.cell_table import CELL_COLUMNS
from cellflow.errors import DataError
from cellflow.io.tables import read_rows
from cellflow.storage.atomic import atomic_path
from cellflow.storage.csv_text import csv_writer, write_frame

__all__ = ["Cells"]


class Cells(Export):
    """A table of all cells; ``.parts/ID.csv`` holds the rows of an image until it is written."""

    path = "cells.csv"
    content = "a row per cell"
    from_labels = False  # intensities and confidences are of the image and the network's output

    def done(self, folder: Path, listed: AbstractSet[str]) -> set[str] | None:
        """Images with a part, and those in the table."""
        return ids_of_files(folder / PARTS, ".csv") | listed

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Measure the cells of one image."""
        assert item.prediction is not None
        area = math.nan if item.pixel_size is None else item.pixel_size.area
        table = replace(item.prediction, pixel_area=area).cells
        table.insert(0, "id", item.id)
        with (
            atomic_path(_part(folder, item.id)) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            write_frame(file, table, header=False)

    def finish(
        self, folder: Path, ids: Sequence[str], labels: Callable[[str], Labels | None]
    ) -> None:
        """The rows of the images' parts, and those of the old table where the parts are gone."""
        kept = {name for name in ids if not _part(folder, name).is_file()}
        old = rows_by_id(folder / self.path, kept)
        with (
            atomic_path(folder / self.path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv_writer(file)
            writer.writerow(["id", *CELL_COLUMNS])
            for name in ids:
                if name in kept:
                    writer.writerows(old.get(name, []))
                else:
                    file.write(_part(folder, name).read_bytes().decode())

    def is_finished(self, folder: Path) -> bool:
        """Whether there is a table with all columns: its rows are kept when others are added."""
        with suppress(DataError):
            heading = read_rows(folder / self.path, ("id",), exact=True)[0]
            return list(heading) == ["id", *CELL_COLUMNS]
        return False

    def forget(self, folder: Path, image_id: str) -> None:
        """Remove the part of an image."""
        _part(folder, image_id).unlink(missing_ok=True)


def _part(folder: Path, image_id: str) -> Path:
    return folder / PARTS / f"{image_id}.csv"

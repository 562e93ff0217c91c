"""``cells.csv``: a row per cell, ``id`` and then the columns of `measure_cells`; of plates also well and field."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from cellflow.engine.exports.export import Export, Labels, PredictedImage, TableExport, rows_by_id
from cellflow.engine.exports.wells import WELLS, place_columns
from cellflow.engine.segmentation.cell_table import CELL_COLUMNS
from cellflow.errors import DataError
from cellflow.io.plates import PlatePlace
from cellflow.io.tables import read_rows
from cellflow.storage.atomic import atomic_path
from cellflow.storage.csv_text import csv_writer, write_frame

__all__ = ["Cells"]


class Cells(TableExport):
    """A table of all cells."""

    path = "cells.csv"
    # the wells are written by the command: they are of images, not of cells
    beside: ClassVar[tuple[str, ...]] = (WELLS,)
    content = "a row per cell"
    ending = ".csv"

    def __init__(self, places: Mapping[str, PlatePlace] | None = None) -> None:
        self._places = dict(places or {})
        self._columns = place_columns(self._places.values())

    def placed(self, places: Mapping[str, PlatePlace]) -> Export:
        """A table that has well and field of images in plates."""
        return Cells(places)

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Measure the cells of one image."""
        table = item.cell_table()
        table.insert(0, "id", item.id)
        with (
            atomic_path(self.file(folder, item.id)) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            write_frame(file, table, header=False)

    def finish(
        self, folder: Path, ids: Sequence[str], labels: Callable[[str], Labels | None]
    ) -> None:
        """The rows of the images' parts, and those of the old table where the parts are gone."""
        kept = {name for name in ids if not self.file(folder, name).is_file()}
        old = rows_by_id(folder / self.path, kept, without=PlatePlace._fields)
        with (
            atomic_path(folder / self.path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv_writer(file)
            writer.writerow(["id", *self._columns, *CELL_COLUMNS])
            for name in ids:
                if name in kept:
                    writer.writerows(self._with_place(name, old.get(name, [])))
                    continue
                part = self.file(folder, name).read_bytes().decode()
                if self._columns:
                    rows = csv.reader(io.StringIO(part, newline=""))
                    writer.writerows(self._with_place(name, rows))
                else:
                    file.write(part)

    def _with_place(self, image_id: str, rows: Iterable[list[str]]) -> Iterator[list[str]]:
        """Rows with the place of their image behind its id; that of an image in no plate is empty."""
        known = self._places.get(image_id)
        place = ["" if known is None else getattr(known, name) for name in self._columns]
        for first, *rest in rows:
            yield [first, *place, *rest]

    def is_finished(self, folder: Path) -> bool:
        """Whether there is a table with all columns: its rows are kept when others are added."""
        with suppress(DataError):
            heading = read_rows(folder / self.path, ("id",), exact=True)[0]
            columns = [name for name in heading if name not in PlatePlace._fields]
            return columns == ["id", *CELL_COLUMNS]
        return False

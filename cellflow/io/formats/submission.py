"""``submission.csv``: one row per cell, ``id,predicted``, row-major 1-indexed runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from cellflow.errors import DataError
from cellflow.io.formats.base import ReadOptions, SourceFormat
from cellflow.io.formats.kaggle import BOWL
from cellflow.io.formats.label_maps import refuse_single_map
from cellflow.io.source import Shape, Source, SourceImage
from cellflow.io.tables import read_rows, without_mark
from cellflow.numeric.rle import Order, instances_from_rles
from cellflow.storage.atomic import atomic_path
from cellflow.storage.csv_text import csv_writer
from cellflow.types import Instances

__all__ = ["SubmissionTable", "read_submission", "write_submission"]

_log = logging.getLogger(__name__)

_OURS, _OF_BOWL = ("id", "predicted"), (BOWL["id"], BOWL["annotation"])


class SubmissionTable(SourceFormat):
    """A CSV as predicted cells; an image without cells has one row with an empty value.

    Runs go row by row, but where ``rle_order`` says otherwise, or the columns are called as by the Data Science Bowl,
    whose runs go column by column: predicted cells do not tell by themselves.
    """

    name = "submission"
    uses = frozenset({"prediction"})

    def recognises(self, path: Path, options: ReadOptions) -> bool:
        """Any file."""
        return path.is_file()

    def read(self, path: Path, options: ReadOptions) -> Source:
        """Read the table; runs are decoded image by image."""
        refuse_single_map(path)
        order: Order = "C" if options.rle_order == "auto" else options.rle_order
        if options.rle_order == "auto" and _columns(path) == _OF_BOWL:
            order = "F"
            text = "%s: the columns are %s and %s, so the runs are read column by column; --rle_order C reads them row "
            _log.info(text + "by row.", path, *_OF_BOWL)
        images = {
            name: SourceImage(name, path, read_cells=partial(_cells, path, name, rles, order))
            for name, rles in sorted(read_submission(path).items())
        }
        return Source(path, self.name, images, "table with a row per cell")


def _cells(
    path: Path, image_id: str, rles: list[str], order: Order, shape: Shape | None
) -> Instances:
    if shape is None:
        raise DataError(f"{path}: how large image {image_id} is, is not known.", id=image_id)
    try:
        return instances_from_rles(rles, shape, order)
    except DataError as error:
        text = (
            f"{path}: image {image_id}, of size {shape[0]} x {shape[1]} (height x width): {error}"
        )
        raise DataError(text, path=path, id=image_id) from error


def write_submission(path: Path, rows: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Write a submission atomically.

    Parameters
    ----------
    path : Path
        CSV to write.
    rows : iterable of (id, runs of every cell)
        Images in the order they are to be written; it may be a generator. An image without cells
        gets one row with an empty value.

    Raises
    ------
    DataError
        If an id comes twice.
    """
    seen: set[str] = set()
    with (
        atomic_path(Path(path)) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv_writer(file)
        writer.writerow(["id", "predicted"])
        for image_id, rles in rows:
            if image_id in seen:
                text = f"{path}: the image {image_id!r} comes twice."
                raise DataError(text, path=Path(path), id=image_id)
            seen.add(image_id)
            writer.writerows([image_id, rle] for rle in rles or [""])


def read_submission(path: Path) -> dict[str, list[str]]:
    """Read a submission: from id to the runs of its cells; an empty list where there are none."""
    found: dict[str, list[str]] = {}
    ids, runs_of = columns = _columns(Path(path))
    for row in read_rows(Path(path), columns)[1]:
        cells = found.setdefault(row.values[ids], [])
        if runs := without_mark(row.values[runs_of]):
            cells.append(runs)
    return found


def _columns(path: Path) -> tuple[str, str]:
    """Those of ids and of runs: ours, or those of the Data Science Bowl where the table has these and not ours."""
    there = set(read_rows(path, ())[0])
    return _OF_BOWL if there.issuperset(_OF_BOWL) and not there & set(_OURS) else _OURS

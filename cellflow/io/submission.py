"""``submission.csv``: one row per cell, ``id,predicted``, row-major 1-indexed runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cellflow.errors import DataError
from cellflow.io.tables import read_rows
from cellflow.storage.atomic import atomic_path
from cellflow.storage.csv_text import csv_writer

__all__ = ["check_submission", "read_submission", "write_submission"]


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
                raise DataError(f"{path}: the image {image_id!r} comes twice.")
            seen.add(image_id)
            writer.writerows([image_id, rle] for rle in rles or [""])


def read_submission(path: Path) -> dict[str, list[str]]:
    """Read a submission: from id to the runs of its cells; an empty list where there are none."""
    found: dict[str, list[str]] = {}
    for row in read_rows(Path(path), ("id", "predicted"))[1]:
        cells = found.setdefault(row.values["id"], [])
        if row.values["predicted"]:
            cells.append(row.values["predicted"])
    return found


def check_submission(path: Path, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Check what the competition asks of a submission.

    Parameters
    ----------
    path : Path
        The submission.
    shapes : mapping
        From every id that must be in it to its ``(H, W)``.

    Raises
    ------
    DataError
        If an image is missing or unknown, a run is malformed or leaves its image, or two cells of an
        image overlap.
    """
    found = read_submission(path)
    if found.keys() != shapes.keys():
        missing, extra = sorted(shapes.keys() - found.keys()), sorted(found.keys() - shapes.keys())
        raise DataError(f"{path}: missing images: {missing or 'none'}; unknown: {extra or 'none'}.")
    for image_id, rles in found.items():
        _check_image(path, image_id, rles, shapes[image_id])


def _check_image(path: Path, image_id: str, rles: list[str], shape: tuple[int, int]) -> None:
    where = f"{path} (image {image_id})"
    try:
        numbers = np.array(" ".join(rles).split(), dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{where}: expected whole numbers as runs ({error}).") from error
    if any(len(rle.split()) % 2 for rle in rles):
        raise DataError(f"{where}: a run without a length (an odd number of values).")
    starts, ends = numbers[::2] - 1, numbers[::2] - 1 + numbers[1::2]
    if len(starts) and (starts.min() < 0 or (ends <= starts).any() or ends.max() > np.prod(shape)):
        raise DataError(f"{where}: a run is empty or leaves the image of {shape[0]} x {shape[1]}.")
    order = np.argsort(starts)
    if (starts[order][1:] < ends[order][:-1]).any():
        raise DataError(f"{where}: cells overlap; every pixel may belong to one cell only.")

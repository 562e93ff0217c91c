"""Images and cells that are unlike the others of their type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["odd_cells", "odd_images", "spread_of"]

FEWEST = 8
"""Images, or cells, that a type must have before one of them can be unlike the others."""
FAR = 4.0
"""Robust standard deviations from the median, on a log scale, from which on an image is unlike the others ..."""
FACTOR = 1.5
"""... if it is also so many times as large or as small."""
CELL_FAR, CELL_FACTOR = 5.0, 3.0
"""The same of the diameter of a cell."""
_TO_DEVIATION = 1.4826
"""A median of absolute distances as a standard deviation, of a normal distribution."""

Floats = NDArray[np.float64]


def odd_images(images: pd.DataFrame) -> pd.DataFrame:
    """Images unlike the others of their type in brightness, contrast, size or number of cells.

    Parameters
    ----------
    images : DataFrame
        As `eda` gathers it, with the cells for each million pixels as density.

    Returns
    -------
    DataFrame
        Columns id, why, distance: a row for each image that is, farthest first.
    """
    found: dict[str, list[tuple[float, str]]] = {}
    for column, low, high, digits in _MEASURES:
        # intensities of another type of pixel are not to be compared
        kinds = ["cell_type", *(["dtype"] if column in ("mean", "spread") else [])]
        known = images[images[column] > 0]
        for names, members in known.groupby(kinds, sort=False):
            kind = str(names[0])
            for name, distance, ratio in _far(members[column], FAR, FACTOR):
                word = high if ratio > 1 else low
                middle = members[column].median()
                value = float(members[column].to_dict()[name])
                of = f"of {kind} " if kind else ""
                text = f"{word}: {float(value):,.{digits}f}, the median {of}is {middle:,.{digits}f}"
                found.setdefault(name, []).append((distance, text))
    rows = [
        {
            "id": name,
            "why": "; ".join(text for _, text in sorted(reasons, reverse=True)),
            "distance": max(distance for distance, _ in reasons),
        }
        for name, reasons in found.items()
    ]
    table = pd.DataFrame(rows, columns=["id", "why", "distance"])
    return table.sort_values("distance", ascending=False, kind="stable", ignore_index=True)


_MEASURES = (
    ("mean", "dark (mean intensity)", "bright (mean intensity)", 1),
    ("spread", "little contrast (percentiles 1 to 99)", "much contrast (percentiles 1 to 99)", 1),
    ("diameter", "small cells (median diameter)", "large cells (median diameter)", 1),
    ("density", "few cells for each million pixels", "many cells for each million pixels", 0),
)
"""Column, what it is called where it is low and where it is high, and its digits."""


def odd_cells(cells: pd.DataFrame, cell_types: pd.Series[str]) -> pd.DataFrame:
    """Cells far larger or smaller than those of their type.

    Parameters
    ----------
    cells : DataFrame
        As `Measures` has it, with at_border: small cells there may go on beyond.
    cell_types : Series
        By id of the image.

    Returns
    -------
    DataFrame
        Columns id, cell, why, distance: a row for each cell that is, farthest first.
    """
    rows = []
    kinds = cells["id"].map(cell_types)
    for kind, members in cells.groupby(kinds, sort=False):
        middle = members["diameter"].median()
        for place, distance, ratio in _far(members["diameter"], CELL_FAR, CELL_FACTOR):
            row = members.loc[place].to_dict()
            if ratio < 1 and row["at_border"]:
                continue
            of = f" of {kind}" if kind else ""
            times = f"{ratio:.1f} times" if ratio > 1 else f"1/{1 / ratio:.0f} of"
            text = f"{row['diameter']:.1f} pixels across, {times} the median{of} ({middle:.1f})"
            rows.append(
                {"id": row["id"], "cell": int(row["cell"]), "why": text, "distance": distance}
            )
    table = pd.DataFrame(rows, columns=["id", "cell", "why", "distance"])
    return table.sort_values("distance", ascending=False, kind="stable", ignore_index=True)


def _far(values: pd.Series[float], far: float, factor: float) -> Iterator[tuple[str, float, float]]:
    """Members far from the median: index, distance in robust standard deviations, and ratio to the median."""
    if len(values) < FEWEST:
        return
    logs = np.log(values.to_numpy(np.float64))
    middle = float(np.median(logs))
    spread = _TO_DEVIATION * float(np.median(np.abs(logs - middle)))
    # where more than half are alike, every other would be far
    distances = np.abs(logs - middle) / max(spread, np.log(factor) / far)
    for place in np.flatnonzero(distances > far):
        yield values.index[place], float(distances[place]), float(np.exp(logs[place] - middle))


def spread_of(values: Any) -> float:
    """How many times as large the large ones are as the small ones: a ratio of percentiles 90 and 10; 1 of nothing."""
    if not len(values):
        return 1.0
    small, large = np.percentile(values, (10, 90))
    return float(large / small) if small > 0 else 1.0

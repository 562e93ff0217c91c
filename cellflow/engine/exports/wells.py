"""``wells.csv``: a row per well of the plates of a prediction, from the table of its cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import pandas as pd

from cellflow.errors import DataError
from cellflow.io.images import image_shape
from cellflow.io.plates import PlatePlace
from cellflow.io.source import SourceImage
from cellflow.storage.atomic import write_csv

__all__ = ["WELLS", "place_columns", "write_wells"]

WELLS = "wells.csv"
_MM2 = 1e-6
"""Square millimetres of a square micrometre."""


def place_columns(places: Iterable[PlatePlace]) -> tuple[str, ...]:
    """Columns that tell where images lie: well and field, and the plate where there are several."""
    plates = {place.plate for place in places}
    return ("plate", "well", "field")[not len(plates) > 1 :] if plates else ()


def write_wells(
    path: Path,
    cells: Path,
    images: Mapping[str, SourceImage],
    places: Mapping[str, PlatePlace],
    done: Iterable[str],
) -> None:
    """Write how many images and cells each well has, mean size and intensity of these, and their density.

    `cells` is the finished ``cells.csv`` with the cells of the images in `done`, which were predicted; a well of
    which there is none has a row, too. Means are over cells: ``mean_area`` in pixels, ``mean_intensity`` in native
    units. ``cells_per_mm2`` is over the area of all done images of the well, and empty where the size of a pixel is
    not known.
    """
    columns = [name for name in place_columns(places.values()) if name != "field"]
    known = set(done)
    fields = pd.DataFrame.from_records(
        [
            {"id": key, **place._asdict(), "images": int(key in known)}
            | {"mm2": _square_mm(images[key]) if key in known else 0.0}
            for key, place in places.items()
        ]
    )
    found = _sums(cells).reindex(fields["id"]).fillna(0.0).reset_index(drop=True)
    by_well = pd.concat([fields, found], axis=1).groupby(columns, sort=False)
    sums = by_well[["images", "cells", "area", "intensity"]].sum()
    count = sums["cells"].where(sums["cells"] > 0)
    table = pd.DataFrame(
        {
            "images": sums["images"],
            "cells": sums["cells"].astype(int),
            "mean_area": sums["area"] / count,
            "mean_intensity": sums["intensity"] / count,
            "cells_per_mm2": sums["cells"] / by_well["mm2"].agg(_whole_area),
        }
    ).reset_index()
    write_csv(path, table)


def _sums(cells: Path) -> pd.DataFrame:
    """Number of cells, and sums of their areas and intensities, by image."""
    table = pd.read_csv(
        cells,
        usecols=["id", "area", "mean_intensity"],
        dtype={"id": str},
        keep_default_na=False,
        na_values={"area": [""], "mean_intensity": [""]},
    )
    by_image = table.groupby("id")
    sums = by_image[["area", "mean_intensity"]].sum()
    return sums.rename(columns={"mean_intensity": "intensity"}).assign(cells=by_image.size())


def _square_mm(image: SourceImage) -> float:
    """Area of an image; nan where the size of its pixels is not known."""
    with suppress(DataError):
        size = image.pixel_size()
        if size is not None:
            height, width = image_shape(image.path)[:2]
            return height * width * size.area * _MM2
    return math.nan


def _whole_area(areas: pd.Series) -> float:
    """Area of all images of a well; nan where one is not known, or there is none."""
    total = float(areas.sum(skipna=False))
    return total if total > 0 else math.nan

"""Where images lie in the plates of a screen: the HCS layout of OME-Zarr, ``PLATE.zarr/ROW/COLUMN/FIELD``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from cellflow.errors import DataError
from cellflow.io._ome_zarr import NONSENSE, is_plate
from cellflow.io.source import SourceImage

__all__ = ["PlatePlace", "places_in_plates"]

_ENDINGS = (".ome.zarr", ".zarr")


class PlatePlace(NamedTuple):
    """Where an image lies.

    Attributes
    ----------
    plate : str
        Name of the plate, without ending.
    well : str
        Row and column, such as B03.
    field : str
        Which image of the well it is, such as 0.
    """

    plate: str
    well: str
    field: str


def places_in_plates(images: Mapping[str, SourceImage]) -> dict[str, PlatePlace]:
    """Where those of some images lie that are fields of a plate, by id; the others are left out."""
    name_of = cache(_name_of)
    found: dict[str, PlatePlace] = {}
    for key, image in images.items():
        around = image.path.parents
        name = name_of(around[2]) if len(around) > 2 else None
        if name is not None:
            row, column, field = image.path.parts[-3:]
            found[key] = PlatePlace(name, row + column, field)
    return found


def _name_of(folder: Path) -> str | None:
    """The name of a plate; None for any other folder."""
    with suppress(DataError, *NONSENSE):
        if is_plate(folder):
            name = folder.resolve().name
            ending = next((end for end in _ENDINGS if name.lower().endswith(end)), "")
            return name[: len(name) - len(ending)]
    return None

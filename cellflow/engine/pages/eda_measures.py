"""What `cellflow eda` measures of every image and every cell while `verify` reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.io.source import SourceImage
from cellflow.types import Instances

__all__ = ["Measures", "diameters"]

CELL_COLUMNS = ("id", "cell", "area", "diameter", "diameter_um")
_MOST_CHANNELS = 16
"""Of more, as of a stack, the first are looked at one by one."""


@dataclass
class Measures:
    """Takes one image after the other, as `verify_data` shows them; then `images` and `cells` are tables.

    Attributes
    ----------
    rows : dict of str to dict
        Of each image, by id.
    """

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    _areas: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def __call__(
        self,
        image: SourceImage,
        pixels: NDArray[Any],
        cells: Instances,
        labels: NDArray[np.int32],
    ) -> None:
        """Measure one image; what cannot be known is nan."""
        inside = labels > 0
        size = image.pixel_size()
        self._areas[image.id] = cells.areas
        self.rows[image.id] = {
            "covered": float(inside.mean()),
            "touching": _touching(labels),
            "um": float(np.sqrt(size.area)) if size else np.nan,
            **_intensity(pixels, inside),
            **_channels(pixels),
        }

    @property
    def images(self) -> pd.DataFrame:
        """A row for each image, by id.

        covered: share of the pixels in cells; touching: cells that touch another; um: micrometres per pixel;
        mean, p1, p50, p99: intensity, the mean of all channels, as the file has it; contrast: how much
        brighter the cells are than the rest, in standard deviations of the image; saturated: share of the
        pixels at the largest value of their type, over all channels; empty, grey: channels of one value,
        from 1, and whether several channels are all the same.
        """
        index = pd.Index(self.rows, name="id", dtype=str)
        return pd.DataFrame(list(self.rows.values()), index=index)

    @property
    def cells(self) -> pd.DataFrame:
        """A row for each cell: id, cell (from 1, those of the same pixels once), area, diameter, diameter_um."""
        counts = [len(areas) for areas in self._areas.values()]
        areas = np.concatenate([np.zeros(0, np.int64), *self._areas.values()])
        um = np.repeat([self.rows[name]["um"] for name in self._areas], counts)
        columns = (
            np.repeat(np.array(list(self._areas), dtype=object), counts),
            np.concatenate([np.zeros(0, np.int64), *(np.arange(1, n + 1) for n in counts)]),
            areas,
            diameters(areas),
            diameters(areas) * um,
        )
        return pd.DataFrame(dict(zip(CELL_COLUMNS, columns, strict=True)))


def diameters(areas: NDArray[Any]) -> NDArray[np.float64]:
    """Diameters of discs of these areas."""
    return np.asarray(2 * np.sqrt(np.asarray(areas, np.float64) / np.pi), np.float64)


def _touching(labels: NDArray[np.int32]) -> int:
    """Cells with a pixel of another cell above, below, left or right of one of theirs."""
    touching = set[int]()
    for one, other in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])):
        where = (one != other) & (one > 0) & (other > 0)
        touching |= {*np.unique(one[where]).tolist(), *np.unique(other[where]).tolist()}
    return len(touching)


def _intensity(pixels: NDArray[Any], inside: NDArray[np.bool_]) -> dict[str, float]:
    """Of the mean of all channels."""
    plane = pixels if pixels.ndim == 2 else pixels.mean(axis=2, dtype=np.float32)
    low, middle, high = np.percentile(plane, (1, 50, 99)).tolist()
    mean, spread = float(plane.mean(dtype=np.float64)), float(plane.std(dtype=np.float64))
    contrast = np.nan
    if inside.any() and not inside.all() and spread > 0:
        within = float(plane[inside].mean(dtype=np.float64))
        share = float(inside.mean())
        contrast = (within - (mean - share * within) / (1 - share)) / spread
    return {"mean": mean, "p1": low, "p50": middle, "p99": high, "contrast": contrast}


def _channels(pixels: NDArray[Any]) -> dict[str, Any]:
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    shown = [planes[..., channel] for channel in range(min(planes.shape[2], _MOST_CHANNELS))]
    empty = tuple(number for number, plane in enumerate(shown, 1) if plane.min() == plane.max())
    grey = len(shown) > 1 and all(np.array_equal(shown[0], plane) for plane in shown[1:])
    return {"empty": empty, "grey": grey, "saturated": _saturated(pixels)}


def _saturated(pixels: NDArray[Any]) -> float:
    """Share of the values at the top of their type; nan for floats, which have none."""
    if pixels.dtype.kind not in "iu":
        return float("nan")
    return float((pixels == np.iinfo(pixels.dtype).max).mean())

"""One row per cell of an image: place, shape, intensity, and how sure the network is of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from skimage.measure import regionprops_table

from cellflow.errors import DataError
from cellflow.numeric.labels import check_labels

__all__ = ["CELL_COLUMNS", "cell_confidences", "measure_cells"]

_SHAPES = {
    "label": ("label", np.int64),
    "area": ("area", np.int64),
    "centroid-0": ("centroid_y", np.float64),
    "centroid-1": ("centroid_x", np.float64),
    "bbox-0": ("box_y0", np.int64),
    "bbox-1": ("box_x0", np.int64),
    "bbox-2": ("box_y1", np.int64),
    "bbox-3": ("box_x1", np.int64),
    "eccentricity": ("eccentricity", np.float64),
    "equivalent_diameter_area": ("equivalent_diameter", np.float64),
    "perimeter": ("perimeter", np.float64),
    "axis_major_length": ("major_axis", np.float64),
    "axis_minor_length": ("minor_axis", np.float64),
    "solidity": ("solidity", np.float64),
}
"""Names of scikit-image, and ours with their dtypes."""

CELL_COLUMNS = (
    *(name for name, _ in _SHAPES.values()),
    "mean_intensity", "cellprob", "disagreement", "confidence", "cell_type", "area_um2",
    "diameter_used",
)  # fmt: skip
"""Columns of a cell table, in order."""


def measure_cells(
    labels: Any,
    *,
    intensity: NDArray[Any],
    cellprob: NDArray[Any],
    disagreement: NDArray[Any],
    cell_type: str = "",
    diameter: float = math.nan,
    pixel_area: float = math.nan,
) -> pd.DataFrame:
    """Measure every cell of a label map.

    Parameters
    ----------
    labels : (H, W) integer ndarray
        0 background; a number that is missing gives no row.
    intensity : (H, W) ndarray
        The segmented channel, in any unit.
    cellprob : (H, W) ndarray
        Logit.
    disagreement : (H, W) ndarray
        How far the members are apart, in unit flows; 0 for a single one. See `average_flows`.
    cell_type : str
        Cell type of the image, empty where it is unknown.
    diameter : float
        Diameter in pixels that the network was told, the same for all cells of an image.
    pixel_area : float
        Square micrometres of a pixel, nan where they are unknown.

    Returns
    -------
    pandas.DataFrame
        A row per cell in the order of the labels, with `label`, `area` (pixels), `centroid_y`,
        `centroid_x`, `box_y0`, `box_x0`, `box_y1`, `box_x1` (pixels, the ends not part of the box),
        `eccentricity` (of the ellipse with the same second moments: 0 a circle, towards 1 a line),
        `equivalent_diameter` (of the circle with the same area, pixels), `perimeter` (length of the line
        through the centres of the border pixels, pixels; 0 for one pixel), `major_axis`, `minor_axis`
        (of that ellipse, pixels; 0 where a cell is one pixel wide), `solidity` (area over the area of the
        convex hull), `mean_intensity` (unit of the intensity), `cellprob` (mean logit), `disagreement` (mean, unit
        flows), `confidence`, `cell_type`, `area_um2` (square micrometres) and `diameter_used` (pixels).
        Nothing but the last two is ever nan. The same columns and dtypes where there are no cells.

    Raises
    ------
    DataError
        If `labels` is not a label map or the other maps are not of its shape.

    Notes
    -----
    `confidence`, from 0 to 1, is the mean of ``sigmoid(cellprob)`` over the cell, times 1 minus its
    mean disagreement (at most 1). It is a rank: it says which cells to look at first. It is not a
    calibrated probability that the cell is right. Shapes are those of
    ``skimage.measure.regionprops``.
    """
    array = check_labels(labels)
    maps = {"intensity": intensity, "cellprob": cellprob, "disagreement": disagreement}
    for name, values in maps.items():
        if np.shape(values) != array.shape:
            raise DataError(
                f"{name}: expected the shape of the labels, {array.shape}, found {np.shape(values)}"
            )
    table = _measure_shapes(array)
    means = _means(array, table["label"].to_numpy(), maps | {"sure": expit(cellprob)})
    table["mean_intensity"] = means["intensity"]
    table["cellprob"] = means["cellprob"]
    table["disagreement"] = means["disagreement"]
    table["confidence"] = _confidence(means)
    table["cell_type"] = pd.Series([cell_type] * len(table), index=table.index, dtype=object)
    table["area_um2"] = table["area"] * pixel_area
    table["diameter_used"] = float(diameter)
    return table


def cell_confidences(
    labels: NDArray[np.int32], *, cellprob: NDArray[Any], disagreement: NDArray[Any]
) -> dict[int, float]:
    """The `confidence` of `measure_cells` alone, by label; the other columns take far longer."""
    numbers = np.unique(labels[labels > 0]).astype(np.int64)
    means = _means(labels, numbers, {"disagreement": disagreement, "sure": expit(cellprob)})
    return dict(zip(numbers.tolist(), _confidence(means).tolist(), strict=True))


def _confidence(means: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    return means["sure"] * (1 - np.minimum(1, means["disagreement"]))


def _measure_shapes(labels: NDArray[Any]) -> pd.DataFrame:
    """Place and shape of every cell."""
    names = dict.fromkeys(name.split("-")[0] for name in _SHAPES)
    # what scikit-image returns for no cells has other dtypes from version to version
    found = regionprops_table(labels, properties=tuple(names)) if labels.any() else {}
    return pd.DataFrame(
        {
            name: np.asarray(found.get(theirs, []), dtype=dtype)
            for theirs, (name, dtype) in _SHAPES.items()
        }
    )


def _means(
    labels: NDArray[Any], numbers: NDArray[np.int64], maps: dict[str, NDArray[Any]]
) -> dict[str, NDArray[np.float64]]:
    """Mean of every map over every cell, ``(n,)`` each, all cells in one pass over the pixels."""
    inside = np.flatnonzero(labels)
    place = np.searchsorted(numbers, labels.reshape(-1)[inside])
    counts = np.bincount(place, minlength=len(numbers))
    return {
        name: np.bincount(place, np.asarray(values).reshape(-1)[inside], len(numbers)) / counts
        for name, values in maps.items()
    }

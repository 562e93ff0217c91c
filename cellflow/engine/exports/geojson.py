"""``geojson/ID.geojson``: outlines, cell types and measurements as detections of QuPath."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from cellflow.engine.exports.export import ImageExport, PredictedImage
from cellflow.io.formats.geojson import write_geojson

__all__ = ["GeoJson"]

MEASURED = (
    "area", "area_um2", "equivalent_diameter", "perimeter", "eccentricity", "solidity",
    "mean_intensity", "cellprob", "disagreement", "confidence",
)  # fmt: skip
"""Columns of ``cells.csv`` that become measurements, under the same names."""


class GeoJson(ImageExport):
    """Detections, one a cell, named by their numbers."""

    path = "geojson"
    content = "QuPath detections"
    ending = ".geojson"
    from_labels = False  # classes and measurements are of the prediction

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Write the detections of one image."""
        assert item.prediction is not None
        area = math.nan if item.pixel_size is None else item.pixel_size.area
        cells = replace(item.prediction, pixel_area=area).cells
        write_geojson(
            self.file(folder, item.id),
            item.labels,
            item.id,
            cell_type=item.prediction.cell_type,
            measurements={
                int(number): dict(zip(MEASURED, map(float, values), strict=True))
                for number, *values in cells[["label", *MEASURED]].to_numpy(float).tolist()
            },
        )

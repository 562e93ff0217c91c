"""``geojson/ID.geojson``: outlines, cell types and measurements as detections of QuPath."""

from __future__ import annotations

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
        rows = item.cell_table()[["label", *MEASURED]].to_numpy(float).tolist()
        write_geojson(
            self.file(folder, item.id),
            item.labels,
            item.id,
            cell_type=item.predicted.cell_type,
            measurements={int(n): dict(zip(MEASURED, row, strict=True)) for n, *row in rows},
        )

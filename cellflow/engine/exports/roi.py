"""``rois/ID_rois.zip``: outlines as ROIs of ImageJ."""

from __future__ import annotations

from pathlib import Path

from cellflow.engine.exports.export import ImageExport, PredictedImage
from cellflow.io.formats.imagej_rois import ROI_ENDING, write_rois

__all__ = ["Roi"]


class Roi(ImageExport):
    """ROIs, one a cell, named by their numbers."""

    path = "rois"
    content = "ImageJ ROIs"
    ending = ROI_ENDING

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Write the ROIs of one image."""
        write_rois(self.file(folder, item.id), item.labels)

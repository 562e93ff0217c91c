"""``outlines/ID.png``: the images with the outlines of their cells."""

from __future__ import annotations

from pathlib import Path

from cellflow.engine.exports.export import ImageExport, PredictedImage
from cellflow.report.overlays import write_outlines

__all__ = ["Outlines"]


class Outlines(ImageExport):
    """Pictures with outlines."""

    path = "outlines"
    content = "pictures"
    ending = ".png"

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Draw one image."""
        write_outlines(self.file(folder, item.id), item.image, item.labels)

"""Exports that one call writes: label maps, outlines in three forms, and flows."""

from __future__ import annotations

from pathlib import Path

from cellflow.engine.exports.export import Export, ImageExport, PredictedImage
from cellflow.io.foreign_flows import write_foreign_flows
from cellflow.io.formats.imagej_rois import ROI_ENDING, write_rois
from cellflow.io.formats.text_outlines import TEXT_ENDING, write_text_outlines
from cellflow.report.overlays import write_outlines
from cellflow.storage.sizes import plural

__all__ = ["FlowFiles", "Masks", "Outlines", "Roi", "Txt"]


class Masks(Export):
    """``masks/ID.tif``: label maps that stay when all images are done; the result folder writes them."""

    path = "masks"
    content = "label maps"
    keeps_labels = True

    def summary(self, images: int) -> str:
        """The folder and how many there are."""
        return f"{self.path}/ ({plural(images, 'label map')})"


class Outlines(ImageExport):
    """``outlines/ID.png``: the images with the outlines of their cells."""

    path = "outlines"
    content = "pictures"
    ending = ".png"

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Draw one image."""
        write_outlines(self.file(folder, item.id), item.image, item.labels)


class Roi(ImageExport):
    """``rois/ID_rois.zip``: outlines as ROIs of ImageJ, one a cell, named by their numbers."""

    path = "rois"
    content = "ImageJ ROIs"
    ending = ROI_ENDING

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Write the ROIs of one image."""
        write_rois(self.file(folder, item.id), item.labels)


class Txt(ImageExport):
    """``txt/ID_cp_outlines.txt``: outlines as Cellpose writes them, a line a cell; holes and further parts are lost."""

    path = "txt"
    content = "outlines as text"
    ending = TEXT_ENDING

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Write the outlines of one image."""
        write_text_outlines(self.file(folder, item.id), item.labels)


class FlowFiles(ImageExport):
    """``flows/ID.npz``: mean flow and logit of every image, which ``cellflow ensemble --flows`` takes."""

    path = "flows"
    content = "flows for --flows"
    ending = ".npz"
    from_labels = False

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Write one image."""
        made = item.predicted
        write_foreign_flows(self.file(folder, item.id), made.flow, made.cellprob)

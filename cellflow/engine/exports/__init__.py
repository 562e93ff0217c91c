"""What a prediction writes of its images: a class an export, and the table that finds them.

Another export is a subclass of `Export` in a file of its own, a row of `EXPORTS`, and its name and a sentence
of help for ``--export`` in `cellflow.config.prediction`.
"""

from __future__ import annotations

from cellflow.engine.exports.cells import Cells
from cellflow.engine.exports.coco import Coco
from cellflow.engine.exports.export import Export
from cellflow.engine.exports.geojson import GeoJson
from cellflow.engine.exports.ome_zarr import OmeZarr
from cellflow.engine.exports.plain import FlowFiles, Masks, Outlines, Roi, Txt
from cellflow.engine.exports.png import PngMasks
from cellflow.engine.exports.seg import GuiFiles
from cellflow.engine.exports.submission import Submission

__all__ = ["EXPORTS"]

EXPORTS: dict[str, Export] = {
    "masks": Masks(),
    "outlines": Outlines(),
    "png": PngMasks(),
    "seg": GuiFiles(),
    "roi": Roi(),
    "geojson": GeoJson(),
    "txt": Txt(),
    "ome-zarr": OmeZarr(),
    "flows": FlowFiles(),
    "cells": Cells(),
    "submission": Submission(),
    "coco": Coco(),
}
"""Exports by the names that ``--export`` takes, in the order in which they are written and named."""

"""The formats of images and cells, one a file, in the one table that `prepare`, `score` and `predict` share.

A new format is a file with a `SourceFormat` and an entry in `FORMATS`.
"""

from __future__ import annotations

from pathlib import Path

from cellflow.errors import DataError
from cellflow.io.formats.base import ReadOptions, SourceFormat
from cellflow.io.formats.coco import CocoFile
from cellflow.io.formats.dataset_folder import DatasetFolder
from cellflow.io.formats.dsb import CellFiles
from cellflow.io.formats.geojson import GeoJson
from cellflow.io.formats.image_files import ImageFiles
from cellflow.io.formats.imagej_rois import ImagejRois
from cellflow.io.formats.kaggle import KaggleTable
from cellflow.io.formats.label_maps import LabelMaps
from cellflow.io.formats.mask_folders import MaskFolders
from cellflow.io.formats.ome_zarr import OmeZarr
from cellflow.io.formats.submission import SubmissionTable
from cellflow.io.source import Source

__all__ = ["FORMATS", "ReadOptions", "SourceFormat", "find_format", "read_source"]

FORMATS: list[SourceFormat] = [
    DatasetFolder(),
    GeoJson(),
    ImagejRois(),
    CocoFile(),
    KaggleTable(),
    SubmissionTable(),
    OmeZarr(),
    CellFiles(),
    MaskFolders(),
    LabelMaps(),
    ImageFiles(),
]
"""The first that has the use and recognises the place reads it; so the last of a use takes, or refuses, the rest."""


def find_format(path: Path, options: ReadOptions) -> SourceFormat | None:
    """The format of a place, None where there is none of that use."""
    return next(
        (form for form in FORMATS if options.use in form.uses and form.recognises(path, options)),
        None,
    )


def read_source(path: Path, options: ReadOptions) -> Source:
    """The images of a place in any format.

    Raises
    ------
    DataError
        If it is of no format, or something in it is wrong. What is wrong with single images of a
        source for `prepare` is in ``options.problems``.
    """
    form = find_format(Path(path), options)
    if form is None:
        raise DataError(f"{path}: of no format that is known.", path=Path(path))
    return form.read(Path(path), options)

"""The formats of images and cells, one a file, in the one table that `prepare`, `score` and `predict` share.

A new format is a file with a `SourceFormat` and an entry in `FORMATS`.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cellflow.errors import DataError
from cellflow.io._damage import unreadable
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
from cellflow.io.places import RESULTS
from cellflow.io.source import Source
from cellflow.storage.sizes import few_text

__all__ = ["FORMATS", "ReadOptions", "SourceFormat", "find_format", "read_source"]

_log = logging.getLogger(__name__)

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
    path = Path(path)
    try:
        path.exists()
    except OSError as error:  # a text that is too long for a name
        raise unreadable(path, error) from error
    form = find_format(path, options)
    if form is None:
        raise DataError(f"{path}: of no format that is known.", path=path)
    source = form.read(path, options)
    _tell_of_others(form, path, options)
    return source


def _tell_of_others(taken: SourceFormat, path: Path, options: ReadOptions) -> None:
    """One line where a folder holds cells in other formats too: they may be other cells."""
    if options.use == "images" or not path.is_dir() or isinstance(taken, DatasetFolder):
        return
    if options.use == "prediction" and (path / RESULTS).is_file():  # the same cells in all of them
        return
    others = {
        form.name: files
        for form in FORMATS
        if form is not taken and options.use in form.uses and (files := form.lies_in(path, options))
    }
    if others:
        _log.log(
            logging.WARNING if options.use == "prepare" else logging.INFO,
            "%s: cells in more than one form. Taken: %s. Not taken: %s. If those are meant, name their file or "
            "folder, or move the others away.",
            *(path, taken.name),
            ", ".join(
                f"{name} ({few_text(file.name for file in files)})"
                for name, files in others.items()
            ),
        )

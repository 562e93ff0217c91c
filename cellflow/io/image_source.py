"""Images to predict: whatever people name, in any format, by id."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io._ome_zarr import NONSENSE, is_plate, missing_in_plate
from cellflow.io._zarr_metadata import is_zarr
from cellflow.io.formats import ReadOptions, read_source
from cellflow.io.formats.base import SILENT
from cellflow.io.formats.image_files import LIST_SUFFIX, ImageSearch, is_image_file
from cellflow.io.image_folders import is_text
from cellflow.io.source import SourceImage, by_id
from cellflow.storage.sizes import few_text, plural

__all__ = ["ImageReaders", "find_images", "source_folders"]

ImageReaders = Mapping[str, Callable[[], NDArray[Any]]]
"""From id to a function that reads the image."""

_log = logging.getLogger(__name__)


def find_images(
    sources: Path | Iterable[Path],
    *,
    recursive: bool = False,
    img_filter: str = "",
    pixel_size: float | None = None,
    log: logging.Logger | None = _log,
) -> dict[str, SourceImage]:
    """Images of dataset folders, folders, files, patterns or lists, by id.

    Nothing is read but the datasets' tables and the lists. Files that Cellpose wrote beside images
    (``NAME_masks``, ``NAME_flows`` and so on, by the endings of their names) are passed over, unless there is
    nothing else, or a list or a path of its own names them without their image.

    Parameters
    ----------
    sources : Path or iterable of Path
        Each a dataset folder of `cellflow prepare`, a folder with images in it, an image file, an OME-Zarr
        image, a pattern (``*``, ``?``, ``[...]``, ``**`` for any folders), or a text file
        (.txt, UTF-8) with the path of one image a line: absolute or relative to the list's folder. Empty
        lines of a list and those that begin with # are passed over.
    recursive : bool
        Whether images in sub-folders count. Hidden folders, results of `cellflow predict`, datasets and
        ``masks/`` and ``labels/`` beside ``images/`` do not.
    img_filter : str
        Ending of the names of images, as Cellpose's ``--img_filter``, or ``img_*`` with a star for the id: other
        files are passed over, and ids are names without it.
    pixel_size : float or None
        Micrometres per pixel of all images, whatever their files say.
    log : logging.Logger or None
        Gets one line for every kind of file that was passed over.

    Returns
    -------
    dict of str to SourceImage
        By id: the dataset's ids, or file names without ending; those in sub-folders have the folders in
        front, ``day1__a`` for ``day1/a.tif``. In the order of the sources, and in each of the dataset,
        of the names, or of the list.

    Raises
    ------
    DataError
        If there is no image, two files have the same id, or a list names a file that is not there (all
        such lines are reported together).
    """
    paths = _as_list(sources)
    if not paths:
        raise DataError(
            "No images were named. Name a dataset, folders, files, a pattern in quotes such as "
            f"'plate/*.tif', or a list of files ({LIST_SUFFIX})."
        )
    options = ReadOptions("images", img_filter=img_filter, recursive=recursive, log=log or SILENT)
    found = by_id(replace(image, given_size=pixel_size) for image in _images(paths, options))
    for plate in dict.fromkeys(_plate_of(image.path) for image in found.values()):
        missing = [] if plate is None else missing_in_plate(plate)
        if missing:
            names = few_text(missing)
            options.log.warning("%s names wells or fields that are not there: %s", plate, names)
    odd = {name: image for name, image in found.items() if not is_text(name)}
    if odd:
        names = few_text(ascii(str(image.path)) for image in odd.values())
        text = f"{plural(len(odd), 'image')} whose name is not UTF-8: {names}. Rename it."
        if len(odd) == len(found):
            raise DataError(text)
        options.log.warning("passed over %s", text)
    return {name: image for name, image in found.items() if name not in odd}


def _images(paths: list[Path], options: ReadOptions) -> Iterator[SourceImage]:
    """Images of all sources, in order; of several files, as a shell lists them, not what Cellpose wrote."""
    files = [path for path in paths if is_image_file(path)]
    search = ImageSearch(options)
    passed = search.without_outputs(files, named=True)[1] if len(files) > 1 else []
    for path in paths:
        if path not in passed:
            yield from read_source(path, options).images.values()


def _plate_of(image: Path) -> Path | None:
    """The plate of which an image is a field."""
    with suppress(DataError, *NONSENSE):
        if len(image.parents) > 2 and image.is_dir() and is_plate(image.parents[2]):
            return image.parents[2]
    return None


def source_folders(sources: Path | Iterable[Path]) -> str | list[str]:
    """Where images come from, for records: a single source, or the folders of several."""
    paths = _as_list(sources)
    if len(paths) == 1:
        return str(paths[0].resolve())
    folders = {
        path.resolve() if path.is_dir() and not is_zarr(path) else path.resolve().parent
        for path in paths
    }
    return sorted(map(str, folders))


def _as_list(sources: Path | Iterable[Path]) -> list[Path]:
    return [Path(sources)] if isinstance(sources, str | Path) else [Path(item) for item in sources]

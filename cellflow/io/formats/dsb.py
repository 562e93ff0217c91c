"""The layout of the 2018 Data Science Bowl: ``ID/images/ID.png`` and ``ID/masks/*.png``, one cell a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io import places
from cellflow.io._dataset_facts import is_dataset
from cellflow.io.formats.base import ReadOptions, SourceFormat
from cellflow.io.images import image_shape, list_images, read_masks
from cellflow.io.problems import Problems
from cellflow.io.source import FileImage, Shape, Source, SourceImage
from cellflow.numeric.labels import instances_from_masks
from cellflow.storage.sizes import few_text, plural
from cellflow.types import Instances

__all__ = ["CellFiles"]

_log = logging.getLogger(__name__)


class CellFiles(SourceFormat):
    """A folder for each image, with ``images/`` of one image and ``masks/`` of one file for each cell.

    Cells may overlap, and one of several parts is one cell. Images without ``masks/`` are not annotated and
    left out; an empty ``masks/`` stands for an image without cells.
    """

    name = "cell-files"
    uses = frozenset({"prepare", "truth"})

    def recognises(self, path: Path, options: ReadOptions) -> bool:
        """Whether a sub-folder has ``images/`` and ``masks/``, and no images lie in the folder itself."""
        if not path.is_dir() or options.masks is not None or list_images(path):
            return False
        if is_dataset(path) or (path / places.IMAGE_FOLDERS[0]).is_dir():
            return False
        return any(places.is_image_folder(folder) for folder in places.folders_in(path))

    def read(self, path: Path, options: ReadOptions) -> Source:
        """Find the files; they are read image by image."""
        images: dict[str, SourceImage] = {}
        without = []
        for folder in places.folders_in(path):
            image = _image_of(folder, options.problems)
            if image is None:
                continue
            masks = places.find_folder(folder, places.MASK_FOLDERS)
            if masks is None:
                without.append(folder.name)
                continue
            places.tell_of_passed_over(masks, log=options.log)
            read = partial(_cells, image, list_images(masks))
            images[folder.name] = FileImage(folder.name, image, read_cells=read)
        if without:
            _log.warning(
                "%s without masks/ left out (%s).", plural(len(without), "image"), few_text(without)
            )
        return Source(path, self.name, images, "folder of images with a file for each cell")


def _image_of(folder: Path, problems: Problems) -> Path | None:
    """The one image of a folder; None, and one of the problems, where that is not so."""
    place = places.find_folder(folder, places.IMAGE_FOLDERS)
    if place is None:
        if places.find_folder(folder, places.MASK_FOLDERS) is not None:
            problems.add(f"{folder}: masks, but no images/ with their image. Add it.", folder.name)
        return None
    files = list_images(place)
    if len(files) != 1:
        found = few_text(file.name for file in files) or "none"
        problems.add(
            f"{place}: expected one image, found {len(files)} ({found}). Each image has a folder of its own, "
            "with its masks.",
            folder.name,
        )
        return None
    return files[0]


def _cells(image: Path, files: list[Path], shape: Shape | None) -> Instances:
    """The cells of an image, one a file."""
    if shape is None:
        rows, columns, *_ = image_shape(image)
        shape = rows, columns
    return instances_from_masks(_masks(files, shape), shape)


def _masks(files: list[Path], shape: Shape) -> Iterator[NDArray[np.bool_]]:
    """One mask after the other: thousands of large ones do not fit into memory."""
    for file in files:
        mask = read_masks(file)
        _check(file, mask, shape)
        yield mask > 0


def _check(file: Path, mask: NDArray[np.int64], shape: Shape) -> None:
    """A file holds one cell, on as many pixels as the image."""
    if mask.shape != shape:
        text = (
            f"{file}: the mask is {mask.shape[0]} x {mask.shape[1]} (height x width), its image is "
            f"{shape[0]} x {shape[1]}. Export the mask again at the image's size."
        )
        raise DataError(text, path=file, expected=shape, found=mask.shape)
    values = np.unique(mask[mask > 0])
    if len(values) == 1:
        return
    remedy = "Remove it, or draw its cell."
    if len(values):
        remedy = "If this is a label map of all cells, lay images and masks in one images/ and one masks/."
    found = f"{len(values)} values besides 0" if len(values) else "an empty mask"
    text = f"{file}: expected one cell (0 and one other value), found {found}. {remedy}"
    raise DataError(text, path=file, expected=1, found=len(values))

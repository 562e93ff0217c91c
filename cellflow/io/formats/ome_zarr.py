"""OME-Zarr images with their label maps, in the ``labels/`` of each; and the writer of such images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from cellflow.errors import DataError
from cellflow.io._ome_zarr import images_in, is_zarr, label_map, label_names
from cellflow.io.formats.base import ReadOptions, SourceFormat
from cellflow.io.formats.image_files import folder_of, image_id
from cellflow.io.images import list_images
from cellflow.io.mask_findings import read_label_map
from cellflow.io.places import MASK_FOLDERS, find_folder
from cellflow.io.source import FileImage, Shape, Source, SourceImage, by_id
from cellflow.numeric.labels import instances_from_labels
from cellflow.storage.sizes import few_text
from cellflow.types import Instances

__all__ = ["CELLS", "OmeZarr"]

CELLS = "cells"
"""Name of the label map that we write."""


class OmeZarr(SourceFormat):
    """A zarr, or a folder of them, of which each image holds its label map in ``labels/NAME``.

    Where an image has several, ``--masks NAME`` says which; without it the one that `cellflow predict`
    writes is taken for a prediction, and none for truth. An image without any has no truth, which is told.
    """

    name = "ome-zarr"
    uses = frozenset({"prepare", "truth", "prediction"})

    def recognises(self, path: Path, options: ReadOptions) -> bool:
        """Whether there is a zarr with images, or a folder of those where one has a label map."""
        if options.masks is not None and options.masks.is_dir():
            return False
        if is_zarr(path):
            return bool(images_in(path))
        if (
            not path.is_dir()
            or (path / "dataset.json").is_file()
            or find_folder(path, MASK_FOLDERS)
        ):
            return False
        return any(_has_labels(image) for image in list_images(path) if image.is_dir())

    def read(self, path: Path, options: ReadOptions) -> Source:
        """Find the images and their label maps; images without one are problems of `prepare`."""
        found = images_in(path) if is_zarr(path) else list_images(path)
        images = list[SourceImage]()
        for image in found:
            name = image_id(image, folder_of(image))
            try:
                labels = _choose(image, options)
            except DataError as error:
                if options.use != "prepare":
                    raise
                options.problems.add(error, name)
                continue
            cells = partial(_cells, labels, predicted=options.use == "prediction")
            images.append(FileImage(name, image, read_cells=cells))
        by_name = dict(sorted(by_id(images, options.problems).items()))
        return Source(path, self.name, by_name, "OME-Zarr images with labels")


def _has_labels(image: Path) -> bool:
    """Whether there is a label map; one that is damaged may have had one."""
    try:
        return bool(label_names(image))
    except DataError:
        return True


def _choose(image: Path, options: ReadOptions) -> Path:
    """The label map of an image."""
    names = label_names(image) if image.is_dir() else []
    wanted = None if options.masks is None else str(options.masks)
    if wanted is None and len(names) > 1 and options.use == "prediction" and CELLS in names:
        wanted = CELLS
    if wanted in names or (wanted is None and len(names) == 1):
        return label_map(image, wanted or names[0])
    where = f"{image}: expected a label map in its labels/, found "
    advice = "Add it (all zero if the image has no cells) or remove the image."
    if names:
        advice = "Say which with --masks NAME."
    raise DataError(
        f"{where}{few_text(names) or 'none'}. {advice}",
        path=image,
        expected=wanted,
        found=names,
    )


def _cells(path: Path, shape: Shape | None, *, predicted: bool) -> Instances:
    masks = read_label_map(path, predicted=predicted)
    if shape is not None and masks.shape != shape:
        raise DataError(
            f"{path}: the label map is {masks.shape[0]} x {masks.shape[1]} (height x width), its image is "
            f"{shape[0]} x {shape[1]}. Both must have the same finest level.",
            path=path,
            expected=shape,
            found=masks.shape,
        )
    return instances_from_labels(masks)

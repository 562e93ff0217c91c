"""Masks made by anything: folders of label maps, and CSV tables with one run-length row per cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io.images import IMAGE_SUFFIXES, list_images
from cellflow.io.mask_findings import read_label_map
from cellflow.io.places import MASK_FOLDERS, find_folder
from cellflow.io.submission import read_submission
from cellflow.numeric.labels import compact, labels_from_instances
from cellflow.numeric.rle import instances_from_rles

__all__ = ["PredictedMasks", "label_map_files", "read_predicted_masks"]

_ENDINGS = ("_cp_masks", "_masks")
"""Endings of label maps that lie beside their images, as Cellpose writes and reads them."""


@dataclass(frozen=True)
class PredictedMasks:
    """Predicted cells of many images, read one image at a time.

    Attributes
    ----------
    path : Path
        Where they are.
    ids : tuple of str
        Images that have a prediction, sorted; an image without cells is one of them.
    read : callable
        Takes an id and the ``(H, W)`` of its image; gives labels, ``(H, W)`` int32, 1..n without gaps.
        Raises DataError, with the id, if the cells do not fit that size or cannot be read.
    kind : str
        What they are, for people.
    ending : str
        What the names of label maps end in beyond the id.
    """

    path: Path
    ids: tuple[str, ...]
    read: Callable[[str, tuple[int, int]], NDArray[np.int32]]
    kind: str
    ending: str = ""


class LabelMaps(NamedTuple):
    """Label maps of a folder by the id of their image, and what their names end in beyond it."""

    files: dict[str, Path]
    ending: str

    @property
    def kind(self) -> str:
        """What they are, for people."""
        return f"label maps such as {next(iter(self.files.values())).name}"


def read_predicted_masks(path: Path, *, ending: str = "") -> PredictedMasks:
    """Find predicted masks.

    Parameters
    ----------
    path : Path
        Folder of label maps, folder with such a folder ``masks/`` in it, or CSV with the columns id and
        predicted (row-major 1-indexed runs, a row per cell; an image without cells has one row with an
        empty value).
    ending : str
        See `label_map_files`.

    Raises
    ------
    DataError
        If there are none, or two files have the same id.
    """
    path = Path(path)
    if path.is_file():
        return _from_table(path)
    maps = label_map_files(path, ending=ending)

    def read(image_id: str, shape: tuple[int, int]) -> NDArray[np.int32]:
        labels = read_label_map(maps.files[image_id], predicted=True)
        if labels.shape != shape:
            remedy = "Export the masks at the size of the image."
            if labels.shape == shape[::-1]:
                remedy = "Height and width are swapped: transpose the masks."
            raise DataError(
                f"{maps.files[image_id]}: the masks of image {image_id} are {_size(labels.shape)}, the "
                f"truth is {_size(shape)} (height x width). {remedy}"
            )
        return compact(labels)[0]

    return PredictedMasks(path, tuple(sorted(maps.files)), read, maps.kind, maps.ending)


def label_map_files(folder: Path, *, ending: str = "") -> LabelMaps:
    """Label maps of a folder, or of ``masks/`` in it (or another name that `prepare` takes), by the id of their image.

    Where names end in ``_cp_masks`` or ``_masks``, only those are label maps and the ending is no part
    of the id; the others are images, or what else Cellpose puts beside them.

    Parameters
    ----------
    folder : Path
        Folder to look in.
    ending : str
        Ending that goes before these two where a name has it.

    Raises
    ------
    DataError
        If there are none, or two have the same id.
    """
    # the labels/ of a dataset are its truth, and no prediction to score against it
    if folder.is_dir() and not (folder / "dataset.json").is_file():
        folder = find_folder(folder, MASK_FOLDERS) or folder
    paths = list_images(folder)
    tried = (ending, *_ENDINGS) if ending else _ENDINGS
    ending = next((e for e in tried if any(path.stem.endswith(e) for path in paths)), "")
    files: dict[str, Path] = {}
    for path in (path for path in paths if path.stem.endswith(ending)):
        image_id = path.stem.removesuffix(ending)
        if image_id in files:
            raise DataError(
                f"{folder}: {files[image_id].name} and {path.name} are both masks of the image "
                f"{image_id!r}. Remove one."
            )
        files[image_id] = path
    if not files:
        raise DataError(
            f"{folder}: expected label maps (ID.tif, ID.png, or ending in _masks or _cp_masks), found "
            "no image file. Check the path."
        )
    return LabelMaps(files, ending)


def _from_table(path: Path) -> PredictedMasks:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(
            f"{path}: expected a folder of label maps or a CSV, found a single image. Name its folder."
        )
    rles = read_submission(path)

    def read(image_id: str, shape: tuple[int, int]) -> NDArray[np.int32]:
        try:
            cells = instances_from_rles(rles[image_id], shape)
        except DataError as error:
            raise DataError(
                f"{path}: image {image_id}, of size {_size(shape)} (height x width): {error}"
            ) from error
        labels = labels_from_instances(cells)
        if np.count_nonzero(labels) < cells.areas.sum():
            raise DataError(
                f"{path}: cells of image {image_id} overlap; every pixel may belong to one predicted "
                "cell only, as the competition asks. Give disputed pixels to one of the cells."
            )
        return labels

    return PredictedMasks(path, tuple(sorted(rles)), read, "table with a row per cell")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))

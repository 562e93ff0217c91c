"""Files with a number for each pixel: label maps as images, and ``NAME_seg.npy`` of Cellpose's GUI."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io.formats.seg_npy import SEG_ENDING, read_seg_npy, seg_files
from cellflow.io.images import IMAGE_SUFFIXES, list_images
from cellflow.io.mask_findings import check_label_map, read_label_map
from cellflow.io.places import without_outline_pictures

__all__ = ["is_seg_ending", "list_maps", "read_map", "refuse_single_map", "same_cells"]


def is_seg_ending(mask_filter: str) -> bool:
    """Whether files of Cellpose's GUI are meant; Cellpose itself has the suffix in its ``--mask_filter``."""
    return mask_filter in (SEG_ENDING, f"{SEG_ENDING}.npy")


def list_maps(folder: Path, mask_filter: str) -> list[Path]:
    """Files of a folder that may hold label maps with this ending of their names, sorted by name."""
    files = seg_files(folder) if is_seg_ending(mask_filter) else []
    return files or without_outline_pictures(list_images(folder))


def refuse_single_map(path: Path) -> None:
    """Refuse a label map where a folder of them, or a table, is expected."""
    gui = path.name.lower().endswith(f"{SEG_ENDING}.npy")
    if gui or path.suffix.lower() in IMAGE_SUFFIXES:
        found = "file of Cellpose's GUI" if gui else "image"
        raise DataError(
            f"{path}: expected a folder of label maps or a CSV, found a single {found}. Name its folder: "
            f"{quote(str(path.parent))}",
            path=path,
        )


def read_map(path: Path, *, predicted: bool = False, colours: bool = False) -> NDArray[np.int64]:
    """Read a label map of either kind, and refuse what cannot be one; see `read_label_map`."""
    if path.suffix.lower() == ".npy":
        return check_label_map(path, read_seg_npy(path), predicted=predicted)
    return read_label_map(path, predicted=predicted, colours=colours)


def same_cells(one: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
    """Whether two label maps have the same cells, whatever their numbers."""
    if one.shape != other.shape:
        return False
    pairs = np.stack(
        [np.unique(one, return_inverse=True)[1], np.unique(other, return_inverse=True)[1]]
    )
    # 0 is the background only where there is one
    zeros = np.stack([one, other]).reshape(2, -1) == 0
    if not np.array_equal(*zeros):
        return False
    first, second = pairs.reshape(2, -1)
    together = len(np.unique(first * (second.max() + 1) + second))
    return bool(together == first.max() + 1 == second.max() + 1)

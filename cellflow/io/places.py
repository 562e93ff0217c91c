"""Folders and files by the names that people give them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from cellflow.errors import DataError
from cellflow.io.file_names import id_of, stem_of
from cellflow.io.images import list_images, passed_over
from cellflow.io.tables import find_table
from cellflow.storage.sizes import few_text, plural

__all__ = [
    "CELLPOSE_MASKS",
    "IMAGE_ENDINGS",
    "IMAGE_FOLDERS",
    "KAGGLE_FOLDERS",
    "KAGGLE_TABLE",
    "MASK_ENDINGS",
    "MASK_FOLDERS",
    "OUTPUT_ENDINGS",
    "RESULTS",
    "SEG_ENDING",
    "find_folder",
    "folders_in",
    "has_label_maps",
    "is_image_folder",
    "is_kaggle_layout",
    "kaggle_folder",
    "kaggle_table",
    "paired_ending",
    "seg_files",
    "tell_of_passed_over",
    "without_outline_pictures",
]

_log = logging.getLogger(__name__)

IMAGE_FOLDERS = ("images", "image")
OUTPUT_ENDINGS = ("_flows", "_masks", "_cp_masks", "_cp_output", "_cp_outlines", "_seg")
"""Endings of names of files that Cellpose writes beside an image."""
CELLPOSE_MASKS = ("_cp_masks", "_masks")
"""Endings of names of label maps beside their images, as Cellpose writes and reads them."""
SEG_ENDING = "_seg"
"""Ending of names of files of Cellpose's GUI, before .npy."""
RESULTS = "prediction.json"
"""File of a folder of results, which may hold the same cells in many forms."""
_OUTLINES, _CP_MASKS = "_outlines", "_cp_masks"
MASK_ENDINGS = (*CELLPOSE_MASKS, "_mask", "_labels", "_label", "-labels", "-label")
IMAGE_ENDINGS = ("", "_image", "_img")
"""Endings of names that people give label maps, and the images beside them."""
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "annotation")
_NNUNET = {IMAGE_FOLDERS: ("imagestr",), MASK_FOLDERS: ("labelstr",)}
"""Names of nnU-Net, where there is none of these."""
_KAGGLE = {"train.csv": ("train",), "stage1_train_labels.csv": ("stage1_train",)}
"""Tables of competitions, of Sartorius first and then of the Data Science Bowl, and the folder of their images."""
KAGGLE_TABLE, KAGGLE_FOLDERS = next(iter(_KAGGLE.items()))


def find_folder(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The folder of one of these names in another, whatever its capitals; None if there is none.

    Exactly the first name wins over all others.

    Raises
    ------
    DataError
        If there are several.
    """
    if (folder / names[0]).is_dir():
        return folder / names[0]
    inside = folders_in(folder)
    found = [path for path in inside if path.name.lower() in names]
    found = found or [path for path in inside if path.name.lower() in _NNUNET.get(names, ())]
    if len(found) > 1:
        listed = " and ".join(path.name for path in found)
        text = (
            f"{folder}: {listed} are both there; expected one of them. Rename the right one to "
            f"{names[0]}" + (", or name it with --masks." if names is MASK_FOLDERS else ".")
        )
        raise DataError(text, path=folder, expected=names[0], found=listed)
    return found[0] if found else None


def tell_of_passed_over(
    *folders: Path,
    log: logging.Logger = _log,
    but: tuple[str, ...] = (),
    also: tuple[str, ...] = (),
) -> None:
    """Log which files look like images and are not taken, a line for each reason; not those `but` names end in.

    Files with `also` other endings are taken, as by `list_images`.
    """
    for folder in folders:
        reasons: dict[str, list[str]] = {}
        for path, reason in passed_over(folder, also=also):
            if not path.stem.endswith(but):
                reasons.setdefault(reason, []).append(path.name)
        for reason, names in reasons.items():
            text = "%s: passed over %s (%s): %s"
            log.warning(text, folder, plural(len(names), "file"), few_text(names), reason)


def kaggle_table(folder: Path) -> Path | None:
    """The table of run-length masks of a competition; None if there is none."""
    found = (find_table(folder, name) for name in _KAGGLE)
    return next((path for path in found if path is not None), None)


def kaggle_folder(table: Path) -> Path | None:
    """The folder of the images of a table; None if there is none."""
    return find_folder(table.parent, _KAGGLE.get(table.name.removesuffix(".gz"), KAGGLE_FOLDERS))


def is_kaggle_layout(folder: Path) -> bool:
    """Whether a folder holds a table of run-length masks and the folder of its images."""
    table = kaggle_table(folder) if folder.is_dir() else None
    return table is not None and kaggle_folder(table) is not None


def is_image_folder(folder: Path) -> bool:
    """Whether it holds one image and masks, none of which has the name of the image: then it is a data set."""
    images, masks = find_folder(folder, IMAGE_FOLDERS[:1]), find_folder(folder, MASK_FOLDERS[:1])
    if images is None or masks is None:
        return False
    names = [file.stem for file in list_images(images)]
    if len(names) != 1:
        return False
    return names[0] == folder.name or not any(
        file.stem.startswith(names[0]) for file in list_images(masks)
    )


def paired_ending(stems: Iterable[str]) -> str:
    """The ending of label maps with which each image of a folder has one; empty where there is none."""
    names = set(stems)
    for ending in MASK_ENDINGS:
        maps = {name for name in names if name.endswith(ending)}
        images = {name for name in names - maps if not name.endswith(OUTPUT_ENDINGS)}
        ids = {name.removesuffix(ending) for name in maps}
        if maps and any({name + end for name in ids} == images for end in IMAGE_ENDINGS):
            return ending
    return ""


def has_label_maps(folder: Path, mask_filter: str = "") -> bool:
    """Whether label maps lie in a folder, by the names of files and folders.

    Beside the images, in a folder for masks, in files of Cellpose's GUI, or as ``ID/masks/`` with a file for
    each cell. Formats that say less of cells leave such a folder to those that read these.
    """
    stems = [stem_of(path) for path in list_images(folder)]
    kinds = filter(None, (*CELLPOSE_MASKS, mask_filter))
    if any(id_of(stem, kind) is not None for kind in kinds for stem in stems):
        return True
    if paired_ending(stems):
        return True
    inside = folders_in(folder)
    masks = [path for path in inside if path.name.lower() in MASK_FOLDERS]
    if any(map(list_images, masks)) or any(map(seg_files, (folder, *masks))):
        return True
    return not stems and any(map(is_image_folder, inside))


def seg_files(folder: Path) -> list[Path]:
    """Files of a folder that are called ``NAME_seg.npy``, sorted by name; none if there is no folder."""
    found = folder.glob(f"*{SEG_ENDING}.[nN][pP][yY]")
    return sorted(item for item in found if item.name[0] != "." and item.is_file())


def without_outline_pictures(paths: Iterable[Path]) -> list[Path]:
    """Without ``NAME_outlines_cp_masks``: Cellpose's ``--save_outlines`` draws the cells of NAME into its image."""
    listed = list(paths)
    stems = {path.stem for path in listed}

    def is_picture(stem: str) -> bool:
        image = stem.removesuffix(_OUTLINES + _CP_MASKS)
        there = image in stems or image + _CP_MASKS in stems
        return image != stem and there and image + _OUTLINES not in stems

    return [path for path in listed if not is_picture(path.stem)]


def folders_in(folder: Path) -> list[Path]:
    """Folders directly in a folder that are not hidden, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")

"""Images with label maps: ``images/`` and ``masks/``, or ``NAME.tif`` beside ``NAME_masks.tif``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cellflow.errors import DataError
from cellflow.io.images import IMAGE_SUFFIXES, list_images, read_masks
from cellflow.io.source import Problems, Source, SourceImage
from cellflow.numeric.labels import instances_from_labels
from cellflow.types import Instances

__all__ = ["OUTPUT_ENDINGS", "read_folders", "split_outputs"]

OUTPUT_ENDINGS = ("_flows", "_masks", "_cp_masks", "_cp_output", "_cp_outlines", "_seg")
"""Endings of names of files that Cellpose writes beside an image."""


def split_outputs(
    paths: Sequence[Path], *, only_beside_image: bool = False
) -> tuple[list[Path], list[Path]]:
    """Tell images from the files that Cellpose wrote beside them, by the endings of their names.

    Parameters
    ----------
    paths : sequence of Path
        Image files.
    only_beside_image : bool
        Whether a name counts only where the image that it was made of is among the `paths`. It is so in
        any case where all names end like outputs: then some are images.

    Returns
    -------
    images, outputs : list of Path
        In their order.
    """
    there = {path.with_suffix("") for path in paths}
    outputs = {path for path in paths if path.stem.endswith(OUTPUT_ENDINGS)}
    if only_beside_image or len(outputs) == len(paths):
        outputs = {
            path
            for path in outputs
            for ending in OUTPUT_ENDINGS
            if path.stem.endswith(ending)
            and path.with_name(path.stem.removesuffix(ending)) in there
        }
    return [path for path in paths if path not in outputs], [
        path for path in paths if path in outputs
    ]


def read_folders(
    folder: Path, problems: Problems, *, masks: Path | None = None, mask_filter: str = "_masks"
) -> Source:
    """Find pairs of image and label map.

    Parameters
    ----------
    folder : Path
        Holds ``images/`` and ``masks/`` with files of the same name, or images beside label maps
        whose names end in `mask_filter` (Cellpose's way).
    problems : Problems
        Takes images without a mask, masks without an image, and names used twice.
    masks : Path, optional
        Folder of label maps, when it is not ``folder/masks``.

    Returns
    -------
    Source
        Images sorted by id. Label maps may have gaps, and labels of several parts: one label is one
        cell.

    Raises
    ------
    DataError
        If there is no such layout, or no image at all.
    """
    if masks is None and (folder / "images").is_dir() and (folder / "masks").is_dir():
        masks = folder / "masks"
    if masks is None:
        layout = "paired-files"
        images, maps = _split_paired(folder, mask_filter)
    else:
        layout = "image-mask-folders"
        images = list_images(folder / "images" if (folder / "images").is_dir() else folder)
        maps = list_images(masks)
    if not images and not maps:
        raise DataError(_nothing_found(folder, mask_filter))
    by_id = _by_stem(images, "", problems)
    maps_by_id = _by_stem(maps, mask_filter, problems)
    for image_id in sorted(by_id.keys() - maps_by_id.keys()):
        where = masks or folder
        problems.add(
            f"{by_id[image_id]}: no mask; expected {where / image_id}{mask_filter}.tif"
            + ("" if masks is None else f" or {where / image_id}.tif")
            + " (or .png). Add it (all zero if the image has no cells) or remove the image."
        )
    for image_id in sorted(maps_by_id.keys() - by_id.keys()):
        problems.add(
            f"{maps_by_id[image_id]}: a mask without an image; expected an image named "
            f"{image_id}. Add the image or remove the mask."
        )
    return Source(
        layout,
        [
            SourceImage(image_id, by_id[image_id], partial(_instances, by_id[image_id], path))
            for image_id, path in sorted(maps_by_id.items())
            if image_id in by_id
        ],
    )


def _split_paired(folder: Path, mask_filter: str) -> tuple[list[Path], list[Path]]:
    files = list_images(folder)
    maps = [path for path in files if path.stem.endswith(mask_filter)]
    images = [path for path in files if not path.stem.endswith((mask_filter, *OUTPUT_ENDINGS))]
    return images, maps


def _by_stem(files: list[Path], ending: str, problems: Problems) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in files:
        image_id = path.stem.removesuffix(ending)
        if image_id in found:
            problems.add(
                f"{path.parent}: {found[image_id].name} and {path.name} have the same id "
                f"{image_id!r}. Rename or remove one."
            )
        found[image_id] = path
    return found


def _nothing_found(folder: Path, mask_filter: str) -> str:
    return (
        f"{folder}: no annotated images found. Looked for train.csv with train/ (Kaggle layout), "
        f"for images/ with masks/, and for NAME.EXT beside NAME{mask_filter}.EXT "
        f"(EXT: {' '.join(IMAGE_SUFFIXES)}). Check the path, or name the folder of label maps "
        "with --masks."
    )


def _instances(image: Path, path: Path, shape: tuple[int, int]) -> Instances:
    masks = read_masks(path)
    if masks.shape != shape:
        raise DataError(
            f"{path}: the mask is {masks.shape[0]} x {masks.shape[1]} (height x width), its image "
            f"{image.name} is {shape[0]} x {shape[1]}. Export the mask again at the image's size."
        )
    return instances_from_labels(masks)

"""`cellflow prepare`: annotated images of any known layout to one dataset folder."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from cellflow.config import PrepareConfig, check_config
from cellflow.errors import DataError
from cellflow.io.dataset import Dataset, DatasetWriter
from cellflow.io.folders import read_folders
from cellflow.io.images import read_image
from cellflow.io.kaggle import is_kaggle_layout, read_kaggle
from cellflow.io.source import Problems, Source, SourceImage, check_id, read_image_table
from cellflow.storage.atomic import atomic_folder, restore_folder, what_stands
from cellflow.storage.config_file import write_config_file
from cellflow.storage.hashing import hash_array

__all__ = ["prepare"]

_log = logging.getLogger(__name__)


def prepare(config: PrepareConfig) -> Dataset:
    """Read annotated images, check everything, write a dataset folder.

    Parameters
    ----------
    config : PrepareConfig
        Source, target and names of columns.

    Returns
    -------
    Dataset
        The folder that was written.

    Raises
    ------
    DataError
        With up to 20 problems of the source at once; or if the target exists, cannot be written or
        lies around the source. In every case nothing half-written stays.
    """
    check_config(config)
    restore_folder(config.out)
    _check_target(config)
    problems = Problems()
    source = _with_table(_read_source(config, problems), config, problems)
    _check_ids(source, problems)
    try:
        with atomic_folder(config.out, replace=config.overwrite) as folder:
            _write(source, folder, problems)
            _keep_folds(config.out, folder)
            write_config_file(folder / "prepare.yaml", "prepare", config)
    except OSError as error:
        raise DataError(
            f"{config.out}: could not be written ({error.strerror or error}). "
            f"{what_stands(config.out)} Free some space or name another folder with --out."
        ) from error
    dataset = Dataset.open(config.out)
    _log.info(
        "%s: %d images, %d cells, from the layout %s",
        *(config.out, len(dataset), dataset.images["n_instances"].sum(), source.layout),
    )
    _warn_of_twins(dataset.images)
    _warn_of_foreground(dataset.images)
    return dataset


def _check_target(config: PrepareConfig) -> None:
    source, out = config.source, config.out
    if not source.is_dir():
        found = "a file" if source.exists() else "nothing there"
        raise DataError(f"{source}: expected a folder of annotated images, found {found}.")
    if source.resolve().is_relative_to(out.resolve()):
        raise DataError(f"{out}: the dataset cannot replace its own source. Choose another --out.")
    if not out.exists():
        return
    if not config.overwrite:
        raise DataError(
            f"{out} exists already. Add --overwrite to replace it, or choose another --out."
        )
    if not out.is_dir() or (any(out.iterdir()) and not (out / "dataset.json").is_file()):
        raise DataError(
            f"{out} is not a dataset folder, so --overwrite does not replace it. "
            "Choose another --out."
        )


def _read_source(config: PrepareConfig, problems: Problems) -> Source:
    if config.masks is None and is_kaggle_layout(config.source):
        return read_kaggle(
            config.source,
            problems,
            id_column=config.id_column,
            annotation_column=config.annotation_column,
            cell_type_column=config.cell_type_column,
        )
    return read_folders(config.source, problems, masks=config.masks, mask_filter=config.mask_filter)


def _with_table(source: Source, config: PrepareConfig, problems: Problems) -> Source:
    """Join the columns of --table, and call the column of cell types cell_type."""
    ids = {image.id for image in source.images}
    table: dict[str, dict[str, str]] = {}
    if config.table is not None:
        table = read_image_table(config.table, config.id_column, ids, problems)
    elif source.layout != "kaggle":
        for path in sorted(config.source.glob("*.csv")):
            _log.info("%s is not used; add --table %s to join it on the id", path, path)
    images = []
    for image in source.images:
        columns = {**image.columns, **table.get(image.id, {})}
        if config.cell_type_column in columns:
            columns["cell_type"] = columns.pop(config.cell_type_column)
        images.append(replace(image, columns=columns))
    return replace(source, images=images)


def _check_ids(source: Source, problems: Problems) -> None:
    seen: dict[str, str] = {}
    for image in source.images:
        wrong = check_id(image.id)
        if wrong:
            problems.add(f"{image.file}: {wrong}. Rename the image.")
        other = seen.setdefault(image.id.casefold(), image.id)
        if other != image.id:
            problems.add(
                f"{image.file}: the ids {other!r} and {image.id!r} differ in capitals only. "
                "Rename one: they would be one file on some computers."
            )


def _write(source: Source, folder: Path, problems: Problems) -> None:
    writer = DatasetWriter(folder)
    for image in tqdm(source.images, "prepare", unit="image", disable=None, leave=False):
        try:
            _add(image, writer)
        except DataError as error:
            problems.add(error)
    problems.raise_if_any()
    writer.finish(source.layout)


def _add(image: SourceImage, writer: DatasetWriter) -> None:
    pixels = read_image(image.file)
    instances = image.read_instances((pixels.shape[0], pixels.shape[1]))
    writer.add(image, pixels, instances, pixel_hash=hash_array(pixels))


def _keep_folds(old: Path, new: Path) -> None:
    """Carry the fold table over to a dataset of the same images; say so when it cannot be."""
    if not (old / "folds.csv").is_file():
        return
    try:
        same = Dataset.open(old).ids == sorted(path.stem for path in (new / "labels").iterdir())
    except DataError:
        same = False
    if not same:
        _log.warning("%s: its folds.csv was for other images and is gone", old)
        return
    for name in ("folds.csv", "folds.json"):
        if (old / name).is_file():
            shutil.copyfile(old / name, new / name)


def _warn_of_twins(images: pd.DataFrame) -> None:
    """Warn of images with the same pixels; `cellflow folds` keeps them together."""
    for _, group in images.groupby("pixel_hash"):
        if len(group) > 1:
            _log.warning(
                "The same image under %d names: %s. It counts more than once in training and "
                "scores; `cellflow folds` keeps its copies in one fold.",
                *(len(group), ", ".join(group.index)),
            )


def _warn_of_foreground(images: pd.DataFrame) -> None:
    if len(images) > 2 and (images["n_instances"] == 1).all():
        _log.warning(
            "Every image has exactly one cell. If the masks show foreground and background only, "
            "number the cells first: each needs a value of its own."
        )

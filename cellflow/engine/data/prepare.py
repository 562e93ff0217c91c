"""`cellflow prepare`: annotated images of any known layout to one dataset folder."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cellflow.config import FoldsConfig, PrepareConfig, ReadingConfig, check_config
from cellflow.engine.data.audited import AuditMarks, keep_decisions
from cellflow.engine.data.folds import group_column, groups_of
from cellflow.engine.data.mending import Mending
from cellflow.engine.data.twins import Look, other_forms, warn_of_twins
from cellflow.engine.runtime.progress_lines import follow
from cellflow.errors import ConfigError, DataError
from cellflow.io.dataset import Dataset, DatasetWriter, is_dataset
from cellflow.io.file_names import match_id
from cellflow.io.formats import ReadOptions, SourceFormat, find_format, read_source
from cellflow.io.formats.base import HOW
from cellflow.io.formats.dataset_folder import DatasetFolder
from cellflow.io.formats.elsewhere import unread_file
from cellflow.io.mask_findings import MaskReview
from cellflow.io.pixel_limit import at_most
from cellflow.io.problems import Problems
from cellflow.io.source import Source, SourceImage, check_ids
from cellflow.io.tables import read_rows
from cellflow.numeric.near_copies import fingerprint
from cellflow.storage.atomic import atomic_folder, restore_folder, what_stands
from cellflow.storage.config_file import write_config_file
from cellflow.storage.hashing import hash_array
from cellflow.storage.nearby import nearby
from cellflow.storage.sizes import few_text
from cellflow.types import Instances

__all__ = ["folds_flags", "pixels_and_cells", "prepare", "read_annotated"]

_log = logging.getLogger(__name__)

_SEPARATORS = re.compile(r"[\s_.-]+")


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

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from skimage.io import imsave
    >>> from cellflow import prepare, PrepareConfig
    >>> image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    >>> with TemporaryDirectory() as name:
    ...     folder = Path(name)
    ...     (folder / "cells").mkdir()
    ...     imsave(folder / "cells" / "a.png", image)
    ...     imsave(folder / "cells" / "a_masks.png", np.eye(8, dtype=np.uint8), check_contrast=False)
    ...     dataset = prepare(PrepareConfig(folder / "cells", out=folder / "data"))
    ...     dataset.ids, len(dataset.instances("a"))
    (['a'], 1)
    """
    check_config(config)
    with at_most(config.max_pixels):
        return _prepare(config)


def _prepare(config: PrepareConfig) -> Dataset:
    problems = Problems()
    _check_source(config)
    restore_folder(config.out)
    source = read_annotated(config, problems)
    _check_target(config, problems)
    marks = None if config.audit is None else AuditMarks(config.audit, Dataset.open(config.source))
    review, mending = MaskReview(), Mending(config.fixes, marks)
    try:
        with atomic_folder(config.out, replace=config.overwrite) as folder:
            flat = _write(source, folder, problems, review, mending)
            _keep_folds(config.out, folder, source)
            if marks is not None:
                marks.write_decisions(folder)
            elif source.layout == DatasetFolder.name:
                keep_decisions(source.path, folder)
            write_config_file(folder / "prepare.yaml", "prepare", config)
    except OSError as error:
        raise DataError(
            f"{config.out}: could not be written ({error.strerror or error}). "
            f"{what_stands(config.out)} Free some space or name another folder with --out.",
            path=config.out,
        ) from error
    dataset = Dataset.open(config.out)
    _log.info("%s: from the layout %s", config.out, source.layout)
    for line in mending.lines():
        _log.info(line)
    review.warn("--split makes every separate part a cell; cells that touch stay one.")
    warn_of_twins(dataset.images)
    if flat:
        _log.warning(
            "%d of %d images have one value only (%s): there is nothing to see in them. Export them again, "
            "or leave them out.",
            *(len(flat), len(dataset), few_text(flat)),
        )
    return dataset


def folds_flags(dataset: Dataset) -> str:
    """Flags of `cellflow folds` without which it would refuse this dataset, or nothing."""
    images = dataset.images
    n_groups = groups_of(images, group_column(images)).nunique()
    if n_groups == 1 < len(images):
        return f" --group id --k {min(FoldsConfig().k, len(images))}"
    return f" --k {n_groups}" if 1 < n_groups < FoldsConfig().k else ""


def read_annotated(config: ReadingConfig, problems: Problems) -> Source:
    """Images with their cells and columns, from any layout; `problems` takes what is wrong with single images.

    Raises
    ------
    DataError
        If nothing there can be read.
    ConfigError
        If an option was given that the format has no use for.
    """
    columns = ("id_column", "cell_type_column")
    given = {name: getattr(config, name) for name in (*HOW, *columns)}
    options = ReadOptions("prepare", problems=problems, **given)
    form = find_format(config.source, options)
    if form is None:
        raise _no_source(config.source)
    _refuse_unheeded(config, form)
    source = _with_table(read_source(config.source, options), config, problems)
    check_ids(source.images.values(), problems)
    return source


def _refuse_unheeded(config: ReadingConfig, form: SourceFormat) -> None:
    """Refuse options that would be passed over without a word."""
    usual = ReadingConfig(config.source)
    given = [name for name in HOW if getattr(config, name) != getattr(usual, name)]
    unheeded = [f"--{name}" for name in given if name not in form.heeds]
    if unheeded:
        them = "it" if len(unheeded) == 1 else "them"
        raise ConfigError(
            f"{config.source} is read as {form.name}, which has no use for {', '.join(unheeded)}. Leave {them} out."
        )


def _check_source(config: PrepareConfig) -> None:
    source = config.source
    if is_dataset(source):
        if not config.fix and config.audit is None:
            raise DataError(
                f"{source} is a dataset folder that `cellflow prepare` made already. "
                f"Go on with: cellflow folds --data {shlex.quote(str(source))}",
                path=source,
            )
        _ = Dataset.open(source).hash  # raises where its tables were changed
    elif config.audit is not None:
        raise ConfigError(
            f"--audit is for the dataset folder that was audited, found {source}, which is none. Name that "
            "dataset, as the page of the audit does.",
            path=source,
        )
    if source.resolve().is_relative_to(config.out.resolve()):
        raise DataError(
            f"{config.out}: the dataset cannot replace its own source. Choose another --out.",
            path=config.out,
        )


def _no_source(source: Path) -> DataError:
    found, remedy = "nothing there", nearby(source)
    if source.is_symlink():
        found, remedy = "a link that leads nowhere", " Name the folder itself."
    elif source.exists():
        found = "a file"
        folder = f" Name the folder it lies in: cellflow prepare {shlex.quote(str(source.parent))}"
        remedy = unread_file(source) or folder
    text = f"{source}: expected a folder of annotated images, found {found}.{remedy}"
    return DataError(text, path=source, found=found)


def _check_target(config: PrepareConfig, problems: Problems) -> None:
    """Refuse a target that is in the way; what is wrong with the source is reported first."""
    out = config.out
    if not out.exists():
        return
    if not config.overwrite:
        problems.raise_if_any()
        raise DataError(
            f"{out} exists already. Add --overwrite to replace it, or choose another --out.",
            path=out,
        )
    if not out.is_dir() or (any(out.iterdir()) and not is_dataset(out)):
        problems.raise_if_any()
        raise DataError(
            f"{out} is not a dataset folder, so --overwrite does not replace it. "
            "Choose another --out.",
            path=out,
        )


def _with_table(source: Source, config: ReadingConfig, problems: Problems) -> Source:
    """Join the columns of --table, and call the column of cell types cell_type."""
    table: dict[str, dict[str, str]] = {}
    if config.table is not None:
        table = _read_table(config.table, config.id_column, set(source.images), problems)
    elif source.layout not in ("kaggle", DatasetFolder.name):
        for path in sorted(config.source.glob("*.csv")):
            _log.info("%s is not used; add --table %s to join it on the id", path, path)
    images, computed = {}, Dataset.computed_columns if source.layout == DatasetFolder.name else ()
    for name, image in source.images.items():
        columns = {key: text for key, text in image.columns.items() if key not in computed}
        columns |= table.get(name, {})
        if config.cell_type_column in columns:
            columns["cell_type"] = columns.pop(config.cell_type_column)
        images[name] = replace(image, columns=columns)
    _tell_of_types(images.values())
    return replace(source, images=images)


def _read_table(
    path: Path, id_column: str, ids: set[str], problems: Problems
) -> dict[str, dict[str, str]]:
    """Other columns of a table of one row per image, by id; unknown, repeated and missing ids are problems."""
    table: dict[str, dict[str, str]] = {}
    for row in read_rows(path, (id_column,), options={id_column: "--id_column"})[1]:
        text = row.values.pop(id_column)
        image_id = match_id(text, ids)
        if image_id is None:
            problems.add(
                f"{path} line {row.line}: unknown id {text!r}: no image of that name. "
                "Remove the row or add the image.",
                text,
            )
        elif image_id in table:
            problems.add(f"{path} line {row.line}: the id {text!r} has a row already.", text)
        else:
            table[image_id] = row.values
    for image_id in sorted(ids - table.keys()):
        problems.add(f"{path}: the image {image_id} has no row. Add one.", image_id)
    return table


def _tell_of_types(images: Iterable[SourceImage]) -> None:
    """Say where a column that is not taken looks like that of the cell types, but for its spelling."""
    columns = {name for image in images for name in image.columns}
    plain = {name: _SEPARATORS.sub("", name).lower() for name in sorted(columns)}
    alike = [name for name, text in plain.items() if text in ("celltype", "celltypes")]
    if "cell_type" not in columns and alike:
        _log.warning(
            "The column %r looks like cell types and is kept as any other. If it holds them: "
            "--cell_type_column %s",
            *(alike[0], shlex.quote(alike[0])),
        )


def _write(
    source: Source, folder: Path, problems: Problems, review: MaskReview, mending: Mending
) -> list[str]:
    """Write all images; returns the ids of those of one value only."""
    writer, flat, seen = DatasetWriter(folder), list[str](), dict[str, Look]()
    for image in follow(source.images.values(), "prepare", brief=True):
        if not image.has_pixels and len(problems):
            continue  # whoever looked for them has told it
        try:
            pixels, instances = pixels_and_cells(image)
            instances = review.add(image.id, mending.apply(image.id, instances))
            seen[image.id] = Look(hash_array(pixels), fingerprint(pixels))
            writer.add(image, pixels, instances, pixel_hash=seen[image.id].pixel_hash)
            if (pixels == pixels[:1, :1]).all():
                flat.append(image.id)
        except DataError as error:
            problems.add(error, image.id)
    problems.raise_if_any()
    writer.finish(source.layout, other_forms(seen))
    return flat


def pixels_and_cells(image: SourceImage) -> tuple[NDArray[Any], Instances]:
    """Read an image with its cells; refused are those on another number of rows and columns than the image has."""
    pixels = image.pixels()
    instances = image.instances((pixels.shape[0], pixels.shape[1]))
    shape, cells = pixels.shape[:2], instances.shape
    if shape != cells:
        raise DataError(
            f"{image.path}: the cells of {image.id} are on {cells[0]} x {cells[1]} pixels (height x width), "
            f"the image has {shape[0]} x {shape[1]}.",
            path=image.path, id=image.id, expected=shape, found=cells,
        )  # fmt: skip
    return pixels, instances


def _keep_folds(old: Path, new: Path, source: Source) -> None:
    """Carry the fold table over to a dataset of the same images; say so when it cannot be."""
    if source.layout == DatasetFolder.name:
        old = source.path
    if not (old / "folds.csv").is_file():
        return
    try:
        before = Dataset.open(old).ids
    except DataError:
        before = []
    now = sorted(path.stem for path in (new / "labels").iterdir())
    if before != now:
        gone, added = sorted(set(before) - set(now)), sorted(set(now) - set(before))
        _log.warning(
            "%s: its folds.csv was for other images and is gone (no longer there: %s; new: %s). "
            "Make new folds with `cellflow folds`.",
            *(old, few_text(gone) or "none", few_text(added) or "none"),
        )
        return
    for name in ("folds.csv", "folds.json"):
        if (old / name).is_file():
            shutil.copyfile(old / name, new / name)

"""Images beside the annotated ones, and targets that models made: what of them a fold may be trained on."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellflow.config import TrainConfig
from cellflow.engine.training.sample_cache import (
    Cached,
    CachedSamples,
    cache_all,
    cache_array,
    cache_folder,
    field_target,
    label_target,
    network_image,
    stored_diameter,
)
from cellflow.errors import DataError, LeakError
from cellflow.io.dataset import Dataset
from cellflow.io.target_folder import ALL, TargetFolder
from cellflow.storage.sizes import few_text, plural

__all__ = [
    "NO_SAMPLES",
    "check_targets",
    "extra_samples",
    "target_facts",
    "taught_samples",
]

_VERSION = 1
NO_SAMPLES = CachedSamples((), (), (), ())

_log = logging.getLogger(__name__)


def check_targets(config: TrainConfig, dataset: Dataset, wanted: list[int]) -> None:
    """Check that no model which has seen a fold's validation images had a part in what the fold is trained on.

    Parameters
    ----------
    config : TrainConfig
        Names the folder of targets, if any.
    dataset : Dataset
        Images, cells and folds.
    wanted : list of int
        Folds to train.

    Raises
    ------
    LeakError
        If a teacher of a fold's targets was trained for another fold, split or dataset, or an image is one
        of the dataset.
    DataError
        If the folder cannot be used, or has nothing for a fold.
    """
    if config.pseudo is None:
        return
    targets = TargetFolder.open(config.pseudo)
    split = dataset.folds_hash()
    if targets.is_final and not config.is_final:
        raise DataError(
            f"--pseudo {targets.path} is for one network on all images: its teachers have seen those of all folds. "
            "Train it with --fold none.",
            path=targets.path, expected=("none",), found=config.fold,
        )  # fmt: skip
    if config.is_final and not targets.is_final:
        raise DataError(
            f"--fold none learns from all images, but --pseudo {targets.path} has other targets for each fold. Make "
            "one set with all models: cellflow distil RUN --final.",
            path=targets.path, expected=[ALL], found=targets.parts,
        )  # fmt: skip
    known = dict(zip(dataset.images["pixel_hash"], dataset.ids, strict=True))
    for fold in wanted:
        part = targets.part(fold)
        teachers = targets.teachers(part) if part in targets.parts else []
        if not teachers:
            raise DataError(
                f"--pseudo {targets.path}: expected targets for fold {fold}, found those of "
                f"{few_text(targets.parts)}. Make them with all folds of a run that is trained on this split.",
                path=targets.path, expected=part, found=targets.parts,
            )  # fmt: skip
        for teacher in teachers:
            differ = [
                f"{what} is {found} in place of {expected}"
                for what, found, expected in (
                    ("fold", teacher.fold, teacher.fold if targets.is_final else fold),
                    ("data hash", teacher.data_hash, dataset.hash),
                    ("hash of the split", teacher.folds_hash, split),
                )
                if found != expected
            ]
            if differ:
                raise LeakError(
                    f"--pseudo {targets.path}: the targets for fold {fold} were made by {teacher.run} fold "
                    f"{teacher.fold} ({teacher.hash}), which may have seen images that fold {fold} validates on: "
                    f"{'; '.join(differ)}. Make them with a run of this data and split: cellflow pseudo RUN "
                    "--images FOLDER",
                    path=targets.path, expected=fold, found=teacher.fold,
                )  # fmt: skip
        for name, marks in targets.table(part)["pixel_hash"].items():
            if marks in known:
                raise LeakError(
                    f"--pseudo {targets.path}: the image {name!r} is {known[marks]!r} of {dataset.path}.",
                    path=targets.path, id=str(name),
                )  # fmt: skip


def extra_samples(config: TrainConfig, fold: int, dataset: Dataset) -> CachedSamples:
    """Samples of the images beside the annotated ones; none where no folder names any.

    Raises
    ------
    DataError
        If an image or a target is not what was written.
    """
    if config.pseudo is None:
        return NO_SAMPLES
    targets = TargetFolder.open(config.pseudo)
    part = targets.part(fold)
    table = targets.table(part)
    least = max(1, config.sampling.min_train_masks)
    enough = table.index[table["cells"] >= least]
    fewer = f"; {len(table) - len(enough)} have fewer than {least} cells (--min_train_masks)"
    if len(table):  # a student may learn from the annotated images alone
        _log.log(
            logging.INFO if len(enough) else logging.WARNING,
            "fold %d: %s of %s train too%s",
            *(fold, plural(len(enough), "image"), targets.path),
            fewer if len(enough) < len(table) else "",
        )
    make = partial(_extra, _Job(targets, part, cache_folder(dataset.path), *config.model.channels))
    return cache_all([str(name) for name in enough], make)


def taught_samples(
    config: TrainConfig, fold: int, dataset: Dataset, training: CachedSamples
) -> CachedSamples:
    """The annotated images with what models made of them in place of their labels, where there is that."""
    if config.pseudo is None:
        return training
    targets = TargetFolder.open(config.pseudo)
    part = targets.part(fold)
    known = set(targets.table(part, annotated=True).index)
    job = _Job(targets, part, cache_folder(dataset.path), *config.model.channels)
    paths = [
        _taught(job, name, diameter) if name in known else target
        for name, target, diameter in zip(
            training.ids, training.targets, training.diameters, strict=True
        )
    ]
    return replace(training, targets=tuple(paths))


def target_facts(config: TrainConfig, fold: int) -> dict[str, str]:
    """What a model's record says of the targets it was trained on; empty where there are none."""
    if config.pseudo is None:
        return {}
    targets = TargetFolder.open(config.pseudo)
    part = targets.part(fold)
    return {"name": targets.name, "kind": targets.kind, "part": part, "hash": targets.hash(part)}


class _Job(NamedTuple):
    """Whose samples are made, and how."""

    targets: TargetFolder
    part: str
    cache: Path
    chan: int
    chan2: int


def _extra(job: _Job, name: str) -> Cached:
    """Files of an image beside the annotated ones."""
    row = job.targets.table(job.part).loc[name].to_dict()
    diameter = float(row["diameter"])

    def make() -> NDArray[np.void]:
        if job.targets.kind == "labels":
            return label_target(*job.targets.labels(job.part, name))
        return field_target(job.targets.flows(job.part, name, annotated=False), diameter)

    image = cache_array(
        job.cache,
        ["extra image", _VERSION, row["pixel_hash"], job.chan, job.chan2],
        lambda: network_image(job.targets.image(name), job.chan, job.chan2),
    )
    key = ["extra target", _VERSION, job.targets.kind, row["target_hash"], diameter]
    target = cache_array(job.cache, key, make)
    return Cached(image, target, stored_diameter(target))


def _taught(job: _Job, name: str, diameter: float) -> Path:
    """Target of an annotated image as models see it."""
    row = job.targets.table(job.part, annotated=True).loc[name].to_dict()
    return cache_array(
        job.cache,
        ["taught target", _VERSION, row["target_hash"], diameter],
        lambda: field_target(job.targets.flows(job.part, name, annotated=True), diameter),
    )

"""Flow-averaged prediction of all fold models of one or more runs."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from cellflow.config import EnsembleConfig, MaskConfig, MaskOverrides, check_config
from cellflow.engine.machine import Machine, choose_machine
from cellflow.engine.runs import check_models, run_mask, versions
from cellflow.engine.segment import Member, Prediction, Segmenter, load_member
from cellflow.errors import DataError, RunError
from cellflow.io.dataset import Dataset
from cellflow.io.images import list_images, read_image, write_labels
from cellflow.io.submission import write_submission
from cellflow.numeric.normalize import select_channels
from cellflow.numeric.rle import rles_from_labels
from cellflow.storage.atomic import atomic_folder, write_json
from cellflow.storage.run_folder import RunFolder, find_run

__all__ = ["EnsembleResult", "ensemble", "find_images"]

_log = logging.getLogger(__name__)

MAX_PROBLEMS = 20

ImageReaders = dict[str, Callable[[], NDArray[Any]]]


@dataclass(frozen=True)
class EnsembleResult:
    """Where the results of an ensemble lie.

    Attributes
    ----------
    submission : Path
        CSV with a row per cell.
    masks : Path
        Folder of label TIFFs.
    cells : dict of str to int
        Cells found per image.
    members : int
        Number of networks averaged.
    """

    submission: Path
    masks: Path
    cells: dict[str, int]
    members: int


def ensemble(config: EnsembleConfig) -> EnsembleResult:
    """Average the flows of all members at native size, make masks once, write TIFFs and a submission.

    Raises
    ------
    RunError, DataError, CheckpointError
        If a run is incomplete, members do not fit together, or an image cannot be read. Nothing is
        written then.
    """
    check_config(config)
    runs = [find_run(name, config.runs_dir) for name in config.runs or (None,)]
    name = config.name or "+".join(run.name for run in runs)
    record = config.ensembles_dir / name / "ensemble.json"
    _check_free([config.out / name, record], overwrite=config.overwrite)
    mask = _common_mask(runs, config.mask)
    readers = find_images(config.images)
    machine = choose_machine(config.runtime)
    members = [m for run in runs for m in _members(run, machine.device, config.unfinished)]
    segmenter = Segmenter(
        members, mask, amp=machine.amp, batch_size=config.batch_size, diameter=config.diameter
    )
    _check_images(readers, members[0])
    _warn_of_training_data(config.images, members)
    _log.info("%d images, %d members of %s", len(readers), len(members), name)
    goal = config.out / name
    cells: dict[str, int] = {}
    with (
        atomic_folder(goal, replace=config.overwrite) as folder,
        closing(_predict(segmenter, readers, folder / "masks", cells)) as predictions,
    ):
        write_submission(folder / "submission.csv", predictions)
    write_json(record, _record(config, segmenter, machine, cells))
    if not sum(cells.values()):
        _log.warning("no cell was found in any image; a lower --cellprob_threshold finds more")
    _log.info("thresholds are those of single models: not calibrated for the ensemble")
    return EnsembleResult(goal / "submission.csv", goal / "masks", cells, len(members))


def find_images(source: Path) -> ImageReaders:
    """Images of a dataset folder, a folder or a file, as id and a function that reads it.

    Raises
    ------
    DataError
        If there is none, or two files of a folder have the same id.
    """
    if (source / "dataset.json").is_file():
        dataset = Dataset.open(source)
        return {name: lambda name=name: dataset.image(name) for name in dataset.ids}  # type: ignore[misc]
    if source.is_file():
        paths = [source]
    elif source.is_dir():
        paths = list_images(source)
    else:
        raise DataError(f"--images {source}: no such file or folder.")
    if not paths:
        raise DataError(f"--images {source}: no images in this folder (png, tif, jpg, bmp).")
    readers: ImageReaders = {}
    for path in paths:
        if path.stem in readers:
            raise DataError(
                f"{source} has two images with the id {path.stem!r}; ids are names without ending."
            )
        readers[path.stem] = lambda path=path: read_image(path)  # type: ignore[misc]
    return readers


def _check_free(paths: list[Path], *, overwrite: bool) -> None:
    for path in paths:
        if path.exists() and not overwrite:
            raise DataError(
                f"{path} exists already. Choose another --name, or add --overwrite to replace it."
            )


def _common_mask(runs: list[RunFolder], overrides: MaskOverrides) -> MaskConfig:
    """Thresholds that were given, and those that all runs were trained with."""
    masks = [overrides.apply(run_mask(run)) for run in runs]
    if len(set(masks)) > 1:
        found = "; ".join(f"{run.name}: {mask}" for run, mask in zip(runs, masks, strict=True))
        raise RunError(
            f"The runs were trained with different thresholds ({found}). Say which ones to use: "
            "--cellprob_threshold, --flow_threshold, --min_size and --niter."
        )
    return masks[0]


def _check_images(readers: ImageReaders, member: Member) -> None:
    """Read every image once before the network starts, so that a bad one costs seconds, not hours."""
    problems = []
    for name, read in tqdm(readers.items(), "reading", unit="image", disable=None, leave=False):
        try:
            select_channels(read(), member.chan, member.chan2)
        except DataError as error:
            problems.append(f"{name}: {error}")
    if problems:
        rest = len(problems) - MAX_PROBLEMS
        more = [f"and {rest} more"] if rest > 0 else []
        title = f"{len(problems)} of {len(readers)} images cannot be used:"
        raise DataError("\n".join([title, *problems[:MAX_PROBLEMS], *more]))


def _warn_of_training_data(source: Path, members: list[Member]) -> None:
    if not (source / "dataset.json").is_file():
        return
    data_hash = Dataset.open(source).hash
    if any(member.facts.get("data_hash") == data_hash for member in members):
        _log.warning(
            "these models were trained on images in %s, so what they predict there says nothing of "
            "images they have not seen; for that use: cellflow oof",
            source,
        )


def _members(run: RunFolder, device: torch.device, unfinished: bool) -> list[Member]:
    """All fold models of a run."""
    models = check_models(run, unfinished=unfinished)
    return [load_member(path, f"{run.name} fold {fold}", device) for fold, path in models.items()]


def _predict(
    segmenter: Segmenter, readers: ImageReaders, masks: Path, cells: dict[str, int]
) -> Generator[tuple[str, list[str]], None, None]:
    """Segment image after image, write their masks and count their cells; yields the submission's rows."""

    def finish(name: str, result: Prediction) -> tuple[str, int, list[str]]:
        write_labels(masks / f"{name}.tif", result.labels)
        return name, int(np.max(result.labels, initial=0)), rles_from_labels(result.labels)

    images = ((name, read()) for name, read in readers.items())
    with closing(segmenter.stream(images, finish)) as stream:
        for name, count, rles in tqdm(
            stream, "ensemble", len(readers), unit="image", disable=None, leave=False
        ):
            cells[name] = count
            yield name, rles


def _record(
    config: EnsembleConfig, segmenter: Segmenter, machine: Machine, cells: dict[str, int]
) -> dict[str, Any]:
    """What made the predictions."""
    return {
        "members": [
            {"name": m.name, "hash": m.hash, "diameter": config.diameter or m.diam_labels}
            for m in segmenter.members
        ],
        "mask": dataclasses.asdict(segmenter.mask) | {"calibrated_for_ensemble": False},
        "machine": machine.describe(),
        "images": {"source": str(config.images), "cells": cells},
        "versions": versions(),
    }

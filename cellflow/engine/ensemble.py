"""Flow-averaged prediction of all fold models of one or more runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cellflow.config import EnsembleConfig, check_config, config_to_dict
from cellflow.engine.runs import check_models, versions
from cellflow.engine.segment import Member, Segmenter, load_member
from cellflow.engine.train import choose_machine
from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.io.images import list_images, read_image, write_labels
from cellflow.io.submission import write_submission
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
    readers = find_images(config.images)
    _check_readable(readers)
    runs = [find_run(name, config.runs_dir) for name in config.runs or (None,)]
    machine = choose_machine(config.runtime)
    members = [member for run in runs for member in _members(run, machine.device)]
    segmenter = Segmenter(
        members,
        config.mask,
        amp=machine.amp,
        batch_size=config.batch_size,
        diameter=config.diameter,
    )
    name = config.name or "+".join(run.name for run in runs)
    _log.info(
        "%d images, %d members of %s", len(readers), len(members), ", ".join(r.name for r in runs)
    )
    goal = config.out / name
    cells: dict[str, int] = {}
    with atomic_folder(goal, replace=config.overwrite) as folder:
        predictions = _predict(segmenter, readers, folder / "masks", cells)
        write_submission(folder / "submission.csv", predictions)
    write_json(config.ensembles_dir / name / "ensemble.json", _record(config, members))
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


def _check_readable(readers: ImageReaders) -> None:
    """Read every image once before the network starts, so that a bad one costs seconds, not hours."""
    problems = []
    for read in tqdm(readers.values(), desc="reading", unit="image", disable=None, leave=False):
        try:
            read()
        except DataError as error:
            problems.append(str(error))
    if problems:
        shown = problems[:MAX_PROBLEMS]
        more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
        raise DataError("\n".join([f"{len(problems)} images cannot be read:", *shown, *more]))


def _members(run: RunFolder, device: Any) -> list[Member]:
    """All fold models of a run."""
    models = check_models(run)
    return [load_member(path, f"{run.name} fold {fold}", device) for fold, path in models.items()]


def _predict(
    segmenter: Segmenter, readers: ImageReaders, masks: Path, cells: dict[str, int]
) -> Iterator[tuple[str, list[str]]]:
    """Segment image after image; yields the rows of the submission."""
    for name, read in tqdm(
        readers.items(), desc="ensemble", unit="image", disable=None, leave=False
    ):
        labels = segmenter.predict(read()).labels
        write_labels(masks / f"{name}.tif", labels)
        cells[name] = int(np.max(labels, initial=0))
        yield name, rles_from_labels(labels)


def _record(config: EnsembleConfig, members: list[Member]) -> dict[str, Any]:
    return {
        "members": [{"name": m.name, "hash": m.hash, "diameter": m.diam_labels} for m in members],
        "thresholds": config_to_dict(config)["mask"] | {"calibrated_for_ensemble": False},
        "diameter": config.diameter,
        "versions": versions(),
    }

"""The passes over a run's images, in this process or on workers: what a task needs, and what it does."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.config import MaskConfig, OofConfig
from cellflow.config.shared import Policy
from cellflow.engine.runs.contents import (
    check_has_honest_score,
    check_models,
    run_dataset,
    run_folds,
    run_mask,
)
from cellflow.engine.runtime.kept import once
from cellflow.engine.runtime.machine import Machine, choose_machine
from cellflow.engine.runtime.progress_lines import follow
from cellflow.engine.runtime.scheduler import Outcome, Scheduler, open_scheduler
from cellflow.engine.runtime.shared_folder import shared_folder
from cellflow.engine.segmentation.member import Member, load_member
from cellflow.engine.segmentation.result import Prediction
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.engine.segmentation.styles import (
    fit_style_models,
    read_style_models,
    write_style_models,
)
from cellflow.engine.validation.oof_tables import OofImage, oof_score_row
from cellflow.errors import CellflowError, CheckpointError
from cellflow.io.dataset import Dataset
from cellflow.io.flow_store import FlowStore
from cellflow.io.fold_table import RESERVED
from cellflow.io.images import write_labels
from cellflow.numeric.rle import rles_from_labels
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import RunFolder
from cellflow.style_models import StyleModels

__all__ = ["OofJob", "OofWorkers", "open_job", "open_workers"]

_log = logging.getLogger(__name__)

PARTS_PER_WORKER = 4
"""Tasks of a pass for each worker, so that none waits long for the last one."""


@dataclass(frozen=True)
class OofJob:
    """What is predicted with what."""

    run: RunFolder
    dataset: Dataset
    folds: pd.Series[int]
    models: dict[int, Path]
    mask: MaskConfig
    config: OofConfig
    machine: Machine

    def member(self, fold: int, styles: StyleModels | None = None) -> Member:
        """The model of a fold."""
        name = f"{self.run.name} fold {fold}"
        return load_member(self.models[fold], name, self.machine, styles=styles)

    def names(self, fold: int) -> list[str]:
        """Images that a fold validates on."""
        return [str(name) for name in self.folds.index if self.folds[name] == fold]


def open_job(run: RunFolder, config: OofConfig) -> OofJob:
    """The run with its data and models, on this machine."""
    dataset = run_dataset(run, config.data)
    models = check_models(run, unfinished=config.unfinished)
    for path in models.values():
        check_has_honest_score(path)
    return OofJob(
        run,
        dataset,
        run_folds(run, dataset),
        models,
        config.mask.apply(run_mask(run)),
        config,
        choose_machine(config.runtime),
    )


class OofWorkers:
    """Where style models are fitted and images predicted: here, one fold after the other."""

    def __init__(self, job: OofJob) -> None:
        self.job = job

    def fit_styles(self) -> None:
        """Fit the style models of every fold, unless that was done before."""
        for fold in self.job.models:
            _style_models(self.job, fold)

    def type_factor(self) -> float | None:
        """Spread of the style models' estimates over all images, as an ensemble of all folds takes it."""
        found = [_style_models(self.job, fold) for fold in self.job.models]
        factors = [item.type_factor for item in found if item is not None and item.type_factor]
        return max(factors, default=None)

    def predict(self, policy: Policy, folder: Path) -> list[OofImage]:
        """One pass over all images, in the order of the folds; flows and masks go into the folder."""
        FlowStore(folder / "flows.zarr", mode="w")
        (folder / "masks").mkdir(exist_ok=True)
        return [
            item
            for fold in self.job.models
            for item in _predict_names(self.job, policy, fold, self.job.names(fold), folder)
        ]


class _Tasks(OofWorkers):
    """The same by tasks of a scheduler: a fold, or some images of one."""

    def __init__(self, job: OofJob, scheduler: Scheduler) -> None:
        super().__init__(job)
        self._scheduler = scheduler
        config = job.config
        self._config = replace(
            config,
            run=str(job.run.path.absolute()),
            data=None if config.data is None else config.data.absolute(),
            runs_dir=config.runs_dir.absolute(),
            scheduler=None,
        )

    def fit_styles(self) -> None:
        tasks = {f"fold {fold}": (self._config, fold) for fold in self.job.models}
        self._run(_fit_task, tasks, "style models", "fold")

    def predict(self, policy: Policy, folder: Path) -> list[OofImage]:
        FlowStore(folder / "flows.zarr", mode="w")
        (folder / "masks").mkdir(exist_ok=True)
        count = sum(len(self.job.names(fold)) for fold in self.job.models)
        size = math.ceil(count / (PARTS_PER_WORKER * max(1, self._scheduler.workers)))
        tasks = {
            f"fold {fold}, images {start + 1} to {min(start + size, len(names))}": (
                self._config, policy, fold, names[start : start + size], folder.absolute(),
            )
            for fold in self.job.models
            for names in [self.job.names(fold)]
            for start in range(0, len(names), size)
        }  # fmt: skip
        weight = {name: len(task[3]) for name, task in tasks.items()}
        done = self._run(_predict_task, tasks, f"policy {policy}", "image", weight).done
        return [item for name in tasks for item in done[name]]

    def _run(
        self,
        function: Callable[..., Any],
        tasks: Mapping[str, tuple[Any, ...]],
        title: str,
        unit: str,
        weight: Mapping[str, int] | None = None,
    ) -> Outcome:
        resources = None if self.job.config.runtime.device == "cpu" else {"GPU": 1.0}
        outcome = self._scheduler.run(
            function,
            tasks,
            title=title,
            unit=unit,
            weight=weight,
            resources=resources,
        )
        if outcome.failed:
            raise CellflowError("\n".join(str(error) for error in outcome.failed.values()))
        return outcome


@contextmanager
def open_workers(job: OofJob) -> Iterator[OofWorkers]:
    """Where the config says that a job is to be done."""
    if not job.config.scheduler:
        yield OofWorkers(job)
        return
    with (
        open_scheduler(job.config.scheduler) as scheduler,
        shared_folder(scheduler, job.run.path),
    ):
        yield _Tasks(job, scheduler)


def _kept_job(config: OofConfig) -> OofJob:
    """The job, as this worker keeps it."""
    return once(("oof", repr(config)), lambda: open_job(RunFolder(Path(str(config.run))), config))


def _fit_task(config: OofConfig, fold: int) -> None:
    _style_models(_kept_job(config), fold)


def _predict_task(
    config: OofConfig, policy: Policy, fold: int, names: Sequence[str], folder: Path
) -> list[OofImage]:
    return _predict_names(_kept_job(config), policy, fold, names, folder)


def _style_models(job: OofJob, fold: int) -> StyleModels | None:
    """Those of a fold's model, fitted on its training images unless that was done before."""
    path, wanted = job.run.fold(fold).styles, hash_file(job.models[fold])
    if path.exists():
        with suppress(CheckpointError):  # a damaged file is made again
            stored = read_style_models(path)
            if stored.model_hash == wanted and (
                stored.type_factor is not None or len(stored.type_diameters) < 2
            ):
                return stored
    training = [str(name) for name in job.folds.index if job.folds[name] not in (RESERVED, fold)]
    models = fit_style_models(
        job.member(fold), job.dataset, training, held_out=job.names(fold),
        batch_size=job.config.batch_size,
    )  # fmt: skip
    if models is not None:
        write_style_models(path, models)
    return models


def _unseen_styles(job: OofJob, fold: int) -> StyleModels | None:
    """Those of a fold's model, with the spread of estimates on the images of the other folds.

    Its own images are to be predicted, and whether one of them is unlike the others must not be taken from it.
    """
    models = _style_models(job, fold)
    others = [_style_models(job, other) for other in job.models if other != fold]
    factors = [item.type_factor for item in others if item is not None and item.type_factor]
    return replace(models, type_factor=max(factors)) if models and factors else models


def _predict_names(
    job: OofJob, policy: Policy, fold: int, names: Sequence[str], folder: Path
) -> list[OofImage]:
    """Predict, write and score images of a fold with the model that never saw them."""
    segmenter = Segmenter(
        [job.member(fold, _unseen_styles(job, fold))],
        job.mask,
        batch_size=job.config.batch_size,
        diameter=job.config.diameter,
        policy=policy,
    )
    member, store = segmenter.members[0], FlowStore(folder / "flows.zarr", mode="a")
    epoch = member.facts["epoch"]
    _log.info("fold %d: %d images with the model of epoch %g", fold, len(names), epoch)

    def finish(name: str, result: Prediction) -> OofImage:
        facts = {"fold": fold, "model_hash": member.hash, "diameter": result.diameter}
        store.write(name, result.flow, result.cellprob, **facts)
        write_labels(folder / "masks" / f"{name}.tif", result.labels)
        scores = oof_score_row(job.dataset, name, member, result)
        return OofImage(name, rles_from_labels(result.labels), scores)

    images = ((name, job.dataset.image(name)) for name in names)
    with closing(segmenter.stream(images, finish)) as stream:
        return list(follow(stream, f"fold {fold}", len(names)))

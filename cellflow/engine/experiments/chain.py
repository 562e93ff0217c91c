"""The whole chain for one experiment."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cellflow.config import (
    CalibrateConfig,
    ChainConfig,
    EnsembleConfig,
    FilesConfig,
    FoldsConfig,
    InferenceConfig,
    NotebookConfig,
    OofConfig,
    OutputConfig,
    PublishConfig,
    TrainConfig,
    check_config,
    chosen,
)
from cellflow.engine.data.folds import check_split, load_folds, split_text, validation_folds
from cellflow.engine.data.make_folds import make_folds, split_dataset
from cellflow.engine.prediction.ensemble import EnsembleResult, ensemble
from cellflow.engine.publishing.notebook import write_notebook
from cellflow.engine.publishing.publish import Publication, plan_publication, publish
from cellflow.engine.runs.contents import run_mask
from cellflow.engine.runs.identity import check_run
from cellflow.engine.runs.run_records import find_oof_record
from cellflow.engine.runs.start_file import start_file
from cellflow.engine.runs.tracked_command import tracked
from cellflow.engine.training.debug_run import debug_config
from cellflow.engine.training.fold_result import FoldResult
from cellflow.engine.training.recipe import settled_config
from cellflow.engine.training.start_network import start_model
from cellflow.engine.training.train import train
from cellflow.engine.training.trainable import check_trainable
from cellflow.engine.validation.calibrate import CalibrationResult, calibrate
from cellflow.engine.validation.oof import oof
from cellflow.errors import CellflowError, CheckpointError
from cellflow.io.dataset import Dataset
from cellflow.io.image_source import find_images
from cellflow.storage.atomic import write_text
from cellflow.storage.config_file import write_config_file
from cellflow.storage.hashing import hash_file
from cellflow.storage.locks import hold_lock
from cellflow.storage.run_folder import RunFolder, debug_name
from cellflow.types import one_line

__all__ = ["ChainResult", "chain_problems", "debug_images", "run_chain"]

_log = logging.getLogger(__name__)


@one_line
@dataclass(frozen=True, eq=False)
class ChainResult:
    """What a chain gave; what comes after a training that ran out of time is None.

    Attributes
    ----------
    folds : list of FoldResult
        Of the training.
    calibration : CalibrationResult or None
        Thresholds and cross-validation.
    ensemble : EnsembleResult or None
        Where images were given.
    publication : Publication or None
        Where the run was to be published; of a debug run what would have been.
    notebook : Path or None
        Where one was to be written.
    """

    folds: list[FoldResult]
    calibration: CalibrationResult | None = None
    ensemble: EnsembleResult | None = None
    publication: Publication | None = None
    notebook: Path | None = None


def run_chain(config: ChainConfig) -> ChainResult:
    """Folds, training of all of them, out-of-fold predictions, calibration, ensemble, publication.

    The same call again goes on: folds that are there are kept, finished trainings skipped, out-of-fold
    predictions of the same models kept, and the ensemble goes on image by image.

    Raises
    ------
    CellflowError
        What the steps raise.

    Examples
    --------
    A try of it all with few images and steps, before the experiment itself, which has no ``debug``:

    >>> from pathlib import Path
    >>> from cellflow import ChainConfig, TrainConfig, run_chain
    >>> training = TrainConfig(name="first", debug=True)
    >>> result = run_chain(ChainConfig(images=(Path("images"),), policy="dataset", train=training))
    >>> [fold.finished for fold in result.folds]
    ['epochs', 'epochs']
    >>> result.ensemble.folder.as_posix(), len(result.ensemble.cells)
    ('predictions/first-debug', 6)
    """
    check_config(config)
    config = replace(config, train=settled_config(config.train))
    if config.images:  # a wrong path is not to show after the training
        find_images(config.images, **config.files.search, log=None)
    check_config(_wanted_split(config))
    check_split(config.train.data, k=config.k, group=config.group, calibration=config.calibration)
    if config.train.debug:
        config = replace(config, train=debug_config(config.train, folds=_wanted_split(config).k))
    training = config.train
    run = RunFolder(training.runs_dir / training.name)
    _make_folds(config)
    _check_run(training)
    with (
        hold_lock(run.lock, f"Run {run.name!r}"),
        tracked(
            run, "the experiment", tracking=training.tracking, ensembles_dir=config.ensembles_dir
        ),
    ):
        write_config_file(run.settings("run"), "run", config)
        folds = train(training)
        if not all(item.finished for item in folds):
            _log.info("time is up; the same command goes on")
            return ChainResult(folds)
        calibration = _cross_validate(config, run)
        return ChainResult(
            folds,
            calibration,
            _predict(config, run),
            _publish(config, run),
            _write_notebook(config, run),
        )


def chain_problems(config: ChainConfig) -> list[str]:
    """What would end a chain before or while it trains, as far as that can be known; nothing is written.

    Looks at the images to predict, the data and its files, channels, folds and their settings, the start
    model, and what a run of that name was started with.
    """
    training, problems = config.train, list[str]()
    try:
        training = settled_config(training, say=False)
    except CellflowError as error:
        return [str(error)]
    if training.debug:  # which leaves no image out
        sampling = replace(training.sampling, min_train_masks=0)
        training = replace(training, sampling=sampling, name=debug_name(training.name))
    folds = [0]
    try:
        folds = _check_data(replace(config, train=training))
    except CellflowError as error:
        problems.append(str(error))
    others: list[Callable[[], object]] = []
    if config.images:
        others.append(partial(find_images, config.images, **config.files.search, log=None))
    if training.model.is_pretrained:
        others.append(partial(_check_start, training, folds))
    for check in others:
        try:
            check()
        except CellflowError as error:
            problems.append(str(error))
    return problems


def _check_data(config: ChainConfig) -> list[int]:
    """Check the dataset, its split or the one that would be made, and that the name of the run is free.

    Returns
    -------
    list of int
        Folds that would be trained.
    """
    training, wanted = config.train, _wanted_split(config)
    check_config(wanted)
    dataset = Dataset.open(training.data)
    if dataset.folds_path.exists():
        check_split(training.data, k=config.k, group=config.group, calibration=config.calibration)
        split = load_folds(dataset)
    else:
        split = split_dataset(wanted, dataset)[0]
    there = validation_folds(dataset, split)
    check_trainable(training, dataset, split, there)
    if RunFolder(training.runs_dir / training.name).has_progress() and not training.debug:
        with suppress(CheckpointError):  # a start model that is not there: told by itself
            check_run(training, dataset, there)
    return there


def _check_start(training: TrainConfig, folds: list[int]) -> None:
    """Check the models that folds start from, each file once."""
    name = training.model.pretrained_model
    files = {start_file(name, fold, download=training.download): fold for fold in folds}
    for fold in files.values():
        start_model(training, fold)


def _check_run(training: TrainConfig) -> None:
    """Refuse a used name before anything is said of that other run, and folds that cannot be trained."""
    dataset = Dataset.open(training.data)
    split = load_folds(dataset)
    there = validation_folds(dataset, split)
    check_trainable(training, dataset, split, there)
    with suppress(CheckpointError):  # a start model that is not there: the training says so
        check_run(training, dataset, there)


def _make_folds(config: ChainConfig) -> None:
    """Folds, where the dataset has none yet."""
    dataset = Dataset.open(config.train.data)
    if dataset.folds_path.exists():
        _log.info("folds as in %s: %s", dataset.folds_path, split_text(dataset))
    else:
        make_folds(_wanted_split(config))


def _wanted_split(config: ChainConfig) -> FoldsConfig:
    """How folds are made, where there are none."""
    plain = FoldsConfig()
    return FoldsConfig(
        data=config.train.data,
        k=plain.k if config.k is None else config.k,
        group=config.group,
        calibration=plain.calibration if config.calibration is None else config.calibration,
        seed=config.train.seed,
    )


def _cross_validate(config: ChainConfig, run: RunFolder) -> CalibrationResult:
    """Out-of-fold predictions, unless they are there, and thresholds."""
    training = config.train
    if not _is_predicted(run, config):
        oof(
            OofConfig(
                run=str(run.path),
                data=training.data,
                policy=config.policy,
                batch_size=chosen(training.optim.batch_size),
                runtime=training.runtime,
            )
        )
    return calibrate(
        CalibrateConfig(
            runs=(str(run.path),),
            data=training.data,
            ensembles_dir=config.ensembles_dir,
            select_metric=training.select_metric,
            seed=training.seed,
            runtime=training.runtime,
        )
    )


def _predict(config: ChainConfig, run: RunFolder) -> EnsembleResult | None:
    if not config.images:
        return None
    training, images, files = config.train, config.images, config.files
    if training.debug:
        images = (debug_images(training, images, files),)
        files = FilesConfig(max_pixels=files.max_pixels)
    return ensemble(
        EnsembleConfig(
            images=images,
            files=files,
            runs=(str(run.path),),
            ensembles_dir=config.ensembles_dir,
            output=OutputConfig(out=config.predictions_dir),
            inference=InferenceConfig(tta=config.tta, batch_size=chosen(training.optim.batch_size)),
            runtime=training.runtime,
        )
    )


def _publish(config: ChainConfig, run: RunFolder) -> Publication | None:
    if config.publish == "no":
        return None
    wanted = PublishConfig(
        what=str(run.path),
        ensembles_dir=config.ensembles_dir,
        dry_run=config.train.debug,
    )
    return plan_publication(wanted) if wanted.dry_run else publish(wanted)


def _write_notebook(config: ChainConfig, run: RunFolder) -> Path | None:
    if not config.notebook:
        return None
    inference = InferenceConfig(tta=config.tta, batch_size=chosen(config.train.optim.batch_size))
    return write_notebook(
        NotebookConfig(
            run=str(run.path),
            out=run.path / f"{run.name}-kaggle.ipynb",
            overwrite=True,
            inference=inference,
        )
    )


def _is_predicted(run: RunFolder, config: ChainConfig) -> bool:
    """Whether the out-of-fold pass is there, made by these models with these settings."""
    made, record = find_oof_record(run), run.read_record()
    if made is None or not run.flows.is_dir():  # cellflow prune --flows removes them
        return False
    return (
        made.models == {fold: hash_file(run.fold(fold).best) for fold in record["folds"]}
        and made.mask == dataclasses.asdict(run_mask(run))
        and made.is_of_this_length(record)
        and made.diameter is None
        and (len(made.policies) > 1 or config.policy == made.policy)
        and config.policy in ("auto", made.policy)
    )


UNSEEN = 8
"""Images for the ensemble."""


def debug_images(
    config: TrainConfig, images: Path | Iterable[Path], files: FilesConfig | None = None
) -> Path:
    """The first few of the images to predict, as a list in the run's folder."""
    found = find_images(images, **(files or FilesConfig()).search)
    names = [image.path.resolve() for image in found.values()][:UNSEEN]
    run = RunFolder(config.runs_dir / config.name)
    write_text(run.debug_images, "".join(f"{path}\n" for path in names))
    return run.debug_images

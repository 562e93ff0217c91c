"""Flow-averaged prediction: all members of one or more runs, one mask step."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellflow.config import EnsembleConfig, PredictConfig, check_config
from cellflow.config.prediction import SegmentationConfig
from cellflow.engine.exports import EXPORTS
from cellflow.engine.exports.wells import WELLS, write_wells
from cellflow.engine.pages.run_page import try_run_page
from cellflow.engine.prediction.foreign_flows import check_foreign, foreign_facts, foreign_flows
from cellflow.engine.prediction.image_pass import ImagesDone
from cellflow.engine.prediction.image_tasks import Workers
from cellflow.engine.prediction.predict_images import predict_images
from cellflow.engine.prediction.predict_slides import check_slides, is_slide, predict_slides
from cellflow.engine.prediction.result_folder import SETTINGS, ResultFolder
from cellflow.engine.prediction.slide_table import TABLE
from cellflow.engine.runs.identity import versions
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.runtime.scheduler import Scheduler, open_scheduler
from cellflow.engine.segmentation.channels import channel_numbers, needs_colour, warn_of_grey
from cellflow.engine.segmentation.doubts import (
    warn_of_diameter,
    warn_of_diameters,
    warn_of_no_cells,
)
from cellflow.engine.segmentation.member import Member
from cellflow.engine.segmentation.open_models import Opened, describe_members
from cellflow.engine.segmentation.open_segmenter import for_workers, open_segmenter
from cellflow.engine.segmentation.physical_diameter import diameter_in_pixels
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.engine.slides.predict_slide import SlideResult
from cellflow.io.formats.dataset_folder import DatasetImage
from cellflow.io.image_source import find_images, source_folders
from cellflow.io.pixel_limit import at_most
from cellflow.io.plates import PlatePlace, places_in_plates
from cellflow.io.source import SourceImage
from cellflow.storage.config_file import write_config_file
from cellflow.storage.run_folder import RunFolder, find_run
from cellflow.storage.sizes import plural
from cellflow.types import one_line

__all__ = ["EnsembleResult", "ensemble", "predict"]


_log = logging.getLogger(__name__)


@one_line
@dataclass(frozen=True)
class EnsembleResult:
    """Where the results of a prediction lie.

    Attributes
    ----------
    folder : Path
        Folder of the result.
    submission : Path
        CSV with a row per cell.
    masks : Path
        Folder of label TIFFs.
    table : Path
        CSV with the size, place, shape, intensity and confidence of every cell.
    cells : dict of str to int
        Cells found per image.
    failed : dict of str to str
        Why images could not be predicted.
    members : int
        Number of networks averaged.
    written : tuple of str
        What lies in the folder, in words.
    reports : tuple of Path
        Pages of the runs of an ensemble, which show it too.
    slides : dict of str to SlideResult
        Images that were segmented block by block, each with a folder of its own.
    """

    folder: Path
    submission: Path
    masks: Path
    table: Path
    cells: dict[str, int]
    failed: dict[str, str]
    members: int
    written: tuple[str, ...] = ()
    reports: tuple[Path, ...] = ()
    slides: dict[str, SlideResult] = field(default_factory=dict)


def ensemble(config: EnsembleConfig) -> EnsembleResult:
    """Average the flows of all members at native size, make masks once, write the results.

    Results are written image by image; the same call again goes on where it stopped. Images that cannot
    be used are reported at the end and do not stop the others.

    Raises
    ------
    RunError, DataError, CheckpointError
        If a run has no model, members do not fit together, or there is no image.

    Examples
    --------
    All folds of two runs on the images of a folder:

    >>> from pathlib import Path
    >>> from cellflow import EnsembleConfig, ensemble
    >>> config = EnsembleConfig(runs=("exp", "second"), images=(Path("images"),))
    >>> result = ensemble(config)
    >>> result.members, len(result.cells), result.failed
    (4, 6, {})
    >>> result.folder.as_posix()
    'predictions/exp+second'
    >>> result.written
    ('masks/ (6 label maps)', 'cells.csv (a row per cell)', 'submission.csv (runs)')
    """
    result, runs = _predict(config)
    folders = {"ensembles_dir": config.ensembles_dir, "predictions_dir": config.output.out}
    pages = {run.path.resolve(): try_run_page(run, **folders) for run in runs}
    return dataclasses.replace(result, reports=tuple(filter(None, pages.values())))


def _predict(config: EnsembleConfig) -> tuple[EnsembleResult, tuple[RunFolder, ...]]:
    """What was predicted, and the runs whose models did it."""
    with at_most(config.files.max_pixels):
        job = open_ensemble(config)
        return _ensemble(job), job.opened.runs


def _ensemble(job: EnsembleJob) -> EnsembleResult:
    config, members = job.config, job.opened.members
    _warn_of_training_data(job.images, members)
    _log.info(
        "%s, %s of %s; thresholds: %s",
        plural(len(job.images), "image"), plural(len(members), "member"),
        job.opened.name, job.opened.thresholds.source,
    )  # fmt: skip
    slides = {name: item for name, item in job.images.items() if is_slide(item, config.slides)}
    others = {name: item for name, item in job.images.items() if name not in slides}
    summary, written = ImagesDone(), tuple[str, ...]()
    found: dict[str, SlideResult] = {}
    refused: dict[str, str] = {}
    with open_scheduler(config.slides.scheduler) as scheduler:
        if others:
            summary, written = _by_image(job, others, scheduler)
        if slides:
            found, refused = predict_slides(
                _with_runs(config), job.channels, job.segmenter, slides,
                folder=job.folder, identity=_how(job, ()), scheduler=scheduler,
            )  # fmt: skip
    failed = summary.failed | refused
    if found:
        written += (
            f"{TABLE} (a row per slide)",
            f"slides/ID/ (labels.zarr, cells.csv, cells.geojson of {plural(len(found), 'slide')})",
        )
    paths = {name: job.folder / EXPORTS[name].path for name in ("submission", "masks", "cells")}
    cells = summary.cells | {name: slide.cells for name, slide in found.items()}
    return EnsembleResult(
        job.folder, paths["submission"], paths["masks"], paths["cells"], cells, failed,
        len(members), written, slides=found,
    )  # fmt: skip


def _by_image(
    job: EnsembleJob, images: dict[str, SourceImage], scheduler: Scheduler
) -> tuple[ImagesDone, tuple[str, ...]]:
    """Predict images that are held whole, and say in words what lies in the folder."""
    config, output = job.config, job.config.output
    places = places_in_plates(images)
    with ResultFolder.open(
        job.folder,
        {"images": source_folders(config.images), **_how(job, images)},
        exports=frozenset(output.export),
        overwrite=output.overwrite,
        fingerprints={name: image.fingerprint for name, image in images.items()},
        places=places,
    ) as folder:
        if not isinstance(source_folders(config.images), str):  # one by one, no changed folder
            folder.check_kept(images)
        config = _with_runs(config)
        write_config_file(folder.path / SETTINGS, "ensemble", config)
        workers = None
        if config.slides.scheduler:
            members = tuple(member.hash for member in job.opened.members)
            workers = Workers(scheduler, config, job.channels, members)
        summary = predict_images(
            job.segmenter, images, folder, title=job.opened.name, workers=workers
        )
        wells = _wells(folder, images, places, summary.cells)
    if job.segmenter.diameter is None:
        warn_of_diameters(summary.facts, job.opened.members)
    warn_of_no_cells(summary.facts, job.segmenter.mask, job.segmenter.per_type, job.opened.members)
    written = tuple(export.summary(len(summary.cells)) for export in folder.exports)
    return summary, (*written, *wells)


def _wells(
    folder: ResultFolder,
    images: dict[str, SourceImage],
    places: dict[str, PlatePlace],
    done: Iterable[str],
) -> tuple[str, ...]:
    """Write the table of the wells, where there are plates and cells are wanted; what was written, in words."""
    cells, path = folder.path / EXPORTS["cells"].path, folder.path / WELLS
    if "cells" not in folder.writer.names:
        return ()
    if not places:
        path.unlink(missing_ok=True)
        return ()
    write_wells(path, cells, images, places, done)
    return (f"{WELLS} (a row per well)",)


def _with_runs(config: EnsembleConfig) -> EnsembleConfig:
    """With the newest run named, where none was: it will be another one some day."""
    if config.runs:
        return config
    return dataclasses.replace(config, runs=(str(find_run(None, config.runs_dir).path),))


@dataclass(frozen=True)
class EnsembleJob:
    """What is predicted with what, and where it goes."""

    config: EnsembleConfig
    machine: Machine
    opened: Opened
    segmenter: Segmenter
    images: dict[str, SourceImage]
    folder: Path
    channels: tuple[int, int] | None


def open_ensemble(config: EnsembleConfig) -> EnsembleJob:
    check_config(config)
    sent = for_workers(config) if config.slides.scheduler else config
    images = find_images(sent.images, **config.files.search)
    check_slides(config, images)
    diameter = diameter_in_pixels(config.inference.diameter, images, config.slides.level)
    config = dataclasses.replace(
        config, inference=dataclasses.replace(config.inference, diameter=diameter)
    )
    check_foreign(config.flows, images.keys())
    channels = _channels(config, images)
    machine, opened, segmenter = open_segmenter(config, channels, foreign_flows(config.flows))
    folder = config.output.out / (config.output.name or opened.name)
    _warn_of_grey(images, opened.members[0])
    warn_of_diameter(segmenter.diameter, opened.members)
    return EnsembleJob(config, machine, opened, segmenter, images, folder, channels)


def _channels(config: EnsembleConfig, images: dict[str, SourceImage]) -> tuple[int, int] | None:
    """Channels that were given for files that do not say theirs."""
    chan, chan2 = config.inference.chan, config.inference.chan2
    if chan is None and chan2 is None:
        return None
    return channel_numbers(
        chan or 0, chan2 or 0, lambda: {name: im.channel_names() for name, im in images.items()}
    )


def _warn_of_grey(images: dict[str, SourceImage], member: Member) -> None:
    """Say which images lack channels; their files are looked into only where that can be."""
    if needs_colour(member.chan, member.chan2):
        counts = {name: image.channels() for name, image in images.items()}
        known = {name: count for name, count in counts.items() if count is not None}
        warn_of_grey(known, member.chan, member.chan2)


def _how(job: EnsembleJob, images: Iterable[str]) -> dict[str, Any]:
    """What makes the result of images what it is; batch size, device and threads do not."""
    segmenter = job.segmenter
    return {
        "members": describe_members(job.opened),
        **({"partial": job.opened.partial} if job.opened.partial else {}),
        "thresholds": {
            "source": job.opened.thresholds.source,
            "shared": dataclasses.asdict(segmenter.mask),
            "per_type": {kind: dataclasses.asdict(m) for kind, m in segmenter.per_type.items()},
        },
        "pixel_size": job.config.files.pixel_size,
        "diameter": segmenter.diameter,
        "policy": segmenter.policy,
        **({"diameter_rounds": segmenter.rounds} if segmenter.rounds else {}),
        "cell_type": segmenter.cell_type,
        "flips": list(segmenter.flips),
        "scales": list(segmenter.scales),
        "augment": segmenter.augment,
        "weights": None if segmenter.weights is None else list(segmenter.weights),
        "average": segmenter.average,
        "foreign": [foreign_facts(folder, images) for folder in job.config.flows],
        "amp": job.machine.describe()["amp"],
        "engine": job.machine.engine,
        "versions": versions(),
    }


def _warn_of_training_data(images: dict[str, SourceImage], members: tuple[Member, ...]) -> None:
    found = [image.dataset for image in images.values() if isinstance(image, DatasetImage)]
    datasets = {id(dataset): dataset for dataset in found}
    for dataset in datasets.values():
        if any(member.facts.get("data_hash") == dataset.hash for member in members):
            _log.warning(
                "these models were trained on images in %s, so what they predict there says nothing of "
                "images they have not seen; for that use: cellflow oof",
                dataset.path,
            )


def predict(config: PredictConfig) -> EnsembleResult:
    """Segment images with all folds of a run, or with one model file.

    The run's diameter policy, cell types and calibrated thresholds are applied without being asked for.

    Raises
    ------
    RunError, DataError, CheckpointError
        If there is no such model or image, or a run is incomplete.

    Examples
    --------
    With the run ``runs/exp``; a model file of Cellpose 3 would do as well:

    >>> from pathlib import Path
    >>> from cellflow import PredictConfig, predict
    >>> result = predict(PredictConfig(images=(Path("images"),), model="exp"))
    >>> result.masks.as_posix(), len(list(result.masks.iterdir()))
    ('predictions/exp/masks', 6)
    >>> result.table.read_text().split(",")[:4]
    ['id', 'label', 'area', 'centroid_y']
    """
    check_config(config)
    return _predict(as_ensemble(config))[0]


def as_ensemble(config: PredictConfig) -> EnsembleConfig:
    """An ensemble of the one thing that was named."""
    shared = {item.name for item in dataclasses.fields(SegmentationConfig)}
    values = {name: value for name, value in vars(config).items() if name in shared}
    return EnsembleConfig(**values, runs=(config.model,) if config.model else ())

"""What a prediction would take, measured on a few images."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from cellflow.config import EnsembleConfig, PredictConfig, check_config
from cellflow.engine.prediction.ensemble import as_ensemble, open_ensemble
from cellflow.engine.prediction.predict_slides import is_slide, time_slide
from cellflow.engine.prediction.slide_table import SLIDES
from cellflow.engine.slides.predict_slide import RECORD
from cellflow.errors import DataError, NotFiniteError, PackageError
from cellflow.io.pixel_limit import at_most

__all__ = ["PredictionPlan", "plan_ensemble", "plan_prediction"]

_log = logging.getLogger(__name__)


TIMED_IMAGES = 2
"""Images that a dry run predicts, the first of which warms up."""


@dataclass(frozen=True)
class PredictionPlan:
    """What a prediction would take.

    Attributes
    ----------
    images, done, members, views : int
        Images, those that are there already, networks, and views each of them takes of an image.
    seconds_per_image : float
        Measured on the first images; on a block in the middle of the first slide where there is one.
    machine, thresholds : str
        In words.
    folder : Path
        Where results would go.
    """

    images: int
    done: int
    members: int
    views: int
    seconds_per_image: float
    machine: str
    thresholds: str
    folder: Path

    @property
    def seconds(self) -> float:
        """Time for the images that are left."""
        return self.seconds_per_image * (self.images - self.done)


def plan_ensemble(config: EnsembleConfig) -> PredictionPlan:
    """Measure what a prediction would take, on its first images. Nothing is written.

    Raises
    ------
    RunError, DataError, CheckpointError
        As `ensemble`.
    """
    with at_most(config.files.max_pixels):
        return _measure(config)


def _measure(config: EnsembleConfig) -> PredictionPlan:
    job = open_ensemble(config)
    done = {path.stem for path in (job.folder / "masks").glob("*.tif")}
    done |= {path.parent.name for path in (job.folder / SLIDES).glob(f"*/{RECORD}")}
    done &= set() if config.output.overwrite else job.images.keys()
    # those that are done come last: they are timed where none of the others can be used
    slides = {name for name, image in job.images.items() if is_slide(image, config.slides)}
    names = sorted(job.images, key=lambda name: (name in done, name not in slides))
    times: list[float] = []
    for name in names:
        started = time.perf_counter()
        try:
            if name in slides:
                times.append(time_slide(config, job.segmenter, job.images[name]))
                break
            job.segmenter.predict(job.images[name](), name)
        except (DataError, NotFiniteError, PackageError) as error:
            _log.warning("%s cannot be used: %s", name, error)
            continue
        times.append(time.perf_counter() - started)
        if len(times) == TIMED_IMAGES:
            break
    if not times:
        raise DataError(
            f"{', '.join(map(str, config.images))}: none of {len(names)} images can be used, see above."
        )
    return PredictionPlan(
        images=len(job.images),
        done=len(done),
        members=len(job.opened.members),
        views=len(job.segmenter.flips) * len(job.segmenter.scales),
        seconds_per_image=times[-1],
        machine=", ".join(f"{key} {value}" for key, value in job.machine.describe().items()),
        thresholds=job.opened.thresholds.source,
        folder=job.folder,
    )


def plan_prediction(config: PredictConfig) -> PredictionPlan:
    """Measure what `predict` would take; nothing is written."""
    check_config(config)
    return plan_ensemble(as_ensemble(config))

"""What a worker has at hand for the blocks of a slide; opened once, kept for the next block."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.config import EnsembleConfig
from cellflow.engine.runtime.kept import once
from cellflow.engine.segmentation.open_segmenter import kept_segmenter
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.engine.slides.plan import PLAN, SlidePlan, read_plan
from cellflow.engine.slides.store import SlideStore
from cellflow.errors import RunError
from cellflow.io.large import LargeImage
from cellflow.io.pixel_limit import at_most
from cellflow.io.roi import Roi, read_roi
from cellflow.io.source import SourceImage
from cellflow.types import Box

__all__ = ["SlideJob", "Work", "open_work"]


@dataclass(frozen=True, eq=False)
class SlideJob:
    """What a task needs to know of a slide; workers get it with every block."""

    config: EnsembleConfig
    channels: tuple[int, int] | None
    """Those that were given, for model files that do not say theirs."""
    image: SourceImage
    folder: Path
    """Where its results go, on a disk that all workers see."""
    block: int
    """Side of a block in pixels."""


@dataclass(frozen=True, eq=False)
class Work:
    """An opened slide."""

    job: SlideJob
    plan: SlidePlan
    store: SlideStore
    tiles: dict[Any, Any] = field(default_factory=dict)
    """What each view of the networks has made of constant tiles."""

    @cached_property
    def image(self) -> LargeImage:
        """The pixels."""
        with at_most(self.job.config.files.max_pixels):
            return self.job.image.open_large(self.plan.level)

    @cached_property
    def roi(self) -> Roi | None:
        """What is segmented; None for all."""
        if not self.plan.roi:
            return None
        finest = read_roi(self.plan.roi, self.image.levels[0])
        return finest.at(self.image.factor(), self.plan.shape)

    @property
    def segmenter(self) -> Segmenter:
        """The members, on the device of this worker; those of one command are the same for all its slides."""
        return kept_segmenter(self.job.config, self.job.channels).segmenter

    def normal(self, box: Box) -> NDArray[np.float32]:
        """Pixels of a box as the networks want them, ``(2, h, w)``."""
        return self.plan.normal(self.image.read(box))

    def intensity(self, box: Box) -> NDArray[np.float32]:
        """The segmented channel of a box in native units."""
        return np.asarray(self.plan.select(self.image.read(box))[0])

    def close(self) -> None:
        """Close the image."""
        if "image" in vars(self):
            self.image.close()


def open_work(job: SlideJob) -> Work:
    """The slide of a task, as this worker keeps it."""

    def make() -> Work:
        path = job.folder / PLAN
        plan = read_plan(path)
        if plan is None:
            raise RunError(
                f"{path} is not there. Workers must see the folder of the results under the same path as the "
                "process that started them; name one on a shared disk with --out.",
                path=path,
            )
        return Work(job, plan, SlideStore(job.folder, plan.grid))

    return once(("slide", str(job.folder.absolute())), make)

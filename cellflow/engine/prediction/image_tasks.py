"""Images on workers: a task is a handful of images, which the worker predicts and writes by itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cellflow.config import EnsembleConfig
from cellflow.engine.prediction.foreign_flows import foreign_flows
from cellflow.engine.prediction.image_pass import ImagePass, ImagesDone, problem_of
from cellflow.engine.prediction.image_writer import ImageWriter
from cellflow.engine.runtime.scheduler import Outcome, Scheduler
from cellflow.engine.runtime.shared_folder import SharedFolder, shared_folder
from cellflow.engine.segmentation.open_segmenter import for_workers, kept_segmenter
from cellflow.errors import RunError
from cellflow.io.pixel_limit import at_most
from cellflow.io.source import SourceImage
from cellflow.storage.sizes import few_text

__all__ = ["Workers"]

CHUNKS = 4
"""Tasks for each worker at least, so that none waits long for the last."""
MOST_IMAGES = 32
"""Images of a task."""

_log = logging.getLogger(__name__)

Images = Mapping[str, SourceImage]


@dataclass(frozen=True, eq=False)
class ImageJob:
    """What a task needs to know besides its images."""

    config: EnsembleConfig
    channels: tuple[int, int] | None
    members: tuple[str, ...]
    exports: frozenset[str]
    folder: Path
    """The result; whoever sends the tasks holds its lock."""
    shared: SharedFolder
    """A folder in it, which tells whether it is on a disk that all workers see."""


@dataclass(frozen=True)
class Workers:
    """Where images are predicted, and with what."""

    scheduler: Scheduler
    config: EnsembleConfig
    channels: tuple[int, int] | None
    """Those that were given, for model files that do not say theirs."""
    members: tuple[str, ...]
    """Hashes of the model files."""

    def predict(self, images: Images, writer: ImageWriter, *, title: str) -> ImagesDone:
        """Predict images on the workers, which write them.

        A task whose worker is lost, or that fails, is tried again with the images that it had not finished.
        Where it fails for good, its images are tried one by one: only those that fail then have failed.

        Raises
        ------
        RunError
            If all tasks fail, so that it is no matter of images; or workers do not see the folder.
        """
        found = ImagesDone()
        writer.parts.mkdir(exist_ok=True)
        with shared_folder(self.scheduler, writer.parts) as shared:
            job = ImageJob(
                for_workers(self.config), self.channels, self.members, writer.names,
                writer.path.absolute(), shared,
            )  # fmt: skip
            chunks = self._chunks(images)
            outcome = self._run(job, chunks, title, tries=3)
            for part in outcome.done.values():
                found.add(part)
            done = writer.done() | found.failed.keys()
            left = {name: image for name, image in images.items() if name not in done}
            if outcome.failed and len(left) == len(images):
                first = next(iter(outcome.failed.values()))
                raise RunError(f"No image could be predicted: {first}", path=writer.path)
            if left:
                _log.info("one by one, as their tasks have failed: %s", few_text(left))
                single = {name: {name: image} for name, image in left.items()}
                outcome = self._run(job, single, title, tries=1)
                for part in outcome.done.values():
                    found.add(part)
                for name, error in outcome.failed.items():
                    found.failed[name] = problem_of(left[name], error)
        return found

    def _run(
        self, job: ImageJob, chunks: Mapping[str, Images], title: str, *, tries: int
    ) -> Outcome:
        return self.scheduler.run(
            predict_some,
            {name: (job, images) for name, images in chunks.items()},
            title=title,
            weight={name: len(images) for name, images in chunks.items()},
            tries=tries,
            resources=None if self.config.runtime.device == "cpu" else {"GPU": 1},
            unit="image",
        )

    def _chunks(self, images: Images) -> dict[str, Images]:
        """The images in tasks, by names that say which they are."""
        names = list(images)
        wanted = CHUNKS * max(1, self.scheduler.workers)
        size = min(MOST_IMAGES, max(1, len(names) // wanted))
        return {
            f"images {start + 1} to {min(start + size, len(names))}": {
                name: images[name] for name in names[start : start + size]
            }
            for start in range(0, len(names), size)
        }


def predict_some(job: ImageJob, images: Images) -> ImagesDone:
    """The task of a worker: predict and write those of its images that are not there."""
    job.shared.check()
    foreign = foreign_flows(job.config.flows)
    opened = kept_segmenter(job.config, job.channels, foreign)
    members = tuple(member.hash for member in opened.opened.members)
    if members != job.members:
        raise RunError(
            f"This worker finds other models in {job.config.runs_dir} than the process that sent the task. Workers "
            "must see the same files under the same paths.",
            path=job.config.runs_dir,
            expected=job.members,
            found=members,
        )
    writer = ImageWriter(job.folder, job.exports)
    done = writer.done()
    todo = [name for name in images if name not in done]
    with at_most(job.config.files.max_pixels):
        return ImagePass(opened.segmenter, images, writer, todo).run()

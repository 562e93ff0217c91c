"""Predict images into a result folder; what fails is reported at the end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cellflow.engine.prediction.image_pass import ImagePass, ImagesDone
from cellflow.engine.prediction.image_tasks import Workers
from cellflow.engine.prediction.result_folder import ResultFolder
from cellflow.engine.runtime.progress_lines import show_progress
from cellflow.io.image_source import ImageReaders
from cellflow.io.source import SourceImage
from cellflow.storage.sizes import few_lines

if TYPE_CHECKING:
    from cellflow.engine.segmentation.segmenter import Segmenter


__all__ = ["predict_images"]

_log = logging.getLogger(__name__)

MAX_PROBLEMS = 20


def predict_images(
    segmenter: Segmenter,
    readers: ImageReaders,
    folder: ResultFolder,
    *,
    title: str,
    workers: Workers | None = None,
) -> ImagesDone:
    """Predict the images that are not done, write them, and finish the folder.

    An image that cannot be read, or that the network or the mask step refuses (`DataError`, `NotFiniteError`), is left
    out, and named in the result and in one warning. It is tried again when the command is repeated. Whatever else goes
    wrong (a full disk, Ctrl-C) ends the pass; images that were done stay so, and no thread stays.

    `workers` predict and write the images, with the same bytes; without them this process does. They take images of
    `find_images` only. The cells that are returned are those of every image that is done, in the order of the images.
    """
    folder.complete(readers)
    done = folder.done()
    todo = [name for name in readers if name not in done]
    if len(todo) < len(readers):
        _log.info(
            "%s: %d of %d images are there", folder.path, len(readers) - len(todo), len(readers)
        )
    if workers is None:
        initial = len(readers) - len(todo)
        with show_progress(title, len(readers), initial=initial) as bar:
            found = ImagePass(segmenter, readers, folder.writer, todo, bar.update).run()
    else:
        images = {name: image for name in todo if isinstance(image := readers[name], SourceImage)}
        found = workers.predict(images, folder.writer, title=title) if images else ImagesDone()
    folder.note(found.cells)
    cells = folder.finish(readers)
    place = {name: number for number, name in enumerate(readers)}
    failed = {name: found.failed[name] for name in readers if name in found.failed}
    if failed:
        lines = few_lines((f"{name}: {message}" for name, message in failed.items()), MAX_PROBLEMS)
        _log.warning(
            "%d of %d images could not be predicted and are in no table:\n%s\nRepair or remove them and "
            "repeat the command: it predicts only what is missing.",
            *(len(failed), len(readers), lines),
        )
    return ImagesDone(cells, failed, sorted(found.facts, key=lambda facts: place[facts.name]))

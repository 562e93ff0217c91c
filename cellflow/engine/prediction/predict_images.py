"""Predict images into a result folder; what fails is reported at the end."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cellflow.engine.prediction.image_pass import ImagePass, ImagesDone
from cellflow.engine.prediction.image_tasks import Workers
from cellflow.engine.prediction.result_folder import ResultFolder
from cellflow.engine.runtime.progress_lines import show_progress
from cellflow.engine.segmentation.doubts import ImageFacts
from cellflow.io.image_source import ImageReaders
from cellflow.io.source import SourceImage

if TYPE_CHECKING:
    from cellflow.engine.segmentation.segmenter import Segmenter


__all__ = ["PredictSummary", "predict_images"]

_log = logging.getLogger(__name__)


MAX_PROBLEMS = 20


@dataclass(frozen=True)
class PredictSummary:
    """What came of a prediction.

    Attributes
    ----------
    cells : dict of str to int
        Cells of every image that is done, now or by an earlier command, in the order of the images.
    failed : dict of str to str
        What is wrong with the images that could not be predicted.
    facts : list of ImageFacts
        What may be of interest of the images that were predicted now.
    """

    cells: dict[str, int]
    failed: dict[str, str]
    facts: list[ImageFacts] = field(default_factory=list, compare=False)


def predict_images(
    segmenter: Segmenter,
    readers: ImageReaders,
    folder: ResultFolder,
    *,
    title: str,
    workers: Workers | None = None,
) -> PredictSummary:
    """Predict the images that are not done, write them, and finish the folder.

    An image that cannot be read, or that the network or the mask step refuses (`DataError`,
    `NotFiniteError`), is left out, and named in the summary and in one warning. It is tried again when
    the command is repeated.

    Parameters
    ----------
    segmenter : Segmenter
        The members.
    readers : dict of str to callable
        Images, see `find_images`. Ids are the keys that foreign flows are asked for.
    folder : ResultFolder
        Opened.
    title : str
        Of the progress bar.
    workers : Workers, optional
        Predict and write the images, with the same bytes; without them this process does. They take
        images of `find_images` only.

    Raises
    ------
    BaseException
        Whatever else goes wrong (a full disk, Ctrl-C) ends the pass; images that were done stay so, and
        no thread stays.
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
    _warn(failed, len(readers))
    return PredictSummary(cells, failed, sorted(found.facts, key=lambda facts: place[facts.name]))


def _warn(failed: dict[str, str], total: int) -> None:
    if not failed:
        return
    lines = [f"  - {name}: {message}" for name, message in failed.items()]
    rest = len(lines) - MAX_PROBLEMS
    more = [f"  and {rest} more"] if rest > 0 else []
    _log.warning(
        "%d of %d images could not be predicted and are in no table:\n%s\nRepair or remove them and "
        "repeat the command: it predicts only what is missing.",
        len(failed), total, "\n".join([*lines[:MAX_PROBLEMS], *more]),
    )  # fmt: skip

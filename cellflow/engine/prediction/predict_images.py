"""Predict images into a result folder; what fails is reported at the end."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from cellflow.engine.exports.export import Origin
from cellflow.engine.prediction.result_folder import ResultFolder
from cellflow.engine.runtime.progress_lines import WorkProgress, show_progress
from cellflow.engine.segmentation.doubts import ImageFacts, facts_of
from cellflow.errors import DataError, NotFiniteError
from cellflow.io.image_source import ImageReaders
from cellflow.io.source import SourceImage

if TYPE_CHECKING:
    from cellflow.engine.segmentation.result import Prediction
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
    segmenter: Segmenter, readers: ImageReaders, folder: ResultFolder, *, title: str
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

    Raises
    ------
    BaseException
        Whatever else goes wrong (a full disk, Ctrl-C) ends the pass; images that were done stay so, and
        no thread stays.
    """
    folder.complete(readers)
    done = folder.done()
    todo = deque(name for name in readers if name not in done)
    if len(todo) < len(readers):
        _log.info(
            "%s: %d of %d images are there", folder.path, len(readers) - len(todo), len(readers)
        )
    failed: dict[str, str] = {}
    initial = len(readers) - len(todo)
    with show_progress(title, len(readers), initial=initial) as bar:
        work = _Pass(segmenter, readers, folder, todo, failed, bar, [])
        while todo:
            work.stream()
    cells = folder.finish(readers)
    failed = {name: failed[name] for name in readers if name in failed}
    _warn(failed, len(readers))
    return PredictSummary(cells, failed, work.facts)


@dataclass(frozen=True, eq=False)
class _Pass:
    """One way through the images that are not done; `todo` shrinks, `failed` grows."""

    segmenter: Segmenter
    readers: ImageReaders
    folder: ResultFolder
    todo: deque[str]
    failed: dict[str, str]
    bar: WorkProgress
    facts: list[ImageFacts]

    def stream(self) -> None:
        """Predict to the end of `todo`, or until the segmenter refuses an image, which ends a stream.

        An error comes at the turn of its image, so the refused one is the first that was read and is not
        finished. Those that were read after it go back to the front of `todo`.
        """
        under_way: dict[str, NDArray[Any]] = {}

        def images() -> Iterator[tuple[str, NDArray[Any]]]:
            while self.todo:
                name = self.todo.popleft()
                image = self._read(name)
                if image is not None:
                    under_way[name] = image
                    yield name, image

        def finish(name: str, prediction: Prediction) -> str:
            reader = self.readers[name]
            self.folder.write(name, prediction, under_way[name], Origin.of(reader))
            self.facts.append(facts_of(name, prediction))
            return name

        try:
            with closing(self.segmenter.stream(images(), finish)) as stream:
                for name in stream:
                    del under_way[name]
                    self.bar.update()
        except (DataError, NotFiniteError) as error:
            if not under_way:
                raise
            refused, *rest = under_way
            self._fail(refused, error)
            self.todo.extendleft(reversed(rest))

    def _read(self, name: str) -> NDArray[Any] | None:
        """An image, or None if it cannot be read."""
        try:
            return self.readers[name]()
        except DataError as error:
            self._fail(name, error)
            return None

    def _fail(self, name: str, error: Exception) -> None:
        reader, message = self.readers[name], str(error)
        if isinstance(reader, SourceImage) and str(reader.path) not in message:
            message = f"{reader.path}: {message}"
        self.failed[name] = message
        self.bar.update()


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

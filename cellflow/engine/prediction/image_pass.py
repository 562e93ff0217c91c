"""One way through images that are to be predicted; one that cannot be does not stop the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from cellflow.engine.exports.export import Origin
from cellflow.engine.prediction.image_writer import ImageWriter
from cellflow.engine.runtime.tasks import is_cancelled
from cellflow.engine.segmentation.doubts import ImageFacts, facts_of
from cellflow.errors import DataError, NotFiniteError
from cellflow.io.image_source import ImageReaders
from cellflow.io.source import SourceImage

if TYPE_CHECKING:
    from cellflow.engine.segmentation.result import Prediction
    from cellflow.engine.segmentation.segmenter import Segmenter

__all__ = ["ImagePass", "ImagesDone", "problem_of"]


@dataclass
class ImagesDone:
    """What came of images: the cells of those that were predicted and written, and why others could not be."""

    cells: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    facts: list[ImageFacts] = field(default_factory=list, compare=False)
    """What may be of interest of those that were predicted now."""

    def add(self, other: ImagesDone) -> None:
        """Take over what came of other images."""
        self.cells |= other.cells
        self.failed |= other.failed
        self.facts += other.facts


class ImagePass:
    """Predicts and writes images one after the other, with reading and writing beside the network.

    `todo` are those of the `readers` that are to be predicted; `on_image` is called after each, done or failed.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        readers: ImageReaders,
        writer: ImageWriter,
        todo: Iterable[str],
        on_image: Callable[[], None] = lambda: None,
    ) -> None:
        self.segmenter, self.readers, self.writer = segmenter, readers, writer
        self.found = ImagesDone()
        self._todo, self._on_image = deque(todo), on_image

    def run(self) -> ImagesDone:
        """Predict all of them, unless nobody waits for it any more.

        Raises
        ------
        BaseException
            What is the fault of no image, such as a full disk; images that were done stay so, and no thread
            stays.
        """
        while self._todo:
            self._stream()
        return self.found

    def _stream(self) -> None:
        """Predict to the end of what is to do, or until the segmenter refuses an image, which ends a stream.

        An error comes at the turn of its image, so the refused one is the first that was read and is not
        finished. Those that were read after it go back to the front.
        """
        under_way: dict[str, NDArray[Any]] = {}

        def images() -> Iterator[tuple[str, NDArray[Any]]]:
            while self._todo:
                name = self._todo.popleft()
                image = self._read(name)
                if image is not None:
                    under_way[name] = image
                    yield name, image

        def finish(name: str, prediction: Prediction) -> str:
            origin = Origin.of(self.readers[name])
            cells = self.writer.write(name, prediction, under_way[name], origin)
            self.found.cells[name] = cells
            self.found.facts.append(facts_of(name, prediction))
            return name

        try:
            with closing(self.segmenter.stream(images(), finish)) as stream:
                for name in stream:
                    del under_way[name]
                    self._on_image()
                    if is_cancelled():
                        self._todo.clear()
                        return
        except (DataError, NotFiniteError) as error:
            if not under_way:
                raise
            refused, *rest = under_way
            self._fail(refused, error)
            self._todo.extendleft(reversed(rest))

    def _read(self, name: str) -> NDArray[Any] | None:
        """An image, or None if it cannot be read."""
        try:
            return self.readers[name]()
        except DataError as error:
            self._fail(name, error)
            return None

    def _fail(self, name: str, error: Exception) -> None:
        self.found.failed[name] = problem_of(self.readers[name], error)
        self._on_image()


def problem_of(reader: Callable[[], Any], error: Exception) -> str:
    """What is wrong with an image, with its file."""
    message = str(error)
    if isinstance(reader, SourceImage) and str(reader.path) not in message:
        return f"{reader.path}: {message}"
    return message

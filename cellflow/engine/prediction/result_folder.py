"""The folder that a prediction writes, image by image; the same command goes on where it stopped.

::

    prediction.json    what makes the prediction (identity), what is written (exports), what tells whether
                       an image has changed, and, once the tables are there, how many cells each image in
                       them has
    ensemble.yaml      settings of the command, which ``cellflow ensemble --config`` takes
    .parts/            while images are missing: what exports need until they are finished, and <id>.tif,
                       label maps that are not to stay
    slides/            images that were segmented by blocks, see `cellflow.engine.slides`
    .lock              held by the process that writes

and what the exports write, see `cellflow.engine.exports`.

An image's label map is written last, so an image whose label map is there is done.

What is written may change from command to command: what is asked for anew is added for all images, from the
label maps (or the runs) that are there where they are enough, and what an earlier command asked for is kept up
to date, so that everything in the folder always fits together.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellflow.engine.exports import EXPORTS
from cellflow.engine.exports.export import PARTS, Origin, PredictedImage, ids_of_files
from cellflow.engine.prediction.image_writer import ImageWriter, cells_in
from cellflow.engine.prediction.result_record import RECORD, ResultRecord, check_place
from cellflow.engine.prediction.slide_table import SLIDES, TABLE
from cellflow.engine.runtime.progress_lines import follow
from cellflow.errors import DataError, RunError
from cellflow.io.image_source import ImageReaders
from cellflow.io.plates import PlatePlace
from cellflow.storage.atomic import remove_leftovers
from cellflow.storage.locks import hold_lock
from cellflow.storage.sizes import few_text

__all__ = ["SETTINGS", "ResultFolder"]

_log = logging.getLogger(__name__)

SETTINGS = "ensemble.yaml"
_LOCK = ".lock"


class ResultFolder:
    """Results of a prediction on disk. Get one with `open`, which holds the folder's lock."""

    def __init__(
        self,
        path: Path,
        record: ResultRecord,
        exports: AbstractSet[str],
        places: Mapping[str, PlatePlace],
    ) -> None:
        self.path = path
        self.writer = ImageWriter(path, exports)
        self.exports = [export.placed(places) for export in self.writer.exports]
        self._record = record
        self._counts: dict[str, int] = {}

    @classmethod
    @contextmanager
    def open(
        cls,
        path: Path,
        identity: dict[str, Any],
        *,
        exports: AbstractSet[str] = frozenset({"masks", "submission", "cells"}),
        overwrite: bool = False,
        fingerprints: Mapping[str, str] | None = None,
        places: Mapping[str, PlatePlace] | None = None,
    ) -> Iterator[ResultFolder]:
        """Start a result, or go on with one; the folder is locked while the context lasts.

        Parameters
        ----------
        path : Path
            The folder.
        identity : dict
            What makes the results what they are, of JSON types. A folder is only continued with an equal one.
        exports : set of str
            Names of `EXPORTS`. What an earlier command wrote there is written as well.
        overwrite : bool
            Remove what is there first: what its record says was written. Other files in the folder stay.
        fingerprints : mapping, optional
            What tells by id whether an image is still the same; one that has changed counts as not done.
        places : mapping, optional
            Where images lie that are fields of a plate, by id, for the tables.

        Raises
        ------
        DataError
            If there is something else, or a result with another identity.
        RunError
            If another process writes there.
        """
        path = Path(path)
        check_place(path, ignored={_LOCK, SLIDES, TABLE})
        with _only_writer(path):
            if overwrite:
                for name in (*_places(ResultRecord.exports_of(path)), PARTS, SETTINGS, RECORD):
                    _remove(path / name)
            for place in (path, *(path / name for name in (*_places(EXPORTS), PARTS))):
                remove_leftovers(place)
            record = ResultRecord.start(path, identity, exports)
            folder = cls(path, record, _with_earlier(path, exports, record), places or {})
            folder._forget_changed(fingerprints or {})
            yield folder

    def done(self) -> set[str]:
        """Ids of the images of which everything is there."""
        return self.writer.done(set(self._listed()))

    def complete(self, readers: ImageReaders) -> None:
        """Make what is missing of images where the label maps that are there are enough for it.

        What cannot be made so, because an image or its label map is damaged, is left to be predicted.
        """
        listed = set(self._listed())
        has = {export: export.done(self.path, listed) for export in self.exports}
        maps = ids_of_files(self.writer.maps, ".tif") | ids_of_files(self.writer.parts, ".tif")
        known = maps | listed
        for export, ids in has.items():
            if not export.from_labels and ids is not None:
                known &= ids
        missing = known - self.done()
        sources: dict[str, Callable[[tuple[int, int]], NDArray[np.int32]]] = {}
        for export in self.exports:
            sources |= export.known_labels(self.path, missing - maps)
        names = [name for name in readers if name in missing & (maps | sources.keys())]
        for name in follow(names, "from label maps", brief=True):
            with suppress(DataError):
                image = readers[name]()
                labels = self.writer.label_map(name)
                if labels is None:
                    labels = sources[name]((image.shape[0], image.shape[1]))
                item = PredictedImage(name, image, labels, **Origin.of(readers[name])._asdict())
                for export, ids in has.items():
                    if export.from_labels and name not in (ids or ()):
                        export.write(self.path, item)
                self._counts[name] = self.writer.write_labels(item)

    def note(self, cells: Mapping[str, int]) -> None:
        """How many cells images have that were written now, so that they need not be counted."""
        self._counts |= cells

    def finish(self, ids: Iterable[str]) -> dict[str, int]:
        """Write the tables; they hold the images of `ids` that are done, in their order, and no others.

        What only served to go on is removed when all of `ids` are done. Does nothing if the tables are
        there and hold just these. What comes out are the cells of every image in the tables.
        """
        wanted, done = list(ids), self.done()
        names = [name for name in wanted if name in done]
        listed = self._listed()
        counts = {name: listed[name] for name in names if name in listed}
        if list(listed) != names or not all(item.is_finished(self.path) for item in self.exports):
            # Images that leave the tables are not to pass for done if the next lines are interrupted.
            self._record.change(cells=counts)
            for export in self.exports:
                export.finish(self.path, names, self._counted_map)
            counts = {name: self._count(name, listed) for name in names}
            self._record.change(cells=counts)
        if len(names) == len(wanted):
            _remove(self.writer.parts)
        return counts

    def check_kept(self, ids: Iterable[str]) -> None:
        """Refuse to drop images that an earlier command put into the tables and nobody has removed."""
        others = self._record.cells.keys() - set(ids)
        if others:
            named = few_text(name for name in self._record.cells if name in others)
            raise DataError(
                f"{self.path} holds the prediction of other images ({named}), which would leave "
                "its tables. Name these images too, choose another --name, or add --overwrite.",
                path=self.path,
            )

    def _forget_changed(self, fingerprints: Mapping[str, str]) -> None:
        """Remove what was made of images that are others now, before the new ones are known."""
        known = self._record.images
        changed = {name for name, text in fingerprints.items() if known.get(name, text) != text}
        for name in changed:
            for folder in (self.writer.maps, self.writer.parts):
                (folder / f"{name}.tif").unlink(missing_ok=True)
            for export in self.exports:
                export.forget(self.path, name)
        cells = {name: n for name, n in self._record.cells.items() if name not in changed}
        images = dict(sorted({**known, **fingerprints}.items()))
        self._record.change(images=images, cells=cells)

    def _listed(self) -> dict[str, int]:
        """Images in the tables with their cells; none if a table that cannot be made again is missing."""
        stay = self.writer.keeps_maps
        needed = [export for export in self.exports if not (stay and export.from_labels)]
        return self._record.cells if all(item.is_finished(self.path) for item in needed) else {}

    def _counted_map(self, image_id: str) -> NDArray[np.int32] | None:
        """The label map of an image; its cells are counted on the way."""
        labels = self.writer.label_map(image_id)
        if labels is not None:
            self._counts[image_id] = cells_in(labels)
        return labels

    def _count(self, image_id: str, listed: Mapping[str, int]) -> int:
        """Cells of an image, from its label map where that is there."""
        if image_id not in self._counts and self._counted_map(image_id) is None:
            return listed[image_id]
        return self._counts[image_id]


def _places(exports: Iterable[str]) -> list[str]:
    """Files and folders of exports."""
    return [place for name in exports for place in (EXPORTS[name].path, *EXPORTS[name].beside)]


def _with_earlier(path: Path, exports: AbstractSet[str], record: ResultRecord) -> AbstractSet[str]:
    """With what was asked for before, so that nothing in the folder grows old."""
    earlier = [name for name in EXPORTS if name in record.exports - exports]
    if earlier:
        _log.info(
            "%s: also kept up to date, as an earlier command asked for: %s; --overwrite starts anew without",
            path, ", ".join(earlier),
        )  # fmt: skip
    every = exports | record.exports
    record.change(exports={name: name in every for name in EXPORTS})
    return every


@contextmanager
def _only_writer(path: Path) -> Iterator[None]:
    """Hold the lock of a folder."""
    lock = path / _LOCK
    with ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(lock, str(path)))
        except RunError as error:
            holder = lock.read_text(encoding="utf-8").strip() or "another process"
            raise RunError(
                f"{path} is being written by {holder}. Wait for it, or choose another --name."
            ) from error
        yield


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

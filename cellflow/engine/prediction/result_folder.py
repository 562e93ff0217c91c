"""The folder that a prediction writes, image by image; the same command goes on where it stopped.

::

    prediction.json    what makes the prediction (identity), what is written (exports), what tells whether
                       an image has changed, and, once the tables are there, how many cells each image in
                       them has
    masks/<id>.tif     label maps
    outlines/<id>.png  the images with the outlines of their cells
    cells.csv          a row per cell: id, then the columns of `measure_cells`
    submission.csv     id,predicted: a row per cell, row-major 1-indexed runs
    ensemble.yaml      settings of the command, which ``cellflow ensemble --config`` takes
    .parts/            while images are missing: <id>.csv, rows of the cell table; <id>.tif, label maps
                       that are not to stay
    .lock              held by the process that writes

An image's label map is written last, so an image whose label map is there is done.

What is written may change from command to command: what is asked for anew is added for all images, from the
label maps (or the runs) that are there where they are enough, and what an earlier command asked for is kept up
to date, so that everything in the folder always fits together.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellflow.config import config_differences
from cellflow.engine.prediction.exports import (
    Exports,
    Rows,
    _has_all_columns,
    count_cells,
    pixel_size_of,
    read_export_table,
)
from cellflow.engine.runtime.progress_lines import follow
from cellflow.engine.segmentation.cell_table import CELL_COLUMNS
from cellflow.errors import DataError, RunError
from cellflow.io.formats.submission import write_submission
from cellflow.io.image_source import ImageReaders
from cellflow.io.images import read_labels, write_labels
from cellflow.io.pixel_size import PixelSize
from cellflow.numeric.labels import labels_from_instances
from cellflow.numeric.rle import instances_from_rles, rles_from_labels
from cellflow.report.overlays import write_outlines
from cellflow.storage.atomic import atomic_path, remove_leftovers, write_json
from cellflow.storage.csv_text import csv_writer, write_frame
from cellflow.storage.locks import hold_lock
from cellflow.storage.records import load_json
from cellflow.storage.sizes import few_text

if TYPE_CHECKING:
    from cellflow.engine.segmentation.result import Prediction

__all__ = ["ResultFolder"]

_log = logging.getLogger(__name__)


_FORMAT = "cellflow-prediction"
_VERSION = 1
_LOCK = ".lock"
_WORK = (
    "masks", "outlines", ".parts", "cells.csv", "submission.csv", "ensemble.yaml", "prediction.json",
)  # fmt: skip
"""What a result consists of, in the order in which it is removed."""


class ResultFolder:
    """Results of a prediction on disk. Get one with `open`, which holds the folder's lock.

    Parameters
    ----------
    path : Path
        The folder.
    identity : dict
        What makes the results what they are, of JSON types: hashes of members, thresholds, settings,
        versions. A folder is only continued with an equal one.
    exports : Exports
        What is written.
    """

    def __init__(self, path: Path, *, identity: dict[str, Any], exports: Exports) -> None:
        self.path = Path(path)
        self.exports = exports
        self._record: dict[str, Any] = {
            "format": _FORMAT,
            "version": _VERSION,
            "identity": json.loads(json.dumps(identity)),  # as it is read back, to be compared
            "exports": asdict(exports),
            "images": {},
            "cells": {},
        }
        self._parts = self.path / ".parts"

    @property
    def record_path(self) -> Path:
        """What made the results, JSON."""
        return self.path / "prediction.json"

    @property
    def masks(self) -> Path:
        """Folder of label TIFFs."""
        return self.path / "masks"

    @property
    def outlines(self) -> Path:
        """Folder of pictures with outlines."""
        return self.path / "outlines"

    @property
    def cells(self) -> Path:
        """Table with a row per cell."""
        return self.path / "cells.csv"

    @property
    def settings(self) -> Path:
        """Settings of the command, YAML."""
        return self.path / "ensemble.yaml"

    @property
    def submission(self) -> Path:
        """CSV with the runs of every cell."""
        return self.path / "submission.csv"

    @classmethod
    @contextmanager
    def open(
        cls,
        path: Path,
        identity: dict[str, Any],
        *,
        exports: Exports | None = None,
        overwrite: bool = False,
        fingerprints: Mapping[str, str] | None = None,
    ) -> Iterator[ResultFolder]:
        """Start a result, or go on with one; the folder is locked while the context lasts.

        Parameters
        ----------
        path, identity, exports
            As the class takes them; all exports but outlines by default. What an earlier command wrote
            there is written as well.
        overwrite : bool
            Remove what is there first, if it is a result of a prediction. Other files in the folder stay.
        fingerprints : mapping, optional
            What tells whether an image is still the same, by id. An image that has changed since it was
            predicted counts as not done.

        Raises
        ------
        DataError
            If there is something else, or a result with another identity.
        RunError
            If another process writes there.
        """
        folder = cls(path, identity=identity, exports=exports or Exports())
        _check_place(folder.path, overwrite=overwrite)
        with _only_writer(folder.path):
            if overwrite:
                for name in _WORK:
                    _remove(folder.path / name)
            folder._start()
            folder._forget_changed(fingerprints or {})
            yield folder

    def done(self) -> set[str]:
        """Ids of the images of which everything is there."""
        listed = set(self._listed())
        done = _ids(self._marks, ".tif")
        if not self.exports.masks:
            done |= listed
        if self.exports.outlines:
            done &= _ids(self.outlines, ".png")
        return done & self._measured(listed)

    def complete(self, readers: ImageReaders) -> None:
        """Make what is missing of images where the label maps that are there are enough for it.

        What cannot be made so, because an image or its label map is damaged, is left to be predicted.

        Parameters
        ----------
        readers : mapping of str to callable
            Images, see `find_images`.
        """
        listed = set(self._listed())
        maps = _ids(self.masks, ".tif") | _ids(self._parts, ".tif")
        known = (maps | listed if self.exports.submission else maps) & self._measured(listed)
        missing = known - self.done()
        names = [name for name in readers if name in missing]
        runs = read_export_table(self.submission, missing - maps)
        for name in follow(names, "from label maps", brief=True):
            with suppress(DataError):
                image = readers[name]()
                labels = self._known_labels(name, image.shape[:2], runs)
                if self.exports.outlines:
                    write_outlines(self.outlines / f"{name}.png", image, labels)
                write_labels(self._mask(name), labels, pixel_size_of(readers[name]))

    def _measured(self, listed: set[str]) -> set[str]:
        """Ids of the images whose cells are in a table; of all where no table is wanted."""
        if self.exports.cells:
            return _ids(self._parts, ".csv") | listed
        return listed | _ids(self.masks, ".tif") | _ids(self._parts, ".tif")

    def _known_labels(self, image_id: str, shape: tuple[int, ...], runs: Rows) -> NDArray[np.int32]:
        """The label map of an image, from its file or from its rows in the submission."""
        for folder in (self.masks, self._parts):
            if (folder / f"{image_id}.tif").is_file():
                return read_labels(folder / f"{image_id}.tif")
        if image_id not in runs:
            raise DataError(f"{self.submission}: expected rows of the image {image_id!r}.")
        cells = [row[1] for row in runs[image_id] if row[1]]
        return labels_from_instances(instances_from_rles(cells, (shape[0], shape[1])))

    def write(
        self,
        image_id: str,
        prediction: Prediction,
        image: NDArray[Any],
        pixel_size: PixelSize | None = None,
    ) -> None:
        """Write all that belongs to one image, its label map last.

        Parameters
        ----------
        image_id : str
            Names the files.
        prediction : Prediction
            What was predicted for it.
        image : (H, W) or (H, W, C) ndarray
            The native image, for the outlines.
        pixel_size : PixelSize, optional
            Micrometres per pixel, for the label map and the cells.
        """
        if self.exports.outlines:
            write_outlines(self.outlines / f"{image_id}.png", image, prediction.labels)
        if self.exports.cells:
            area = math.nan if pixel_size is None else pixel_size.area
            table = replace(prediction, pixel_area=area).cells
            table.insert(0, "id", image_id)
            with (
                atomic_path(self._parts / f"{image_id}.csv") as temporary,
                temporary.open("w", encoding="utf-8", newline="") as file,
            ):
                write_frame(file, table, header=False)
        write_labels(self._mask(image_id), prediction.labels, pixel_size)

    def finish(self, ids: Iterable[str]) -> dict[str, int]:
        """Write the tables; they hold the images of `ids` that are done, in their order, and no others.

        What only served to go on is removed when all of `ids` are done. Does nothing if the tables are
        there and hold just these.

        Parameters
        ----------
        ids : iterable of str
            All images that were asked for, each once.

        Returns
        -------
        dict of str to int
            Cells of every image in the tables.
        """
        wanted, done = list(ids), self.done()
        names = [name for name in wanted if name in done]
        listed = self._listed()
        counts = {name: listed[name] for name in names if name in listed}
        if list(listed) != names or not self._tables_are_there(every=True):
            # Images that leave the tables are not to pass for done if the next lines are interrupted.
            self._list(counts)
            if self.exports.cells:
                self._write_cells(names)
            counts = self._write_submission(names, counts)
            self._list(counts)
        if len(names) == len(wanted):
            _remove(self._parts)
        return counts

    def check_kept(self, ids: Iterable[str]) -> None:
        """Refuse to drop images that an earlier command put into the tables and nobody has removed.

        Raises
        ------
        DataError
            Naming some of them.
        """
        others = [name for name in self._record["cells"] if name not in set(ids)]
        if others:
            raise DataError(
                f"{self.path} holds the prediction of other images ({few_text(others)}), which would leave "
                "its tables. Name these images too, choose another --name, or add --overwrite."
            )

    def _start(self) -> None:
        """Write the record of a new result, or check that the one there is the same."""
        for place in (self.path, self.masks, self.outlines, self._parts):
            remove_leftovers(place)
        if not self.record_path.exists():
            write_json(self.record_path, self._record)
            return
        old = _read_record(self.record_path)
        if old is None:
            raise DataError(_not_ours(self.path))
        changes = config_differences(_compared(old), _compared(self._record))
        if changes:
            raise DataError(
                f"{self.path} holds a prediction made with something else (old -> new):\n"
                + "\n".join(f"  - {line}" for line in changes)
                + "\nGo back to the old to continue it, add --overwrite to replace it, or choose "
                "another --name."
            )
        self._record = old
        self._widen(Exports(**old["exports"]))

    def _widen(self, old: Exports) -> None:
        """Write what was asked for before as well, so that nothing in the folder grows old."""
        asked = asdict(self.exports)
        kept = [name for name, was in asdict(old).items() if was and not asked[name]]
        self.exports = Exports(**(asked | dict.fromkeys(kept, True)))
        if kept:
            _log.info(
                "%s: %s of an earlier command %s kept up to date; --overwrite starts anew without",
                self.path, " and ".join(kept), "is" if kept == ["submission"] else "are",
            )  # fmt: skip
        if self.exports != old:
            self._record = self._record | {"exports": asdict(self.exports)}
            write_json(self.record_path, self._record)

    def _forget_changed(self, fingerprints: Mapping[str, str]) -> None:
        """Remove what was made of images that are others now, before the new ones are known."""
        known: dict[str, str] = self._record.get("images", {})
        changed = {name for name, text in fingerprints.items() if known.get(name, text) != text}
        for name in changed:
            maps = [folder / f"{name}.tif" for folder in (self.masks, self._parts)]
            others = self._parts / f"{name}.csv", self.outlines / f"{name}.png"
            for path in (*maps, *others):
                path.unlink(missing_ok=True)
        cells = {name: n for name, n in self._record["cells"].items() if name not in changed}
        images = dict(sorted({**known, **fingerprints}.items()))
        if changed or images != known:
            self._record = self._record | {"images": images, "cells": cells}
            write_json(self.record_path, self._record)

    def _listed(self) -> dict[str, int]:
        """Images in the tables with their cells; none if a table that cannot be made again is missing."""
        return dict(self._record["cells"]) if self._tables_are_there() else {}

    def _list(self, cells: dict[str, int]) -> None:
        if list(self._record["cells"].items()) != list(cells.items()):
            self._record = self._record | {"cells": dict(cells)}
            write_json(self.record_path, self._record)

    def _tables_are_there(self, *, every: bool = False) -> bool:
        """Whether the tables are there: all that were asked for, or those that masks do not hold too."""
        asked = []
        if self.exports.submission and (every or not self.exports.masks):
            asked.append(self.submission)
        measured = not self.exports.cells or _has_all_columns(self.cells)
        return measured and all(path.is_file() for path in asked)

    @property
    def _marks(self) -> Path:
        """Folder of the label maps that say which images are done."""
        return self.masks if self.exports.masks else self._parts

    def _mask(self, image_id: str) -> Path:
        return self._marks / f"{image_id}.tif"

    def _write_cells(self, names: Sequence[str]) -> None:
        """The rows of the images' parts, and those of the old table where the parts are gone."""
        parts = {name: self._parts / f"{name}.csv" for name in names}
        kept = {name for name, part in parts.items() if not part.is_file()}
        old = read_export_table(self.cells, kept)
        with (
            atomic_path(self.cells) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv_writer(file)
            writer.writerow(["id", *CELL_COLUMNS])
            for name, part in parts.items():
                if name in kept:
                    writer.writerows(old.get(name, []))
                else:
                    file.write(part.read_bytes().decode())

    def _write_submission(self, names: Sequence[str], listed: dict[str, int]) -> dict[str, int]:
        """The rows of the label maps, and those of the old table where they are gone; counts cells."""
        counts: dict[str, int] = {}
        kept = {name for name in names if not self._mask(name).is_file()}
        old = read_export_table(self.submission, kept) if self.exports.submission else {}

        def rows() -> Iterator[tuple[str, list[str]]]:
            for name in follow(names, "submission", brief=True):
                if name in kept:
                    runs = [row[1] for row in old.get(name, []) if row[1]]
                else:
                    runs = rles_from_labels(read_labels(self._mask(name)))
                counts[name] = len(runs)
                yield name, runs

        if self.exports.submission:
            write_submission(self.submission, rows())
            return counts
        return {
            name: listed[name] if name in kept else count_cells(self._mask(name)) for name in names
        }


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


def _check_place(path: Path, *, overwrite: bool) -> None:
    """Refuse a folder of something else, before anything is written into it."""
    if path.exists() and not path.is_dir():
        raise DataError(f"{path}: expected a folder for the results, found a file.")
    there = {item.name for item in path.iterdir()} - {_LOCK} if path.is_dir() else set()
    if not there or _read_record(path / "prediction.json") is not None:
        return
    # What `cellflow ensemble` wrote before there was a record in the folder. Nothing less will do: a
    # folder with images/ and masks/ may well be somebody's annotations.
    older = "submission.csv" in there and there <= {"masks", "submission.csv"}
    if not older:
        raise DataError(_not_ours(path))
    if not overwrite:
        raise DataError(
            f"{path} holds the result of an older cellflow. Add --overwrite to replace it, or choose "
            "another --name."
        )


def _not_ours(path: Path) -> str:
    return (
        f"{path}: expected no folder, an empty one or a result of `cellflow predict`; found files and "
        "no prediction.json of cellflow. It is not overwritten: choose another --name, or move it away."
    )


def _read_record(path: Path) -> dict[str, Any] | None:
    """What made a result, or None if the file is missing or not ours."""
    with suppress(OSError, ValueError):
        record = load_json(path)
        if isinstance(record, dict) and record.get("format") == _FORMAT and "version" in record:
            parts: dict[str, Any] = {"images": {}, **record}
            kinds = [
                isinstance(parts.get(key), dict)
                for key in ("identity", "exports", "images", "cells")
            ]
            if all(kinds) and all(type(count) is int for count in record["cells"].values()):
                return record if record["exports"].keys() == asdict(Exports()).keys() else None
    return None


def _compared(record: dict[str, Any]) -> dict[str, Any]:
    """The part of a record that must be equal, with the names people know on top."""
    compared = dict(record["identity"], **{"format version": record["version"]})
    with suppress(
        KeyError, TypeError, AttributeError
    ):  # a record of another version, or a damaged one
        compared["members"] = ", ".join(
            f"{item['name']} ({item['hash'][:8]})" + (f" for {only}" if only else "")
            for item in compared["members"]
            for only in [item.get("only_type")]
        )
    return compared


def _ids(folder: Path, ending: str) -> set[str]:
    """Names without ending of the files in a folder; none if there is no folder."""
    if not folder.is_dir():
        return set()
    return {item.name.removesuffix(ending) for item in folder.iterdir() if item.suffix == ending}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

"""A folder of what models say of images, for other models to be trained on.

::

    targets.json       format, kind, who made it: per part the teachers with their hashes; hash of each part
    images.csv         id,file,height,width,pixel_hash: images beside the annotated ones
    images/            their files, byte for byte
    left_out.csv       id,reason: images that were found and not taken
    fold_2/            a part: for the training that fold 2 validates; `all/` for one that nothing validates
      images.csv       id,pixel_hash,target_hash,cells,diameter, and what else there is to say
      cells.csv        a row per cell with its confidence              kind "labels"
      labels/ID.tif    label maps                                      kind "labels"
      ignored/ID.tif   255 where a pixel does not count                kind "labels"
      flows.zarr       flow and logit of each image                    kind "flows"
      annotated.csv, annotated.zarr   the same of the dataset's own images
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io.flow_store import FlowStore
from cellflow.io.images import read_image, read_labels, write_labels
from cellflow.io.source import SourceImage
from cellflow.io.tables import read_frame
from cellflow.storage.atomic import write_csv, write_json
from cellflow.storage.hashing import hash_array, hash_json
from cellflow.storage.records import dict_or_empty, read_json

__all__ = ["ALL", "TargetFolder", "TargetWriter", "Teacher", "part_of"]

FORMAT = "cellflow-targets"
VERSION = 1
ALL = "all"
"""Part for a training whose score is not honest, since its teachers have seen all images."""
KINDS = ("labels", "flows")
Kind = Literal["labels", "flows"]
_PIXELS = ["id", "file", "height", "width", "pixel_hash"]
_TARGETS = ["id", "pixel_hash", "target_hash", "cells", "diameter"]
_TEXT = ("id", "file", "pixel_hash", "target_hash")
_OWN = ("images", "annotated")
"""Tables of a part: of the other images, and of the dataset's own."""


def part_of(fold: int) -> str:
    """Part for the training that a fold validates."""
    return f"fold_{fold}"


class Teacher(NamedTuple):
    """A model that had a part in targets: whose it is, its file's hash, and what it was trained on."""

    run: str
    fold: int
    hash: str
    data_hash: str
    folds_hash: str


class TargetFolder:
    """Reads a folder of targets.

    Attributes
    ----------
    path : Path
        The folder.
    kind : {"labels", "flows"}
        What the targets are.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path, self._facts = path, facts
        self._tables: dict[str, dict[str, pd.DataFrame]] = {}
        self.kind: Kind = "flows" if facts["kind"] == "flows" else "labels"

    @classmethod
    def open(cls, path: Path | str) -> TargetFolder:
        """Open a folder.

        Raises
        ------
        DataError
            If it is none, or damaged, or a later cellflow wrote it.
        """
        path = Path(path)
        file = path / "targets.json"
        facts = dict_or_empty(read_json(file))
        found = facts.get("format"), facts.get("version"), facts.get("kind")
        if found[:2] != (FORMAT, VERSION) or found[2] not in KINDS:
            what = f"{found[0]} of version {found[1]}" if file.is_file() else "no such file"
            raise DataError(
                f"{file}: expected the record of targets that models made ({FORMAT} of version {VERSION}), "
                f"found {what}. Make them with: cellflow pseudo RUN --images FOLDER",
                path=file, expected=FORMAT, found=found[0],
            )  # fmt: skip
        return cls(path, facts)

    def __reduce__(self) -> tuple[Any, ...]:
        return TargetFolder.open, (self.path,)

    @property
    def name(self) -> str:
        """Name of the round."""
        return self.path.resolve().name

    @property
    def parts(self) -> list[str]:
        """Names of the parts."""
        return sorted(dict_or_empty(self._facts.get("parts")))

    @property
    def is_final(self) -> bool:
        """Whether the targets are for a network that no fold validates, made by models that know all images."""
        return self.parts == [ALL]

    def part(self, fold: int) -> str:
        """Part for the training of a fold."""
        return ALL if self.is_final else part_of(fold)

    @property
    def identity(self) -> str:
        """Name and content, in a line; of flows also whose they are, and on what images beside the annotated ones."""
        text = f"{self.name} ({hash_json({part: self.hash(part) for part in self.parts})})"
        if self.kind != "flows":
            return text
        others = dict_or_empty(self._facts.get("fingerprints"))
        images = f", {len(others)} other images {hash_json(others)}" if others else ""
        return f"{text} by {' '.join(map(str, self._facts.get('runs', [])))}{images}"

    def hash(self, part: str) -> str:
        """Hash of a part: changes with any image and any target."""
        return str(self._part(part).get("hash"))

    def teachers(self, part: str) -> list[Teacher]:
        """Who made a part."""
        try:
            return [
                Teacher(
                    str(item["run"]), int(item["fold"]), str(item["hash"]),
                    str(item["data_hash"]), str(item["folds_hash"]),
                )
                for item in self._part(part)["teachers"]
            ]  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(
                self.path / "targets.json", f"teachers of {part}: {error!r}"
            ) from None

    def table(self, part: str, *, annotated: bool = False) -> pd.DataFrame:
        """A row per image of a part, by id: pixel_hash, target_hash, cells, diameter in pixels.

        Raises
        ------
        DataError
            If it is not what the record says.
        """
        if part not in self._tables:
            where = self.path / part
            tables = {own: read_frame(where / f"{own}.csv", _TARGETS, text=_TEXT) for own in _OWN}
            if _part_hash(tables) != self.hash(part):
                raise self._damaged(where, "its tables are not those that the record tells of")
            for own, table in tables.items():
                self._check_names(where / f"{own}.csv", table["id"])
            self._tables[part] = {own: table.set_index("id") for own, table in tables.items()}
        return self._tables[part][_OWN[annotated]]

    def image(self, name: str) -> NDArray[Any]:
        """Pixels of an image, ``(H, W)`` or ``(H, W, C)``, unchanged since they were written."""
        row = self._images.loc[name].to_dict()
        path = self.path / "images" / str(row["file"])
        pixels = read_image(path, max_pixels=int(row["height"]) * int(row["width"]))
        if hash_array(pixels) != row["pixel_hash"]:
            raise self._damaged(path, "the image has changed")
        return pixels

    def labels(self, part: str, name: str) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Labels ``(H, W)`` of an image in a part, and the pixels that do not count."""
        paths = [self.path / part / folder / f"{name}.tif" for folder in ("labels", "ignored")]
        labels, ignored = (read_labels(path) for path in paths)
        self._check(part, name, hash_array(np.stack([labels, ignored])), annotated=False)
        return labels, ignored > 0

    def flows(self, part: str, name: str, *, annotated: bool) -> NDArray[np.float16]:
        """Flow and logit of an image in a part, ``(3, H, W)`` float16 as the network puts them out."""
        store = FlowStore(self.path / part / f"{'annotated' if annotated else 'flows'}.zarr")
        flow, cellprob = store.read(name)
        stacked: NDArray[np.float16] = np.concatenate([flow, cellprob[np.newaxis]])
        self._check(part, name, hash_array(stacked), annotated=annotated)
        return stacked

    @cached_property
    def _images(self) -> pd.DataFrame:
        table = read_frame(self.path / "images.csv", _PIXELS, text=_TEXT)
        for column in ("id", "file"):
            self._check_names(self.path / "images.csv", table[column])
        return table.set_index("id")

    def _check_names(self, path: Path, names: Iterable[str]) -> None:
        for name in names:
            if Path(name).name != name or "\0" in name:
                raise self._damaged(path, f"{name!r} is no name of a file")

    def _part(self, part: str) -> dict[str, Any]:
        return dict_or_empty(dict_or_empty(self._facts.get("parts")).get(part))

    def _check(self, part: str, name: str, found: str, *, annotated: bool) -> None:
        if found != self.table(part, annotated=annotated).at[name, "target_hash"]:
            raise self._damaged(self.path / part, f"the target of {name!r} has changed")

    def _damaged(self, path: Path, why: str) -> DataError:
        return DataError(
            f"{path}: not what cellflow wrote ({why}). Make the targets again under another --name; labels that "
            "were corrected by hand are annotations: cellflow prepare takes them.",
            path=path,
        )


class TargetWriter:
    """Writes a folder of targets, image by image.

    Parameters
    ----------
    folder : Path
        An empty folder; make it with `atomic_folder`, so that nothing half-written stays.
    kind : {"labels", "flows"}
        What the targets are.
    """

    def __init__(self, folder: Path, kind: Kind) -> None:
        self._folder, self._kind = folder, kind
        (folder / "images").mkdir()
        self._images: list[dict[str, Any]] = []
        self._rows = defaultdict[str, dict[str, list[Any]]](lambda: defaultdict(list))
        self._cells = defaultdict[str, list[pd.DataFrame]](list)

    def add_image(self, source: SourceImage, pixels: NDArray[Any]) -> str:
        """Write an image beside the annotated ones; the hash of its pixels."""
        name, marks = source.save_pixels(self._folder / "images", pixels), hash_array(pixels)
        shape = pixels.shape[0], pixels.shape[1]
        self._images.append(dict(zip(_PIXELS, (source.id, name, *shape, marks), strict=True)))
        return marks

    def add_labels(
        self,
        part: str,
        name: str,
        labels: NDArray[np.int32],
        ignored: NDArray[np.bool_],
        *,
        pixel_hash: str,
        facts: Mapping[str, Any],
        cells: pd.DataFrame,
    ) -> None:
        """Write labels and what is ignored; `facts` has cells and diameter, and whatever else is to be told."""
        where, hidden = self._folder / part, ignored.astype(np.int32) * 255
        write_labels(where / "labels" / f"{name}.tif", labels)
        write_labels(where / "ignored" / f"{name}.tif", hidden)
        target = hash_array(np.stack([labels.astype(np.int32), hidden]))
        row = {"id": name, "pixel_hash": pixel_hash, "target_hash": target, **facts}
        self._rows[part][_OWN[False]].append(row)
        self._cells[part].append(cells)

    def add_flows(
        self,
        part: str,
        name: str,
        flow: NDArray[Any],
        cellprob: NDArray[Any],
        *,
        pixel_hash: str,
        facts: Mapping[str, Any],
        annotated: bool,
    ) -> None:
        """Write flow ``(2, H, W)`` and logit ``(H, W)``."""
        path = self._folder / part / f"{'annotated' if annotated else 'flows'}.zarr"
        path.parent.mkdir(exist_ok=True)
        FlowStore(path, mode="a" if path.exists() else "w").write(name, flow, cellprob)
        stacked = np.concatenate([flow, cellprob[np.newaxis]]).astype(np.float16)
        row = {"id": name, "pixel_hash": pixel_hash, "target_hash": hash_array(stacked), **facts}
        self._rows[part][_OWN[annotated]].append(row)

    def finish(
        self,
        facts: Mapping[str, Any],
        parts: Mapping[str, Mapping[str, Any]],
        left_out: Mapping[str, str],
    ) -> None:
        """Write the tables and the record; `parts` says of each who made it."""
        write_csv(self._folder / "images.csv", pd.DataFrame(self._images, columns=_PIXELS))
        reasons = {"id": list(left_out), "reason": list(left_out.values())}
        write_csv(self._folder / "left_out.csv", pd.DataFrame(reasons))
        record = {}
        for part, told in parts.items():
            rows, empty = self._rows[part], pd.DataFrame(columns=_TARGETS)
            tables = {own: pd.DataFrame(rows[own]) if own in rows else empty for own in _OWN}
            for own, table in tables.items():
                write_csv(self._folder / part / f"{own}.csv", table)
            if part in self._cells:
                cells = pd.concat(self._cells[part], ignore_index=True)
                write_csv(self._folder / part / "cells.csv", cells)
            record[part] = {"hash": _part_hash(tables), **told}
        head = {"format": FORMAT, "version": VERSION, "kind": self._kind}
        write_json(self._folder / "targets.json", {**head, **facts, "parts": record})


def _part_hash(tables: Mapping[str, pd.DataFrame]) -> str:
    """Hash of the images and targets of a part, whatever the order of the rows."""
    columns = ["id", "pixel_hash", "target_hash"]
    texts = {own: table[columns].astype(str).to_numpy() for own, table in tables.items()}
    return hash_json({own: sorted(rows.tolist()) for own, rows in texts.items()})

"""``coco.json``: all cells as COCO annotations; ``coco_results.json``: the same as COCO results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import ClassVar

from cellflow.engine.exports.export import PARTS, Export, Labels, PredictedImage, ids_of_files
from cellflow.engine.segmentation.cell_table import cell_confidences
from cellflow.io.formats.coco import (
    CocoTable,
    ImageCells,
    ListedImage,
    cells_of_labels,
    read_written,
    write_coco,
)
from cellflow.io.problems import Problems
from cellflow.numeric.coco_rle import instances_from_coco_rles
from cellflow.numeric.labels import labels_from_instances
from cellflow.storage.atomic import write_text
from cellflow.storage.records import load_json

__all__ = ["Coco"]

_ENDING = ".coco"


class Coco(Export):
    """Two files of all cells; ``.parts/ID.coco`` holds the cells of an image until they are written."""

    path = "coco.json"
    beside: ClassVar[tuple[str, ...]] = ("coco_results.json",)
    content = "COCO annotations, and results with scores in coco_results.json"
    from_labels = False  # scores are of the network's output

    def done(self, folder: Path, listed: AbstractSet[str]) -> set[str] | None:
        """Images with a part, and those in the files."""
        return ids_of_files(folder / PARTS, _ENDING) | listed

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Keep the cells of one image."""
        assert item.prediction is not None
        scores = cell_confidences(
            item.labels,
            cellprob=item.prediction.cellprob,
            disagreement=item.prediction.disagreement,
        )
        height, width = item.labels.shape
        part: ImageCells = {
            "id": item.id, "file_name": _file_name(item), "height": height, "width": width,
            "cell_type": item.prediction.cell_type, "cells": cells_of_labels(item.labels, scores),
        }  # fmt: skip
        write_text(_part(folder, item.id), json.dumps(part, ensure_ascii=False))

    def finish(
        self, folder: Path, ids: Sequence[str], labels: Callable[[str], Labels | None]
    ) -> None:
        """The images' parts, and what the old files have where the parts are gone."""
        kept = {name for name in ids if not _part(folder, name).is_file()}
        old = read_written(folder / self.path, kept) if kept else {}

        def images() -> Iterator[ImageCells]:
            for name in ids:
                yield old[name] if name in kept else _read_part(folder, name)

        write_coco(folder / self.path, folder / self.beside[0], images)

    def is_finished(self, folder: Path) -> bool:
        """Whether both files are there."""
        return all((folder / name).is_file() for name in (self.path, *self.beside))

    def forget(self, folder: Path, image_id: str) -> None:
        """Remove the part of an image."""
        _part(folder, image_id).unlink(missing_ok=True)

    def known_labels(
        self, folder: Path, ids: AbstractSet[str]
    ) -> Mapping[str, Callable[[tuple[int, int]], Labels]]:
        """Label maps of the images in the file."""
        if not ids or not (folder / self.path).is_file():
            return {}
        table = CocoTable(folder / self.path, Problems())
        table.read()
        return {
            image.own_id: partial(_labels, image)
            for image in table.images.values()
            if image.own_id in ids
        }


def _part(folder: Path, image_id: str) -> Path:
    return folder / PARTS / f"{image_id}{_ENDING}"


def _read_part(folder: Path, image_id: str) -> ImageCells:
    part: ImageCells = load_json(_part(folder, image_id))
    return part


def _labels(image: ListedImage, shape: tuple[int, int]) -> Labels:
    return labels_from_instances(instances_from_coco_rles(image.cells, image.shape))


def _file_name(item: PredictedImage) -> str:
    """The image's file, with the folders that its id has in front; the id where there is no file."""
    if item.path is None:
        return f"{item.id}.tif"
    folders = item.id.split("__")
    in_front = (
        len(folders) if item.path.with_suffix("").parts[-len(folders) :] == tuple(folders) else 1
    )
    return "/".join(item.path.parts[-in_front:])

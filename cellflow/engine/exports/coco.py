"""``coco.json``: all cells as COCO annotations; ``coco_results.json``: the same as COCO results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import ClassVar

from cellflow.engine.exports.export import Labels, PredictedImage, TableExport
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


class Coco(TableExport):
    """Two files of all cells."""

    path = "coco.json"
    beside: ClassVar[tuple[str, ...]] = ("coco_results.json",)
    content = "COCO annotations, and results with scores in coco_results.json"
    ending = ".coco"

    def write(self, folder: Path, item: PredictedImage) -> None:
        """Keep the cells of one image."""
        made = item.predicted
        scores = cell_confidences(
            item.labels, cellprob=made.cellprob, disagreement=made.disagreement
        )
        height, width = item.labels.shape
        part: ImageCells = {
            "id": item.id, "file_name": _file_name(item), "height": height, "width": width,
            "cell_type": made.cell_type, "cells": cells_of_labels(item.labels, scores),
        }  # fmt: skip
        write_text(self.file(folder, item.id), json.dumps(part, ensure_ascii=False))

    def finish(
        self, folder: Path, ids: Sequence[str], labels: Callable[[str], Labels | None]
    ) -> None:
        """The images' parts, and what the old files have where the parts are gone."""
        kept = {name for name in ids if not self.file(folder, name).is_file()}
        old = read_written(folder / self.path, kept) if kept else {}

        def images() -> Iterator[ImageCells]:
            for name in ids:
                yield old[name] if name in kept else load_json(self.file(folder, name))

        write_coco(folder / self.path, folder / self.beside[0], images)

    def is_finished(self, folder: Path) -> bool:
        """Whether both files are there."""
        return all((folder / name).is_file() for name in (self.path, *self.beside))

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

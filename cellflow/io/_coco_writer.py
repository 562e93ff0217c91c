"""Write COCO annotations and results, and get the cells of an image back from what was written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.io._coco_segments import compressed, read_segment
from cellflow.io.json_entries import read_entries
from cellflow.io.shapes import Outline, outlines_from_labels
from cellflow.numeric.coco_rle import coco_counts_from_labels
from cellflow.storage.atomic import atomic_path

ImageCells = dict[str, Any]
"""An image and its cells: ``id``, ``file_name``, ``height``, ``width``, ``cell_type`` (may be empty) and ``cells``,
each with ``label``, ``segmentation``, ``bbox``, ``area`` and ``score``."""

NO_TYPE = "cell"
"""Category of cells whose type is not known."""
_OF_CELL = ("label", "segmentation", "bbox", "area", "score")


def cells_of_labels(labels: NDArray[np.int32], scores: Mapping[int, float]) -> list[dict[str, Any]]:
    """What COCO says of the cells of a label map, in the order of their numbers.

    A cell is a polygon where it is one part without holes and pycocotools makes just its pixels of that;
    else run lengths. Its ``bbox`` is x, y, width and height in pixels.
    """
    shape = (labels.shape[0], labels.shape[1])
    outlines = outlines_from_labels(labels)
    found = []
    for (number, outline), counts in zip(
        outlines.items(), coco_counts_from_labels(labels), strict=True
    ):
        text = compressed(counts, shape)
        cell = {"label": number, "segmentation": _run_lengths(text, shape)}
        polygon = _polygon(outline)
        if polygon and read_segment([polygon], shape).counts == text:
            cell["segmentation"] = [polygon]
        corners = np.concatenate([ring for part in outline for ring in part]).astype(int)
        (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        cell["bbox"] = [left, top, right - left, bottom - top]
        cell["area"] = int(counts[1::2].sum())
        cell["score"] = round(float(scores[number]), 6)
        found.append(cell)
    return found


def write_coco(
    annotations: Path, results: Path, images: Callable[[], Iterable[ImageCells]]
) -> None:
    """Write a file of annotations, and the list of results that belongs to it, atomically.

    The annotations have all that COCO asks for, and ``cellflow_id`` of images, ``label`` and ``score`` of cells; the
    results have run lengths only, as ``pycocotools`` loads them. `images` is called more than once: the file begins
    with what is known of all images.
    """
    heads: list[dict[str, Any]] = []
    types: dict[str, int] = {}
    for image in images():
        heads.append({
            "id": len(heads) + 1, "file_name": image["file_name"], "height": image["height"],
            "width": image["width"], "cellflow_id": image["id"],
        })  # fmt: skip
        types.setdefault(image["cell_type"] or NO_TYPE, len(types) + 1)
    types = types or {NO_TYPE: 1}
    with (
        atomic_path(results) as results_path,
        atomic_path(annotations) as annotations_path,
        annotations_path.open("w", encoding="utf-8", newline="\n") as file,
        results_path.open("w", encoding="utf-8", newline="\n") as list_file,
    ):
        file.write(
            '{\n"info": {"description": "cells predicted by cellflow"},\n"licenses": [],\n"images": ['
        )
        _write_lines(file, heads)
        file.write('],\n"categories": [')
        _write_lines(file, ({"id": number, "name": name} for name, number in types.items()))
        file.write('],\n"annotations": [')
        _write_lines(file, _annotations(images(), types))
        file.write("]\n}\n")
        list_file.write("[")
        _write_lines(list_file, _results(images(), types))
        list_file.write("]\n")


def read_written(path: Path, ids: AbstractSet[str]) -> dict[str, ImageCells]:
    """Images that `write_coco` wrote, by the ids that it was given; those of `ids` that are there."""
    images: dict[int, ImageCells] = {}
    types: dict[int, str] = {}
    try:
        for section, entry in read_entries(path):
            if section == "images" and entry["cellflow_id"] in ids:
                known = {key: entry[key] for key in ("file_name", "height", "width")}
                own = {"id": entry["cellflow_id"], "cell_type": "", "cells": []}
                images[entry["id"]] = own | known
            elif section == "categories":
                types[entry["id"]] = "" if entry["name"] == NO_TYPE else entry["name"]
            elif section == "annotations" and entry["image_id"] in images:
                image = images[entry["image_id"]]
                image["cell_type"] = types[entry["category_id"]]
                image["cells"].append({key: entry[key] for key in _OF_CELL})
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected what cellflow writes, found something else ({error!r}). Remove the file and "
            "repeat the command.",
            path=path,
        ) from error
    return {image["id"]: image for image in images.values()}


def _polygon(outline: Outline) -> list[int]:
    """Corners x, y, x, y, ... of a cell of one part without holes; empty for others."""
    if len(outline) > 1 or len(outline[0]) > 1:
        return []
    corners: list[int] = outline[0][0][:-1].astype(int).reshape(-1).tolist()
    return corners


def _run_lengths(text: bytes, shape: tuple[int, int]) -> dict[str, Any]:
    return {"size": list(shape), "counts": text.decode("ascii")}


def _annotations(
    images: Iterable[ImageCells], types: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    number = 0
    for image_id, image in enumerate(images, 1):
        category = types[image["cell_type"] or NO_TYPE]
        for cell in image["cells"]:
            number += 1
            own = {"id": number, "image_id": image_id, "category_id": category, "iscrowd": 0}
            yield own | cell


def _results(images: Iterable[ImageCells], types: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Without boxes: where there are any, pycocotools takes the areas of these for those of the cells."""
    for image_id, image in enumerate(images, 1):
        shape = image["height"], image["width"]
        category = types[image["cell_type"] or NO_TYPE]
        for cell in image["cells"]:
            text = read_segment(cell["segmentation"], shape).counts
            yield {
                "image_id": image_id, "category_id": category,
                "segmentation": _run_lengths(text, shape), "score": cell["score"],
            }  # fmt: skip


def _write_lines(file: TextIO, entries: Iterable[Mapping[str, Any]]) -> None:
    """Entries of a list, one a line."""
    between = "\n"
    for entry in entries:
        file.write(between + json.dumps(entry, ensure_ascii=False, allow_nan=False))
        between = ",\n"
    file.write("\n")

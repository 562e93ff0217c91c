"""Labels for images without annotation, fold by fold, with what is in doubt marked to be ignored."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from cellflow.config import PseudoConfig, check_config
from cellflow.engine.prediction.candidates import Screened, check_free, known_images, screen
from cellflow.engine.prediction.teachers import Teachers, find_teachers
from cellflow.engine.runs.identity import free_name, versions
from cellflow.engine.runtime.machine import choose_machine
from cellflow.engine.runtime.progress_lines import follow
from cellflow.engine.segmentation.cell_table import measure_cells
from cellflow.engine.segmentation.mask_step import make_labels
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.errors import DataError, NotFiniteError
from cellflow.io.image_source import find_images, source_folders
from cellflow.io.pixel_limit import at_most
from cellflow.io.source import SourceImage
from cellflow.io.target_folder import TargetWriter
from cellflow.numeric.averaging import average_flows
from cellflow.numeric.labels import median_diameter
from cellflow.numeric.pseudo_labels import Trusted, cell_agreement, trust_cells
from cellflow.storage.atomic import atomic_folder
from cellflow.types import one_line

__all__ = ["PseudoResult", "pseudo"]

_SHOWN = ["label", "area", "centroid_y", "centroid_x", "confidence"]
"""Columns of a cell table that are kept."""


@one_line
@dataclass(frozen=True, eq=False)
class PseudoResult:
    """Where the labels are, and what they come to.

    Attributes
    ----------
    folder : Path
        What ``cellflow train --pseudo`` takes.
    images : int
        Images that were labelled.
    parts : dict of str to pandas.DataFrame
        For each fold a row per image: id, cells, found, ignored (part of the pixels), diameter in pixels.
    left_out : dict of str to str
        Why images were passed over.
    failed : dict of str to str
        Why images could not be used.
    next : str
        What to type next.
    """

    folder: Path
    images: int
    parts: dict[str, pd.DataFrame]
    left_out: dict[str, str]
    failed: dict[str, str]
    next: str


def pseudo(config: PseudoConfig) -> PseudoResult:
    """Label images without annotation with the models of each fold, and mark what is in doubt.

    The labels that a fold is to be trained on come from models that have not seen its validation images, see
    `cellflow.engine.prediction.teachers`. Cells of little confidence, cells that views see differently, and regions
    where flows are apart are marked to be ignored. Images of the dataset itself, in whatever form, are left out.

    Raises
    ------
    RunError, DataError, CheckpointError, LeakError
        If there is no such run or image, runs do not fit together, or the round is there already.

    Examples
    --------
    With the run ``runs/exp``; the folder has images that it was trained on, and those are left out:

    >>> from pathlib import Path
    >>> from cellflow import PseudoConfig, pseudo
    >>> result = pseudo(PseudoConfig(runs=("exp",), images=(Path("images"),)))
    >>> result.folder.as_posix(), result.images, len(result.left_out)
    ('pseudo/round1', 0, 6)
    """
    check_config(config)
    with at_most(config.files.max_pixels):
        return _pseudo(config)


def _pseudo(config: PseudoConfig) -> PseudoResult:
    folder = config.out / (config.name or free_name(config.out, "round", 1))
    check_free(folder, "targets.json", overwrite=config.overwrite)
    images = find_images(config.images, **config.files.search)
    machine = choose_machine(config.runtime)
    teachers = find_teachers(
        config.runs, config.runs_dir, machine, data=config.data, unfinished=config.unfinished,
        mask=config.mask,
    )  # fmt: skip
    found = screen(images, known_images(teachers.dataset))
    with atomic_folder(folder, replace=config.overwrite) as new:
        writer = TargetWriter(new, "labels")
        rows = _label_all(config, teachers, images, found, writer)
        writer.finish(
            _record(config, teachers),
            teachers.records(),
            found.left_out | found.failed,
        )
    tables = {part: pd.DataFrame(rows[part], columns=_COLUMNS) for part in teachers.opened}
    settings = teachers.runs[0].settings("train")
    command = (
        f"cellflow train --config {shlex.quote(str(settings))} --name NEW --fold all --pseudo "
        f"{shlex.quote(str(folder))}"
    )
    count = len(next(iter(tables.values())))
    return PseudoResult(folder, count, tables, found.left_out, found.failed, command)


_COLUMNS = ["id", "cells", "found", "ignored", "diameter"]


def _label_all(
    config: PseudoConfig,
    teachers: Teachers,
    images: Mapping[str, SourceImage],
    found: Screened,
    writer: TargetWriter,
) -> dict[str, list[dict[str, Any]]]:
    """Label each image for each fold, one image in memory at a time; those that fail go to ``found.failed``."""
    segmenters = teachers.segmenters(config.batch_size)
    rows: dict[str, list[dict[str, Any]]] = {part: [] for part in segmenters}
    for name in follow(found.ids, "labelling"):
        try:
            pixels = images[name].pixels()
            labelled = {part: _label(each, pixels, config) for part, each in segmenters.items()}
        except (DataError, NotFiniteError) as error:
            found.failed[name] = str(error)
            continue
        marks = writer.add_image(images[name], pixels)
        for part, item in labelled.items():
            cells = item.cells.assign(id=name)
            writer.add_labels(
                part, name, *item.trusted, pixel_hash=marks, facts=item.facts,
                cells=cells[["id", *item.cells.columns]],
            )  # fmt: skip
            rows[part].append({"id": name, **item.facts})
    return rows


class _Labelled(NamedTuple):
    """An image as the teachers of a fold see it."""

    trusted: Trusted
    cells: pd.DataFrame
    facts: dict[str, Any]


def _label(segmenter: Segmenter, pixels: NDArray[Any], config: PseudoConfig) -> _Labelled:
    """Label an image, and keep what all views agree on."""
    views, diameter, _ = segmenter.member_flows(pixels)
    flow, cellprob, disagreement = average_flows(views, variant=segmenter.average)
    labels = make_labels(flow, cellprob, diameter, segmenter.mask)
    seen = [make_labels(*view, diameter, segmenter.mask) for view in views]
    cells = measure_cells(labels, intensity=cellprob, cellprob=cellprob, disagreement=disagreement)
    cells = cells[_SHOWN]
    cells["agreement"] = cell_agreement(labels, seen)
    confident = cells["confidence"] >= config.min_confidence
    sure = (confident & (cells["agreement"] >= config.min_agreement)).to_numpy()
    trusted = trust_cells(
        labels, sure, probability=expit(cellprob), disagreement=disagreement,
        max_disagreement=config.max_disagreement,
    )  # fmt: skip
    cells["label"] = np.where(sure, np.cumsum(sure), 0)  # as in the label map; 0 is ignored
    facts = {
        "cells": int(sure.sum()),
        "found": len(cells),
        "ignored": round(float(trusted.ignored.mean()), 4),
        "diameter": round(median_diameter(trusted.labels) or diameter, 3),
    }
    return _Labelled(trusted, cells, facts)


def _record(config: PseudoConfig, teachers: Teachers) -> dict[str, Any]:
    """What made the round what it is."""
    limits = ("min_confidence", "min_agreement", "max_disagreement")
    return {
        "images": source_folders(config.images),
        **teachers.origin(),
        **{name: getattr(config, name) for name in limits},
        "versions": versions(),
    }

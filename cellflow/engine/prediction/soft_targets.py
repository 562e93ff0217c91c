"""Flows that teachers put out, averaged, as targets: of annotated images and of others, fold by fold."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cellflow.config import DistilConfig
from cellflow.engine.prediction.candidates import Screened, known_images, screen
from cellflow.engine.prediction.teachers import Teachers, find_teachers
from cellflow.engine.runs.identity import versions
from cellflow.engine.runtime.machine import choose_machine
from cellflow.engine.runtime.progress_lines import follow
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.errors import DataError, NotFiniteError
from cellflow.io.fold_table import RESERVED
from cellflow.io.image_source import find_images, source_folders
from cellflow.io.pixel_limit import at_most
from cellflow.io.source import SourceImage
from cellflow.io.target_folder import ALL, TargetFolder, TargetWriter, part_of
from cellflow.numeric.labels import median_diameter
from cellflow.storage.atomic import atomic_folder
from cellflow.storage.records import read_json

__all__ = ["FlowTargets", "write_flow_targets"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FlowTargets:
    """Where flows to learn from are, and who put them out."""

    folder: Path
    teachers: Teachers
    left_out: dict[str, str]
    failed: dict[str, str]


def write_flow_targets(config: DistilConfig) -> FlowTargets:
    """Write what the teachers of each fold put out, averaged over members and flips; kept where it is there.

    Annotated images are those that the fold trains on; for a final student all but reserved ones.

    Raises
    ------
    RunError, DataError, CheckpointError, LeakError
        If there is no such run or image, runs do not fit together, or other targets are there.
    """
    with at_most(config.files.max_pixels):
        images = find_images(config.images, **config.files.search) if config.images else {}
        teachers = find_teachers(
            config.runs, config.runs_dir, choose_machine(config.runtime), data=config.data,
            unfinished=config.unfinished, final=config.final,
        )  # fmt: skip
        folder, record = config.out / config.name, _record(config, teachers, images)
        stands = read_json(folder / "targets.json")
        if stands is not None and all(stands.get(key) == value for key, value in record.items()):
            TargetFolder.open(folder)  # says what is wrong with it, if anything
            _log.info("%s: the targets are there", folder)
            return FlowTargets(folder, teachers, {}, {})
        if folder.exists() and not config.overwrite:
            raise DataError(
                f"{folder} has targets of other teachers or images. Give another --name, or --overwrite to "
                "replace them.",
                path=folder,
            )
        found = Screened([], set())
        if images:
            found = screen(images, known_images(teachers.dataset))
        with atomic_folder(folder, replace=config.overwrite) as new:
            writer = TargetWriter(new, "flows")
            segmenters = {
                part: teachers.segmenter(part, config.batch_size) for part in teachers.opened
            }
            _teach_annotated(teachers, segmenters, writer)
            _teach_others(images, found, segmenters, writer)
            parts = {part: teachers.record(part) for part in teachers.opened}
            made = {**record, "versions": versions()}
            writer.finish(made, parts, found.left_out | found.failed)
    return FlowTargets(folder, teachers, found.left_out, found.failed)


def _teach_annotated(
    teachers: Teachers, segmenters: dict[str, Segmenter], writer: TargetWriter
) -> None:
    dataset, folds = teachers.dataset, teachers.folds
    for name in follow([name for name in dataset.ids if folds[name] != RESERVED], "teaching"):
        parts = [part for part in segmenters if part != part_of(folds[name])]
        pixels = dataset.image(name) if parts else None
        marks = str(dataset.images.at[name, "pixel_hash"])
        for part in parts:
            add = _adder(writer, part, name, marks, annotated=True)
            _teach(segmenters[part], pixels, add)


def _teach_others(
    images: dict[str, SourceImage],
    found: Screened,
    segmenters: dict[str, Segmenter],
    writer: TargetWriter,
) -> None:
    for name in follow(found.ids, "teaching, other images"):
        try:
            pixels = images[name].pixels()
            marks = writer.add_image(images[name], pixels)
            for part, segmenter in segmenters.items():
                _teach(segmenter, pixels, _adder(writer, part, name, marks, annotated=False))
        except (DataError, NotFiniteError) as error:
            found.failed[name] = str(error)


def _adder(
    writer: TargetWriter, part: str, name: str, marks: str, *, annotated: bool
) -> Callable[..., None]:
    def add(flow: NDArray[Any], cellprob: NDArray[Any], facts: dict[str, Any]) -> None:
        writer.add_flows(
            part, name, flow, cellprob, pixel_hash=marks, facts=facts, annotated=annotated
        )

    return add


def _teach(segmenter: Segmenter, pixels: Any, add: Callable[..., None]) -> None:
    """Hand on what the teachers put out, with the cells that they see."""
    result = segmenter.predict(pixels)
    diameter = median_diameter(result.labels) or result.diameter
    facts = {"cells": int(result.labels.max(initial=0)), "diameter": round(diameter, 3)}
    add(result.flow, result.cellprob, facts)


def _record(
    config: DistilConfig, teachers: Teachers, images: Mapping[str, SourceImage]
) -> dict[str, Any]:
    """What makes targets what they are."""
    record = teachers.runs[0].read_record()
    return {
        "images": source_folders(config.images) if config.images else [],
        "fingerprints": {name: image.fingerprint for name, image in images.items()},
        "runs": [run.name for run in teachers.runs],
        "members": {
            part: [member.hash for member in opened.members]
            for part, opened in teachers.opened.items()
        },
        "data": str(teachers.dataset.path.resolve()),
        "data_hash": record["data_hash"],
        "folds_hash": record["folds_hash"],
        "final": ALL in teachers.opened,
    }

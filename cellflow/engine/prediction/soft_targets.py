"""Flows that teachers put out, averaged, as targets: of annotated images and of others, fold by fold."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellflow.config import DistilConfig
from cellflow.engine.prediction.candidates import Screened, check_free, known_images, screen
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
from cellflow.storage.atomic import atomic_folder, restore_folder
from cellflow.storage.records import read_json
from cellflow.storage.run_folder import final_name

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
    """
    with at_most(config.files.max_pixels):
        images = find_images(config.images, **config.files.search) if config.images else {}
        teachers = find_teachers(
            config.runs, config.runs_dir, choose_machine(config.runtime), data=config.data,
            unfinished=config.unfinished, final=config.final,
        )  # fmt: skip
        folder = config.out / (final_name(config.name) if config.final else config.name)
        record = _record(config, teachers, images)
        restore_folder(folder)
        stands = read_json(folder / "targets.json")
        if stands is not None and all(stands.get(key) == value for key, value in record.items()):
            TargetFolder.open(folder)  # says what is wrong with it, if anything
            _log.info("%s: the targets are there", folder)
            return FlowTargets(folder, teachers, {}, {})
        if stands is not None and not config.overwrite:
            raise DataError(
                f"{folder} has targets of other teachers or images. Give another --name, or --overwrite to "
                "replace them.",
                path=folder,
            )
        check_free(folder, "targets.json", overwrite=config.overwrite)
        found = screen(images, known_images(teachers.dataset)) if images else Screened()
        with atomic_folder(folder, replace=config.overwrite) as new:
            writer = TargetWriter(new, "flows")
            segmenters = teachers.segmenters(config.batch_size)
            _teach_annotated(teachers, segmenters, writer)
            _teach_others(images, found, segmenters, writer)
            made = {**record, "versions": versions()}
            writer.finish(made, teachers.records(), found.left_out | found.failed)
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
            made = _taught(segmenters[part], pixels)
            writer.add_flows(part, name, **made, pixel_hash=marks, annotated=True)


def _teach_others(
    images: dict[str, SourceImage],
    found: Screened,
    segmenters: dict[str, Segmenter],
    writer: TargetWriter,
) -> None:
    for name in follow(found.ids, "teaching, other images"):
        try:
            pixels = images[name].pixels()
            taught = {part: _taught(segmenter, pixels) for part, segmenter in segmenters.items()}
        except (DataError, NotFiniteError) as error:
            found.failed[name] = str(error)
            continue
        marks = writer.add_image(images[name], pixels)
        for part, made in taught.items():  # in all parts or in none
            writer.add_flows(part, name, **made, pixel_hash=marks, annotated=False)


def _taught(segmenter: Segmenter, pixels: Any) -> dict[str, Any]:
    """What the teachers put out, with the cells that they see."""
    result = segmenter.predict(pixels)
    diameter = median_diameter(result.labels) or result.diameter
    facts = {"cells": int(result.labels.max(initial=0)), "diameter": round(diameter, 3)}
    return {"flow": result.flow, "cellprob": result.cellprob, "facts": facts}


def _record(
    config: DistilConfig, teachers: Teachers, images: Mapping[str, SourceImage]
) -> dict[str, Any]:
    """What makes targets what they are."""
    opened = teachers.opened.items()
    return {
        "images": source_folders(config.images) if config.images else [],
        "fingerprints": {name: image.fingerprint for name, image in images.items()},
        "members": {part: [member.hash for member in one.members] for part, one in opened},
        **teachers.origin(),
        "final": ALL in teachers.opened,
    }

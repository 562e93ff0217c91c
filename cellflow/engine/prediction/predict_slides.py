"""Images that are segmented block by block: which they are, and each into a folder of its own."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cellflow.config import EnsembleConfig, OutputConfig
from cellflow.config.prediction import SlidesConfig
from cellflow.engine.prediction.slide_table import SLIDES, write_slide_table
from cellflow.engine.runtime.scheduler import Scheduler
from cellflow.engine.runtime.shared_folder import shared_folder
from cellflow.engine.segmentation.open_segmenter import for_workers
from cellflow.engine.segmentation.segmenter import Segmenter
from cellflow.engine.slides.make_plan import make_plan
from cellflow.engine.slides.predict_slide import SlideResult, predict_slide
from cellflow.engine.slides.work import SlideJob
from cellflow.errors import DataError, NotFiniteError, PackageError, RunError
from cellflow.io.image_folders import SLIDE_SUFFIXES
from cellflow.io.roi import check_roi
from cellflow.io.source import FileImage, SourceImage
from cellflow.storage.hashing import hash_bytes, hash_json
from cellflow.storage.sizes import few_text

__all__ = ["check_slides", "is_slide", "predict_slides", "time_slide"]

_log = logging.getLogger(__name__)

LARGE = 25_000_000
"""Pixels from which an image is segmented by blocks without being asked for: above this, memory is what ends."""
BLOCK = 2048
_AS_USUAL = OutputConfig().export
_WRITTEN = frozenset({"masks", "cells", "geojson"})
"""Exports that every slide has, as labels.zarr, cells.csv and cells.geojson."""
_TILED = (".tif", ".tiff")
_SMALL_FILE = 2**19
"""Bytes of a file that holds no large image, however well it is compressed."""


def is_slide(image: SourceImage, config: SlidesConfig) -> bool:
    """Whether an image is segmented by blocks: where that is asked for, it is large, or a scanner has made it."""
    if config.block is not None or config.level or config.roi or config.empty:
        return True
    if not isinstance(image, FileImage):
        return False
    kind = image.path.suffix.lower()
    if kind in SLIDE_SUFFIXES:
        return True
    small = kind not in _TILED or image.path.stat().st_size < _SMALL_FILE
    if small and not image.path.is_dir():
        return False
    try:
        with image.open_large() as large:
            return large.shape[0] * large.shape[1] > LARGE
    except DataError:
        return False  # said where it is read


def check_slides(config: EnsembleConfig, images: Mapping[str, SourceImage]) -> None:
    """Refuse what cannot be had of the slides among images, before anything is done.

    That is an export that slides have not, flows of other origin that are to join, and a region that is not there.
    """
    if config.slides.roi:
        check_roi(config.slides.roi)
    export = config.output.export
    others = set() if export == _AS_USUAL else set(export) - _WRITTEN
    slides = list[str]()
    if others or config.flows:
        slides = [name for name, image in images.items() if is_slide(image, config.slides)]
    if not slides:
        return
    apart = "predict them" if len(slides) == len(images) else f"predict {few_text(slides)}"
    if config.flows:
        raise DataError(
            f"--flows: flows of other origin cannot join where images are segmented by blocks "
            f"({few_text(slides)}). Leave out --flows, or --block, --level, --roi and --empty."
        )
    raise DataError(
        f"--export {' '.join(sorted(others))}: images that are segmented by blocks ({few_text(slides)}) have no such "
        f"files, but labels.zarr, cells.csv and cells.geojson, always. {apart.capitalize()} without --export."
    )


def predict_slides(
    config: EnsembleConfig,
    channels: tuple[int, int] | None,
    segmenter: Segmenter,
    images: Mapping[str, SourceImage],
    *,
    folder: Path,
    identity: dict[str, Any],
    scheduler: Scheduler,
) -> tuple[dict[str, SlideResult], dict[str, str]]:
    """Segment slides one after the other; one that cannot be used does not stop the others.

    The `segmenter` is for what is to be known before the blocks are. Each slide has ``slides/ID`` in the `folder` of
    the result. `identity` is what makes the prediction what it is, apart from the image, of JSON types. What comes
    out are the results, and why slides could not be used, both by id.
    """
    results: dict[str, SlideResult] = {}
    failed: dict[str, str] = {}
    config = for_workers(config)
    how = config.slides
    region = _file_of(how.roi)
    places = folder.absolute() / SLIDES
    places.mkdir(parents=True, exist_ok=True)
    with shared_folder(scheduler, places):
        for name, image in images.items():
            job = SlideJob(config, channels, image, places / name, how.block or BLOCK)
            try:
                own = {"image": image.fingerprint, "level": how.level, "roi": region}
                mark = hash_json({**identity, **own, "empty": how.empty})
                plan = partial(
                    make_plan, image, segmenter, mark, block=job.block, level=how.level,
                    roi=how.roi, empty=how.empty,
                )  # fmt: skip
                found = predict_slide(job, mark, plan, scheduler)
                results[name] = replace(found, folder=folder / SLIDES / name)
            except (DataError, NotFiniteError, PackageError, RunError) as error:
                failed[name] = str(error)
                _log.warning("%s could not be segmented: %s", name, error)
    write_slide_table(folder)
    return results, failed


def time_slide(config: EnsembleConfig, segmenter: Segmenter, image: SourceImage) -> float:
    """Seconds that a slide takes in this process, by the networks' part of a block in its middle.

    Nothing is written. The steps after the networks take little beside it.
    """
    how = config.slides
    block = how.block or BLOCK
    plan = make_plan(image, segmenter, "", block=block, level=how.level, roi=how.roi)
    grid = plan.grid
    core = grid.core(f"{grid.rows // 2}_{grid.columns // 2}")
    with image.open_large(how.level) as large:
        started = time.perf_counter()
        segmenter.part_means(
            lambda box: plan.normal(large.read(box)), plan.shape, core, plan.recognition
        )
    part = math.prod(core.shape) / math.prod(plan.shape)
    return (time.perf_counter() - started) / part


def _file_of(roi: str) -> str:
    """What tells whether a region is still the same: it, or what is in its file."""
    return hash_bytes(Path(roi).read_bytes()) if roi and Path(roi).is_file() else roi

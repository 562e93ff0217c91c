"""Segment one slide: the steps over its blocks, one after the other; the same command goes on where it stopped."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cellflow.engine.runs.identity import versions
from cellflow.engine.runtime.scheduler import Scheduler
from cellflow.engine.slides.blocks import BlockGrid
from cellflow.engine.slides.cell_list import join_cells, number_cells
from cellflow.engine.slides.cell_steps import check_owned, find_cells, find_ends
from cellflow.engine.slides.flow_step import make_flows
from cellflow.engine.slides.label_step import LABELS, write_labels, write_level
from cellflow.engine.slides.plan import SlidePlan, read_plan
from cellflow.engine.slides.store import STEPS, SlideStore
from cellflow.engine.slides.table_step import CELLS, OUTLINES, join_tables, measure_owned
from cellflow.engine.slides.work import SlideJob
from cellflow.errors import DataError, RunError
from cellflow.io.label_pyramid import LabelPyramid, create_label_pyramid, level_shapes
from cellflow.numeric.dynamics import check_tally
from cellflow.storage.atomic import write_json
from cellflow.storage.locks import hold_lock
from cellflow.storage.records import dict_or_empty, read_json
from cellflow.storage.sizes import few_text, plural

__all__ = ["RECORD", "SlideResult", "predict_slide"]

_log = logging.getLogger(__name__)

RECORD = "slide.json"
"""What a slide was segmented with, and what came of it; written last of all."""
MakePlan = Callable[[], SlidePlan]


@dataclass(frozen=True)
class SlideResult:
    """Where the results of a slide lie.

    Attributes
    ----------
    folder : Path
        Its folder: `labels`, `table`, `outlines` and the record.
    labels : Path
        Label map with smaller levels, OME-Zarr.
    table : Path
        CSV with a row per cell.
    outlines : Path
        GeoJSON with a detection per cell.
    cells : int
        How many there are.
    failed : dict of str to str
        What is wrong with the blocks that could not be predicted, by name; there are no cells in these.
    """

    folder: Path
    labels: Path
    table: Path
    outlines: Path
    cells: int
    failed: dict[str, str] = field(default_factory=dict)


def predict_slide(
    job: SlideJob, identity: str, make_plan: MakePlan, scheduler: Scheduler
) -> SlideResult:
    """Segment a slide block by block.

    Parameters
    ----------
    job : SlideJob
        The slide, and what it is segmented with.
    identity : str
        Hash of what makes the result what it is.
    make_plan : callable
        Looks at the slide and says what is to be done with it; not called where that is known.
    scheduler : Scheduler
        Where the blocks are worked on.

    Returns
    -------
    SlideResult
        Equal to the byte whatever the size of the blocks, the scheduler, and how often the work was interrupted.

    Raises
    ------
    DataError
        If the folder holds another result, or no block can be predicted.
    RunError
        If another process works there, or a step after the networks' fails.
    """
    folder = job.folder
    with _alone(folder):
        if job.config.output.overwrite:
            _clear(folder)
        known = read_json(folder / RECORD)
        if known is not None:
            _check_same(job, known, identity)
            if not known.get("failed"):
                _log.info("%s is there", folder)
                return _result(folder, known)
        plan = _begin(job, identity, make_plan)
        store = SlideStore(folder, plan.grid)
        store.create()
        store.tidy()
        return _Pass(job, plan, store, scheduler).run()


@contextmanager
def _alone(folder: Path) -> Any:
    with hold_lock(folder / ".lock", str(folder)):
        yield


def _clear(folder: Path) -> None:
    (folder / RECORD).unlink(missing_ok=True)
    for name in (LABELS, ".blocks"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (CELLS, OUTLINES):
        (folder / name).unlink(missing_ok=True)


def _check_same(job: SlideJob, known: Mapping[str, Any], identity: str) -> None:
    if dict_or_empty(known.get("plan")).get("identity") != identity:
        raise DataError(
            f"{job.folder} holds another prediction of {job.image.id}: of other models, thresholds, or another "
            "state of the image. Choose another --name, or add --overwrite.",
            path=job.folder,
        )


def _begin(job: SlideJob, identity: str, make_plan: MakePlan) -> SlidePlan:
    """The plan that was begun with; where that was another one, what was done is removed."""
    path = job.folder / ".blocks" / "plan.json"
    old = read_plan(path)
    if old is not None and (old.identity, old.block) == (identity, job.block):
        return old
    if old is not None:
        _log.info("%s: begun with other settings, begins anew", job.folder)
    plan = make_plan()
    _clear(job.folder)
    write_json(path, plan.to_json())
    return plan


class _Pass:
    """One way through the steps of a slide."""

    def __init__(
        self, job: SlideJob, plan: SlidePlan, store: SlideStore, scheduler: Scheduler
    ) -> None:
        self.job, self.plan, self.store, self.scheduler = job, plan, store, scheduler
        self.seconds: dict[str, float] = {}

    def run(self) -> SlideResult:
        """Do what is not done."""
        mask, store = self.plan.mask, self.store
        failed = self._flows()
        self._step("ends", find_ends)
        self._check_flows()
        self._step("cells", find_cells)
        if not store.done("checks"):
            join_cells(store, mask)
        self._step("checks", check_owned)
        if not store.done("labels"):
            count = number_cells(store, mask)
            self._make_pyramid(count)
        self._step("labels", write_labels)
        self._levels()
        self._step("tables", measure_owned)
        join_tables(store, self.job.folder)
        LabelPyramid(self.job.folder / LABELS).remove_leftovers()
        return self._end(failed)

    def _flows(self) -> dict[str, str]:
        """The networks' part; blocks that fail are left out, and tried again by the next command."""
        missing = self.store.missing("flows", self.plan.grid.names)
        if missing:
            self.store.forget(STEPS[1:])  # what was made without these blocks
            (self.job.folder / RECORD).unlink(missing_ok=True)
        gpu = None if self.job.config.runtime.device == "cpu" else {"GPU": 1.0}
        failed = self._run("flows", make_flows, missing, resources=gpu)
        if failed and len(failed) == len(self.plan.grid.names):
            raise DataError(
                f"{self.plan.id}: no block could be predicted. The first says: {next(iter(failed.values()))}",
                path=self.plan.image,
            )
        return failed

    def _step(self, step: str, function: Callable[..., None]) -> None:
        failed = self._run(step, function, self.store.missing(step, self.plan.grid.names))
        self._refuse(step, failed)

    def _levels(self) -> None:
        for level, shape in enumerate(level_shapes(self.plan.shape)[1:], 1):
            grid = BlockGrid(shape, self.plan.block)
            names = self.store.missing(f"level_{level}", grid.names)
            tasks = {name: (self.job, level, name) for name in names}
            outcome = self.scheduler.run(
                write_level, tasks, title=f"{self.plan.id} level {level}", unit="block"
            )
            self._refuse(f"level {level}", {n: str(e) for n, e in outcome.failed.items()})

    def _run(
        self,
        step: str,
        function: Callable[..., None],
        names: list[str],
        resources: Mapping[str, float] | None = None,
    ) -> dict[str, str]:
        """Run a step on blocks; what is wrong with those that fail."""
        if not names:
            return {}
        started = time.monotonic()
        outcome = self.scheduler.run(
            function,
            {name: (self.job, name) for name in names},
            title=f"{self.plan.id} {step}",
            unit="block",
            resources=resources,
        )
        self.seconds[step] = round(time.monotonic() - started, 2)
        return {name: str(error) for name, error in outcome.failed.items()}

    def _refuse(self, step: str, failed: Mapping[str, str]) -> None:
        if failed:
            raise RunError(
                f"{self.plan.id}: {step} of {plural(len(failed), 'block')} failed ({few_text(failed)}). The first "
                f"says: {next(iter(failed.values()))} Repeat the command: what is done is kept.",
                path=self.job.folder,
            )

    def _check_flows(self) -> None:
        """Refuse flows that are none; say how much of the foreground runs too far to be a cell."""
        found = [self.store.load("ends", name) for name in self.plan.grid.names]
        tally = np.sum([item["tally"] for item in found], axis=0)
        check_tally(tally, check_scale=False)  # as for all other images
        lost = sum(int(item["lost"]) for item in found)
        if lost:
            _log.warning(
                "%s: %d of %d foreground pixels do not come to rest within %d pixels and belong to no cell",
                self.plan.id, lost, int(tally[0]), self.plan.reach,
            )  # fmt: skip

    def _make_pyramid(self, count: int) -> None:
        self.store.forget([f"level_{n}" for n in range(1, len(level_shapes(self.plan.shape)))])
        image = self.plan.image.absolute()
        create_label_pyramid(
            self.job.folder / LABELS,
            self.plan.shape,
            chunk=self.plan.grid.chunk,
            largest=count,
            image=image if image.is_dir() else None,
            pixel_size=self.plan.pixel_size,
        )

    def _end(self, failed: dict[str, str]) -> SlideResult:
        grid, folder = self.plan.grid, self.job.folder
        numbers = self.store.open_list("numbers")
        cells = int(numbers.max(initial=0))
        del numbers
        flows = [self.store.load("flows", name) for name in self.store.done("flows")]
        tiles, run = (sum(int(item[key]) for item in flows) for key in ("tiles", "run"))
        record = {
            "cells": cells,
            "blocks": len(grid.names),
            "failed": failed,
            "pixels": grid.shape[0] * grid.shape[1],
            "tiles": tiles,
            "tiles_run": run,
            "seconds": self.seconds,
            "plan": self.plan.to_json(),
            "versions": versions(),
        }
        write_json(folder / RECORD, record)
        for name, text in failed.items():
            core = grid.core(name)
            _log.warning(
                "%s: block %s (rows %d to %d, columns %d to %d) could not be predicted: %s",
                self.plan.id, name, core.top, core.bottom, core.left, core.right, text,
            )  # fmt: skip
        if failed:
            _log.warning("%s: repeat the command to try them again", self.plan.id)
        else:
            self.store.remove()
        if run < tiles:
            _log.info(
                "%s: %d of %d tiles are empty and were passed over",
                self.plan.id,
                tiles - run,
                tiles,
            )
        return _result(folder, record)


def _result(folder: Path, record: Mapping[str, Any]) -> SlideResult:
    return SlideResult(
        folder,
        folder / LABELS,
        folder / CELLS,
        folder / OUTLINES,
        int(record["cells"]),
        dict(record.get("failed") or {}),
    )

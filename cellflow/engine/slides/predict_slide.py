"""Segment one slide: the steps over its blocks, one after the other; the same command goes on where it stopped."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cellflow.engine.runs.identity import versions
from cellflow.engine.runtime.scheduler import Scheduler
from cellflow.engine.slides.blocks import BlockGrid
from cellflow.engine.slides.cell_list import join_cells, number_cells
from cellflow.engine.slides.cell_steps import check_owned, find_cells, find_ends
from cellflow.engine.slides.flow_step import make_flows
from cellflow.engine.slides.label_step import LABELS, write_labels, write_level
from cellflow.engine.slides.plan import BLOCKS, PLAN, SlidePlan, read_plan
from cellflow.engine.slides.store import STEPS, SlideStore, remove_blocks
from cellflow.engine.slides.table_step import CELLS, OUTLINES, join_tables, measure_owned
from cellflow.engine.slides.work import SlideJob
from cellflow.errors import DataError, RunError
from cellflow.io.label_pyramid import LabelPyramid, create_label_pyramid, level_shapes
from cellflow.io.large import place_text
from cellflow.numeric.dynamics import check_tally
from cellflow.storage.atomic import write_json
from cellflow.storage.locks import hold_lock
from cellflow.storage.records import dict_or_empty, read_json
from cellflow.storage.sizes import duration_text, few_lines, plural

__all__ = ["RECORD", "SlideResult", "predict_slide"]

_log = logging.getLogger(__name__)

RECORD = "slide.json"
"""What a slide was segmented with, and what came of it; written last of all."""
MAX_PROBLEMS = 10
"""Blocks that a message names."""
MakePlan = Callable[[], SlidePlan]


@dataclass(frozen=True)
class SlideResult:
    """Where the results of a slide lie.

    Attributes
    ----------
    folder : Path
        Its folder: `labels`, `table`, `outlines` and the record.
    cells : int
        How many there are.
    failed : dict of str to str
        What is wrong with the blocks that could not be predicted, by name; there are no cells in these.
    """

    folder: Path
    cells: int
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> Path:
        """Label map with smaller levels, OME-Zarr."""
        return self.folder / LABELS

    @property
    def table(self) -> Path:
        """CSV with a row per cell."""
        return self.folder / CELLS

    @property
    def outlines(self) -> Path:
        """GeoJSON with a detection per cell."""
        return self.folder / OUTLINES


def predict_slide(
    job: SlideJob, identity: str, make_plan: MakePlan, scheduler: Scheduler
) -> SlideResult:
    """Segment a slide block by block.

    The result is equal to the byte whatever the size of the blocks, the scheduler, and how often the work was
    interrupted. `identity` is a hash of what makes it what it is; `make_plan` looks at the slide and says what is to
    be done with it, and is not called where that is known.

    Raises
    ------
    DataError
        If the image cannot be used, or the folder holds another result.
    RunError
        If another process works there, all blocks fail, or one does in a step after the networks'.
    """
    folder = job.folder
    with hold_lock(folder / ".lock", str(folder)):
        if job.config.output.overwrite:
            _clear(folder)
        known = read_json(folder / RECORD)
        if known is not None:
            _check_same(job, known, identity)
            if not known.get("failed") and type(known.get("cells")) is int:
                remove_blocks(folder)  # if a kill came before that
                _log.info("%s is there", folder)
                return _result(folder, known)
        plan = _begin(job, identity, make_plan)
        store = SlideStore(folder, plan.grid)
        store.create()
        store.tidy()
        return _Pass(job, plan, store, scheduler).run()


def _clear(folder: Path) -> None:
    """Remove all; what says how the rest was made first, so that no later command goes on with a part of it."""
    for name in (RECORD, PLAN):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / LABELS, ignore_errors=True)  # is written anew
    if (folder / BLOCKS).exists():
        shutil.rmtree(folder / BLOCKS)  # blocks that stayed would pass for done
    for name in (CELLS, OUTLINES):
        (folder / name).unlink(missing_ok=True)


def _check_same(job: SlideJob, known: Mapping[str, Any], identity: str) -> None:
    if dict_or_empty(known.get("plan")).get("identity") != identity:
        raise DataError(
            f"{job.folder} holds another prediction of {job.image.id}: of other models, thresholds, --level, --roi or "
            "--empty, or another state of the image. Choose another --name, or add --overwrite.",
            path=job.folder,
        )


def _begin(job: SlideJob, identity: str, make_plan: MakePlan) -> SlidePlan:
    """The plan that was begun with; where that was another one, what was done is removed."""
    path = job.folder / PLAN
    old = read_plan(path)
    if old is not None and (old.identity, old.block) == (identity, job.block):
        return old
    if old is not None:
        _log.info("%s: begun with other settings, begins anew", job.folder)
    plan = make_plan()
    _clear(job.folder)
    write_json(path, plan.to_json())
    return plan


class Step(NamedTuple):
    """What is done with every block before the next step begins."""

    name: str
    work: Callable[..., None]
    """The task: given the job and the name of a block."""
    grid: BlockGrid
    before: Callable[[], object] | None = None
    """Joins what the steps before have found of all blocks; called here, unless a block is done already."""


class _Pass:
    """One way through the steps of a slide."""

    def __init__(
        self, job: SlideJob, plan: SlidePlan, store: SlideStore, scheduler: Scheduler
    ) -> None:
        self.job, self.plan, self.store, self.scheduler = job, plan, store, scheduler
        self.seconds: dict[str, float] = {}

    def steps(self) -> Iterator[Step]:
        """All of them, in their order."""
        grid = self.plan.grid
        yield Step("flows", make_flows, grid)
        yield Step("ends", find_ends, grid)
        yield Step("cells", find_cells, grid, self._check_flows)
        yield Step("checks", check_owned, grid, partial(join_cells, self.store, self.plan.mask))
        yield Step("labels", write_labels, grid, self._number_cells)
        for level, shape in enumerate(self._levels, 1):
            smaller = BlockGrid(shape, self.plan.block)
            yield Step(f"level_{level}", partial(write_level, level=level), smaller)
        yield Step("tables", measure_owned, grid)

    def run(self) -> SlideResult:
        """Do what is not done; blocks whose flows fail are left out, and tried again by the next command."""
        gaps: dict[str, str] = {}
        if self.store.missing("flows", self.plan.grid.names):
            self.store.forget(STEPS[1:])  # what was made without these blocks
            (self.job.folder / RECORD).unlink(missing_ok=True)
        for step in self.steps():
            failed = self._do(step)
            if step.name == "flows":
                gaps = failed
            if failed and (step.name != "flows" or len(failed) == len(step.grid.names)):
                raise RunError(_failed_text(step, failed), path=self.job.folder)
        join_tables(self.store, self.job.folder)
        LabelPyramid(self.job.folder / LABELS).remove_leftovers()
        return self._end(gaps)

    def _do(self, step: Step) -> dict[str, str]:
        """Run a step on the blocks that are not done; what is wrong with those that fail."""
        names = self.store.missing(step.name, step.grid.names)
        if not names:
            return {}
        started = time.monotonic()
        if step.before is not None and not self.store.done(step.name):
            step.before()
        networks = step.name == "flows" and self.job.config.runtime.device != "cpu"
        outcome = self.scheduler.run(
            step.work,
            {name: (self.job, name) for name in names},
            title=f"{self.plan.id} {_words(step)}",
            unit="block",
            resources={"GPU": 1.0} if networks else None,
        )
        self.seconds[step.name] = round(time.monotonic() - started, 2)
        return {name: str(error) for name, error in outcome.failed.items()}

    @property
    def _levels(self) -> list[tuple[int, int]]:
        """Shapes of the smaller levels of the label map."""
        return level_shapes(self.plan.shape)[1:]

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

    def _number_cells(self) -> None:
        """Number the cells that are kept, and make the empty label map for them."""
        count = number_cells(self.store, self.plan.mask)
        self.store.forget([f"level_{level}" for level in range(1, len(self._levels) + 1)])
        image = self.plan.image.absolute()
        create_label_pyramid(
            self.job.folder / LABELS,
            self.plan.shape,
            chunk=self.plan.grid.chunk,
            largest=count,
            image=image if image.is_dir() else None,
            pixel_size=self.plan.pixel_size,
        )

    def _end(self, gaps: dict[str, str]) -> SlideResult:
        """Write the record, say what came of it, and remove what only served to go on."""
        grid, folder, name = self.plan.grid, self.job.folder, self.plan.id
        numbers = self.store.open_list("numbers")
        cells = int(numbers.max(initial=0))
        del numbers
        flows = [self.store.load("flows", name) for name in self.store.done("flows")]
        tiles, run = (sum(int(item[key]) for item in flows) for key in ("tiles", "run"))
        record = {
            "cells": cells,
            "blocks": len(grid.names),
            "failed": gaps,
            "pixels": grid.shape[0] * grid.shape[1],
            "tiles": tiles,
            "tiles_run": run,
            "seconds": self.seconds,
            "plan": self.plan.to_json(),
            "versions": versions(),
        }
        write_json(folder / RECORD, record)
        if gaps:
            lines = _block_lines(grid, gaps)
            _log.warning(
                "%s: %s could not be predicted and hold no cells; repeat the command to try them again:\n%s",
                name, plural(len(gaps), "block"), lines,
            )  # fmt: skip
        else:
            self.store.remove()
        if run < tiles:
            _log.info("%s: %d of %d tiles are empty and were passed over", name, tiles - run, tiles)
        _log.info(
            "%s: %s in %s", name, plural(cells, "cell"), duration_text(sum(self.seconds.values()))
        )
        return _result(folder, record)


def _words(step: Step) -> str:
    return step.name.replace("_", " ")


def _failed_text(step: Step, failed: Mapping[str, str]) -> str:
    """The message of a step without which the next ones cannot be done."""
    some = plural(len(failed), "block") if len(failed) < len(step.grid.names) else "all blocks"
    return (
        f"{_words(step)} of {some} failed. The same command tries again, and goes on from what is done:\n"
        f"{_block_lines(step.grid, failed)}"
    )


def _block_lines(grid: BlockGrid, failed: Mapping[str, str]) -> str:
    """Where blocks lie and what is wrong with them, a line each."""
    lines = (f"block {name} ({place_text(grid.core(name))}): {failed[name]}" for name in failed)
    return few_lines(lines, MAX_PROBLEMS)


def _result(folder: Path, record: Mapping[str, Any]) -> SlideResult:
    return SlideResult(folder, int(record["cells"]), dict(record.get("failed") or {}))

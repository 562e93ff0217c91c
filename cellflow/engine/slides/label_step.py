"""Numbers of cells into the label map of a slide, and its smaller levels."""

from __future__ import annotations

import numpy as np

from cellflow.engine.slides.blocks import BlockGrid
from cellflow.engine.slides.cell_list import JoinedCells
from cellflow.engine.slides.work import SlideJob, open_work
from cellflow.io.label_pyramid import LabelPyramid

__all__ = ["LABELS", "write_labels", "write_level"]

LABELS = "labels.zarr"
"""The label map in the folder of a slide."""


def write_labels(job: SlideJob, name: str) -> None:
    """The label map of a block, holes filled: a pixel that several cells enclose belongs to the innermost."""
    work = open_work(job)
    store = work.store
    core = work.plan.grid.core(name)
    joined = JoinedCells(store)
    numbers = joined.numbers_of_seeds(store.load("cells", name)["seed"])
    labels = np.append(np.int64(0), numbers)[store.read("cells", core)]
    places, inner = joined.holes(name).T
    rows, columns = np.divmod(places, work.plan.shape[1])
    rows, columns = rows - core.top, columns - core.left
    free = labels[rows, columns] == 0
    labels[rows[free], columns[free]] = inner[free]  # ascending: the largest number is the last
    if labels.any():
        LabelPyramid(job.folder / LABELS).write(core, labels)
    store.save("labels", name)


def write_level(job: SlideJob, name: str, *, level: int) -> None:
    """A block of a smaller level, from the level below."""
    work = open_work(job)
    pyramid = LabelPyramid(job.folder / LABELS)
    grid = BlockGrid(pyramid.shape(level), work.plan.block)
    pyramid.shrink(grid.core(name), level)
    work.store.save(f"level_{level}", name)

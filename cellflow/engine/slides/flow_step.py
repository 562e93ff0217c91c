"""The networks' part of a block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellflow.engine.slides.store import NOTHING
from cellflow.engine.slides.work import SlideJob, Work, open_work
from cellflow.io.roi import mask_of

__all__ = ["make_flows"]


def make_flows(job: SlideJob, name: str) -> None:
    """Flow, logit and disagreement of a block, those of the whole image; nothing outside of the region of interest."""
    work = open_work(job)
    plan, store = work.plan, work.store
    core = plan.grid.core(name)
    inside = None if work.roi is None else mask_of(work.roi, core)
    if inside is not None and not inside.any():
        store.save("flows", name, tiles=np.int64(0), run=np.int64(0))
        return
    before = _counts(work)
    flow, cellprob, disagreement = work.segmenter.part_means(
        work.normal, plan.shape, core, plan.recognition, tiles=work.tiles, empty=plan.empty
    )
    if inside is not None:
        cellprob[~inside] = NOTHING
    store.write("flow", core, flow)
    store.write("cellprob", core, cellprob)
    if disagreement.any():  # of several members, or views of one
        store.write("disagreement", core, disagreement)
    tiles, run = _counts(work) - before
    store.save("flows", name, tiles=tiles, run=run)


def _counts(work: Work) -> NDArray[np.int64]:
    """Tiles that this worker has seen of the slide, and those that networks were run on."""
    counts = [(item.seen, item.run) for item in work.tiles.values()]
    return np.asarray(np.array(counts, np.int64).reshape(-1, 2).sum(axis=0))

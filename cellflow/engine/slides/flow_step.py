"""The networks' part of a block."""

from __future__ import annotations

import numpy as np

from cellflow.engine.slides.store import NOTHING
from cellflow.engine.slides.work import SlideJob, open_work
from cellflow.io.roi import mask_of

__all__ = ["make_flows"]


def make_flows(job: SlideJob, name: str) -> None:
    """Flow, logit and disagreement of a block, those of the whole image; nothing outside of the region of interest."""
    work = open_work(job)
    plan, store = work.plan, work.store
    core = plan.grid.core(name)
    inside = None if work.roi is None else mask_of(work.roi, core)
    if inside is not None and not inside.any():
        store.save("flows", name, computed=np.int64(0))
        return
    flow, cellprob, disagreement = work.segmenter.part_means(
        work.normal, plan.shape, core, plan.recognition
    )
    if inside is not None:
        cellprob[~inside] = NOTHING
    store.write("flow", core, flow)
    store.write("cellprob", core, cellprob)
    if len(work.segmenter.members) > 1 or len(work.segmenter.flips) > 1:
        store.write("disagreement", core, disagreement)
    store.save("flows", name, computed=np.int64(core.shape[0] * core.shape[1]))

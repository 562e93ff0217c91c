"""Blocks of any size give the cells of the whole image, to the byte."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellflow import FLOW_SCALE, flows_to_labels, labels_to_flows
from cellflow.numeric.block_cells import (
    CellTable,
    check_cells,
    count_places,
    follow_part,
    foreground_of,
    own_ends,
    part_table,
)
from cellflow.types import Box


def _blocks(shape, block):
    return [
        Box(y, min(y + block, shape[0]), x, min(x + block, shape[1]))
        for y in range(0, shape[0], block)
        for x in range(0, shape[1], block)
    ]


def labels_by_blocks(
    flow, cellprob, block, *, margin=8, threshold=0.0, flow_threshold=0.4, min_size=15,
    max_size_fraction=0.4, score=0.0, steps=200,
):  # fmt: skip
    """The steps of a slide, on arrays."""
    shape = cellprob.shape
    places, counts, known = [], [], []
    for core in _blocks(shape, block):
        region = core
        _, inside, _ = foreground_of(flow[:, *core.slices], cellprob[core.slices], threshold)
        y, x = np.nonzero(inside)
        pixels = (y + core.top) * shape[1] + x + core.left
        ends, left = np.full(len(pixels), -1), np.arange(len(pixels))
        reach = margin
        while len(left):
            region = core.grown(reach, shape)
            field = foreground_of(flow[:, *region.slices], cellprob[region.slices], threshold)[0]
            ends[left], cut = follow_part(field, region, pixels[left], shape, steps)
            left, reach = left[cut], reach * 2
        found, number, codes = count_places(ends)
        places.append(found)
        counts.append(number)
        known.append((core, pixels, codes))
    provisional, tables = np.zeros(shape, np.int64), []
    every, number = np.concatenate(places), np.concatenate(counts)
    for (core, pixels, codes), found in zip(known, places, strict=True):
        seeds = own_ends(found, every, number, shape)[codes]
        names, local = np.unique(np.append(seeds, -1), return_inverse=True)
        labels = np.zeros(core.shape, np.int32)
        rows, columns = np.divmod(pixels, shape[1])
        labels[rows - core.top, columns - core.left] = local[:-1]
        provisional[rows, columns] = seeds + 1
        tables.append(part_table(labels, names[1:], core, shape))
    joined = {}
    for table in tables:
        for seed, area, box, first in zip(*table, strict=True):
            old = joined.get(seed)
            if old is not None:
                area += old[0]
                box = [min(box[0], old[1][0]), max(box[1], old[1][1]),
                       min(box[2], old[1][2]), max(box[3], old[1][3])]  # fmt: skip
                first = min(first, old[2])
            joined[seed] = (area, box, first)
    kept = {
        s: v for s, v in joined.items()
        if v[0] <= max_size_fraction * cellprob.size and v[0] >= min_size
    }  # fmt: skip
    out = np.zeros(shape, np.int32)
    good, holes = [], []
    for seed, (area, box, first) in kept.items():
        region = Box(*map(int, box)).grown(3, shape)
        labels = np.where(provisional[region.slices] == seed + 1, 1, 0).astype(np.int32)
        labels[(labels == 0) & (provisional[region.slices] > 0)] = 2
        field = foreground_of(flow[:, *region.slices], cellprob[region.slices], threshold)[0]
        table = CellTable(*(np.array([v]) for v in (seed, area, box, first)))
        found = check_cells(labels, table, region, shape, field, cellprob[region.slices])
        if (not flow_threshold or found.error[0] <= np.float32(flow_threshold)) and (
            not score or found.probability[0] >= score
        ):
            good.append((first, seed, found.holes))
    for number, (_, seed, enclosed) in enumerate(sorted(good, key=lambda item: item[0]), 1):
        out[provisional == seed + 1] = number
        holes.append((number, enclosed))
    for number, enclosed in reversed(holes):
        flat = out.reshape(-1)
        flat[enclosed[flat[enclosed] == 0]] = number
    return out


@st.composite
def fields(draw):
    """Flows and logits of made cells: some touch, some are longer than a block, some have holes, all are noisy."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(20, 90)), draw(st.integers(20, 90))
    labels = np.zeros((height, width), np.int32)
    for number in range(1, draw(st.integers(1, 14)) + 1):
        y, x = rng.integers(0, height), rng.integers(0, width)
        a, b = rng.uniform(3, 10), rng.uniform(3, draw(st.sampled_from([8, 45])))
        turn = rng.uniform(0, np.pi)
        yy, xx = np.mgrid[:height, :width]
        u = (yy - y) * np.cos(turn) + (xx - x) * np.sin(turn)
        v = -(yy - y) * np.sin(turn) + (xx - x) * np.cos(turn)
        labels[(u / a) ** 2 + (v / b) ** 2 <= 1] = number
    unit = labels_to_flows(labels)
    noise = draw(st.sampled_from([0.0, 0.2, 0.6]))
    flow = FLOW_SCALE * (unit + noise * rng.standard_normal(unit.shape)).astype(np.float32)
    cellprob = np.where(labels > 0, 4.0, -4.0) + rng.standard_normal(labels.shape)
    if draw(st.booleans()):  # holes
        cellprob[rng.random(labels.shape) < 0.02] = -5
        cellprob = ndimage.minimum_filter(cellprob, 2)
    return flow.astype(np.float16), cellprob.astype(np.float16)


@given(fields(), st.integers(5, 60), st.integers(1, 20), st.sampled_from([0.4, 3.0, 0.0]))
@settings(max_examples=40, deadline=None)
def test_blocks_of_any_size_give_the_cells_of_the_whole_image(field, block, margin, flow_threshold):
    flow, cellprob = field
    whole = flows_to_labels(
        flow, cellprob, method="trace", flow_threshold=flow_threshold, check_scale=False
    )
    parts = labels_by_blocks(flow, cellprob, block, margin=margin, flow_threshold=flow_threshold)
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("score", [0.5, 0.97])
def test_the_other_thresholds_are_those_of_the_whole_image_too(score):
    flow, cellprob = _touching()
    options = {"min_size": 40, "max_size_fraction": 0.05}
    whole = flows_to_labels(flow, cellprob, method="trace", score_per_pixel=score, **options)
    assert whole.max() > 3 or score > 0.9
    parts = labels_by_blocks(flow, cellprob, 37, score=score, **options)
    np.testing.assert_array_equal(parts, whole)


def test_a_way_out_of_the_part_is_told():
    flow = np.zeros((2, 40, 40), np.float32)
    flow[1] = FLOW_SCALE  # everything moves to the right
    cellprob = np.ones((40, 40), np.float32)
    part = Box(5, 30, 5, 25)
    field, inside, _ = foreground_of(flow[:, *part.slices], cellprob[part.slices], 0.0)
    assert inside.all()
    places = np.array([10 * 40 + 8, 10 * 40 + 20], dtype=np.int64)
    ends, cut = follow_part(field, part, places, (40, 40), 8)
    assert cut.tolist() == [False, True]
    assert ends[0] == 10 * 40 + 16


def _touching():
    """A field of cells that all touch, without background between them."""
    rng = np.random.default_rng(4)
    seeds = rng.uniform(0, 160, (70, 2))
    yy, xx = np.mgrid[:160, :160]
    distance = (yy[..., None] - seeds[:, 0]) ** 2 + (xx[..., None] - seeds[:, 1]) ** 2
    labels = distance.argmin(axis=-1).astype(np.int32) + 1
    flow = FLOW_SCALE * labels_to_flows(labels)
    return flow, (2 + rng.standard_normal(labels.shape)).astype(np.float32)

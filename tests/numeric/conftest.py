from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from cellflow.numeric._measure import measure
from cellflow.numeric.dynamics import FLOW_SCALE, _as_candidates, candidate_errors
from cellflow.numeric.labels import compact
from cellflow.numeric.targets import labels_to_flows


@pytest.fixture(scope="session")
def cells():
    """About sixty touching ellipses with a noisy flow such as a network gives."""
    rng = np.random.default_rng(5)
    shape = (190, 230)
    labels, nearest = np.zeros(shape, np.int32), np.ones(shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    number = 0
    for row in range(0, shape[0], 26):
        for column in range(0, shape[1], 26):
            number += 1
            cy, cx = row + rng.uniform(8, 18), column + rng.uniform(8, 18)
            angle, long, short = rng.uniform(0, np.pi), rng.uniform(11, 14), rng.uniform(8, 11)
            along = (np.cos(angle) * (y - cy) + np.sin(angle) * (x - cx)) / long
            across = (np.cos(angle) * (x - cx) - np.sin(angle) * (y - cy)) / short
            distance = along**2 + across**2
            mine = distance < nearest
            nearest[mine] = distance[mine]
            labels[mine] = number
    _, dense = np.unique(labels, return_inverse=True)
    labels = dense.reshape(shape).astype(np.int32)
    noise = ndimage.gaussian_filter(rng.normal(size=(3, *shape)), (0, 2, 2)) * 6
    flow = ndimage.gaussian_filter(5 * labels_to_flows(labels), (0, 1, 1)) + noise[:2]
    cellprob = 12 * ndimage.gaussian_filter((labels > 0).astype(float), 1) - 6 + noise[2]
    return SimpleNamespace(
        labels=labels, flow=flow.astype(np.float32), cellprob=cellprob.astype(np.float32)
    )


@pytest.fixture(scope="session")
def flow_errors():
    """Flow error of every label of a map: what the mask step compares with `flow_threshold`."""

    def errors_of(labels, flow):
        dense, count = compact(labels)
        field = np.moveaxis(np.asarray(flow, np.float32).astype(np.float16), 0, -1)
        field = np.ascontiguousarray(field.astype(np.float32) / np.float32(FLOW_SCALE))
        candidates = _as_candidates(dense, measure(dense, count), field)
        return candidate_errors(candidates, np.arange(1, count + 1, dtype=np.int32))

    return errors_of

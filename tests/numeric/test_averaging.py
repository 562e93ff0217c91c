from __future__ import annotations

import numpy as np
import pytest

from cellflow.errors import DataError
from cellflow.numeric.averaging import VARIANTS, average_flows


def members(count=4, shape=(5, 6), seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(0, 3, (2, *shape)).astype(dtype), rng.normal(0, 3, shape).astype(dtype))
        for _ in range(count)
    ]


def slow(parts, weights, variant):
    flows = np.stack([flow for flow, _ in parts]).astype(np.float64)
    logits = np.stack([cellprob for _, cellprob in parts]).astype(np.float64)
    w = np.asarray(weights, dtype=np.float64)[:, None, None]
    pixel = w / (1 + np.exp(-logits)) if variant == "cellprob" else w * np.ones_like(logits)
    total = pixel.sum(axis=0)
    mean = (pixel[:, None] * flows).sum(axis=0) / total
    spread = (pixel * ((flows - mean) ** 2).sum(axis=1)).sum(axis=0) / total
    if variant == "direction":
        lengths = np.sqrt((flows**2).sum(axis=1))
        direction = (pixel[:, None] * flows / lengths[:, None]).sum(axis=0)
        direction /= np.sqrt((direction**2).sum(axis=0))
        mean = direction * (pixel * lengths).sum(axis=0) / total
    return mean, (w * logits).sum(axis=0) / w.sum(), np.sqrt(spread) / 5


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("weights", [None, [1, 0, 2.5, 0.25]])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_equals_the_mean_over_a_stack(variant, weights, dtype):
    parts = members(dtype=dtype)
    results = average_flows(parts, weights, variant=variant)
    expected = slow(parts, weights or [1] * 4, variant)
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == np.float32
        assert np.allclose(result, wanted, atol=2e-4)
    streamed = average_flows((part for part in parts), weights, variant=variant)
    for result, again in zip(results, streamed, strict=True):
        assert np.array_equal(result, again)


@pytest.mark.parametrize("variant", ["plain", "cellprob"])
def test_one_member_comes_back_unchanged(variant):
    ((flow, cellprob),) = members(1)
    got = average_flows([(flow, cellprob)], variant=variant)
    assert np.array_equal(got[0], flow)
    assert np.array_equal(got[1], cellprob)
    assert not got[2].any()


def test_disagreement_and_length():
    up, down = np.zeros((2, 3, 3), np.float32), np.zeros((2, 3, 3), np.float32)
    up[0], down[1] = 5, 5
    logit = np.zeros((3, 3), np.float32)
    flow, _, disagreement = average_flows([(up, logit), (down, logit)])
    assert np.allclose(np.hypot(*flow), 5 / np.sqrt(2))
    assert np.allclose(disagreement, 1 / np.sqrt(2))
    flow, _, _ = average_flows([(up, logit), (down, logit)], variant="direction")
    assert np.allclose(np.hypot(*flow), 5)
    flow, _, _ = average_flows([(up, logit), (-up, logit)], variant="direction")
    assert not flow.any()
    sure = np.full((3, 3), 9, np.float32)
    flow, _, _ = average_flows([(up, sure), (down, -sure)], variant="cellprob")
    assert np.allclose(flow, up, atol=0.01)


def test_inputs_are_left_alone():
    parts = members(2)
    before = [(flow.copy(), cellprob.copy()) for flow, cellprob in parts]
    average_flows(parts)
    for (flow, cellprob), (old_flow, old_cellprob) in zip(parts, before, strict=True):
        assert np.array_equal(flow, old_flow)
        assert np.array_equal(cellprob, old_cellprob)


def test_only_one_member_is_alive_at_a_time():
    alive, most = 0, 0

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def stream():
        nonlocal alive, most
        for flow, cellprob in members(5):
            alive += 1
            most = max(most, alive)
            yield flow.view(Counted), cellprob
            del flow, cellprob

    average_flows(stream())
    assert most <= 3


def nan_member():
    flow, cellprob = members(1)[0]
    flow[0, 1, 1] = np.nan
    return flow, cellprob


@pytest.mark.parametrize(
    ("parts", "weights", "message"),
    [
        ([], None, "found none"),
        ([*members(1), *members(1, (5, 7))], None, r"member 1 .*\(5, 6\), found \(5, 7\)"),
        ([*members(2), nan_member()], None, "member 2 .*NaN"),
        ([(np.zeros((3, 4, 4)), np.zeros((4, 4)))], None, "member 0"),
        ([(np.zeros((2, 4, 4), int), np.zeros((4, 4)))], None, "int64"),
        ([5], None, "member 0 .*found int"),
        (members(2), [1], "each of 2 members, found 1"),
        (members(2), [1, 2, 3], "each of 2 members, found 3"),
        (members(2), [1, -1], "member 1, found -1"),
        (members(2), [0, 0], "above 0"),
        (members(2), [1, float("nan")], "found nan"),
    ],
)
def test_bad_members(parts, weights, message):
    with pytest.raises(DataError, match=message):
        average_flows(iter(parts), weights)
    with pytest.raises(DataError, match="variant"):
        average_flows(members(1), variant="median")

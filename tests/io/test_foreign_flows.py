"""Flows of other origin that mean something else than they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellflow import FLOW_SCALE, labels_to_flows
from cellflow.errors import DataError
from cellflow.io.foreign_flows import check_layout, read_foreign_flows
from cellflow.synthetic import synthetic_dataset

LABELS = next(iter(synthetic_dataset(1, shape=(96, 96), seed=3))).labels
UNIT = labels_to_flows(LABELS)
LOGIT = np.where(LABELS > 0, 4.0, -6.0).astype(np.float32)
PROBABILITY = 1 / (1 + np.exp(-LOGIT))


def read(tmp_path: Path, **arrays: Any) -> Any:
    path = tmp_path / "cell7.npz"
    np.savez(path, **({"flow": UNIT, "cellprob": LOGIT, "scale": 1.0} | arrays))
    return read_foreign_flows(path)


@pytest.mark.parametrize("length", [0.6, 1.0, 1.4])
def test_right_ones_are_taken(tmp_path: Path, length: float) -> None:
    for scale in (1.0, 5.0, 100.0):
        flow, cellprob = read(tmp_path, flow=UNIT * length * scale, scale=scale)
        np.testing.assert_allclose(flow, UNIT * length * FLOW_SCALE, rtol=1e-5)
        assert (cellprob == LOGIT).all()
    read(tmp_path, cellprob=LOGIT - 20)  # nothing is there, and nothing can tell
    read(tmp_path, flow=UNIT.astype(np.float16), cellprob=LOGIT.astype(np.float16))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"flow": UNIT * 5}, r"scale 1 says .*they are 5 long \(median\).*scale=5"),
        ({"scale": 5.0}, r"scale 5 says .*they are 1 long.*unit flows\s+have scale=1"),
        ({"cellprob": PROBABILITY}, r"a probability, expected the logit.*p = cellprob; .*np\.log"),
        ({"cellprob": LABELS > 0}, "expected numbers in cellprob, found the type bool"),
        ({"cellprob": (LABELS > 0) * 1.0}, "a probability, expected the logit"),
        ({"cellprob": (LABELS > 0) * np.uint8(255)}, r"p = cellprob / 255;"),
        ({"flow": np.moveaxis(UNIT, 0, -1)}, r"np\.moveaxis\(flow, -1, 0\)"),
        ({"flow": UNIT[:, :50], "cellprob": LOGIT[:50].T}, "Rows and columns are exchanged"),
        ({"flow": np.concatenate([UNIT, LOGIT[None]])}, r"flow=y\[:2\], cellprob=y\[2\]"),
        ({"cellprob": LOGIT[None]}, r"np\.squeeze"),
        ({"flow": UNIT.astype(complex)}, "expected numbers in flow, found the type complex"),
        ({"flow": np.where(UNIT > 0.9, np.nan, UNIT)}, "expected finite numbers in flow, found"),
        ({"scale": -1.0}, "one positive scale"),
        ({"scale": [1.0, 5.0]}, "one positive scale"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, arrays: Any, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        read(tmp_path, **arrays)
    assert str(tmp_path / "cell7.npz") in str(caught.value)


def test_the_advice_is_right(tmp_path: Path) -> None:
    p = np.clip(PROBABILITY, 1e-6, 1 - 1e-6)
    np.testing.assert_allclose(read(tmp_path, cellprob=np.log(p / (1 - p)))[1], LOGIT, atol=1e-3)


# ------------------------------------------------------------------- compared with a network's own


def noisy(seed: int = 0) -> tuple[Any, Any]:
    """As a network of moderate quality would have it."""
    rng = np.random.default_rng(seed)
    return UNIT * 4.2 + rng.normal(0, 1.5, UNIT.shape), LOGIT + rng.normal(0, 1, LOGIT.shape)


@pytest.mark.parametrize(
    ("flow", "cellprob", "says"),
    [
        (UNIT[::-1], LOGIT, r"dX comes before dY.*flow = flow\[::-1\]"),
        (-UNIT, LOGIT, "point away from the centres.*flow = -flow"),
        (UNIT.swapaxes(1, 2), LOGIT.T, r"rows and columns are exchanged.*swapaxes"),
        (UNIT[::-1].swapaxes(1, 2), LOGIT.T, "rows and columns are exchanged, and dX"),
        (
            UNIT[:, :90],
            LOGIT[:90],
            r"the image's size \(96, 96\) \(height, width\), found \(90, 96\)",
        ),
    ],
)
def test_another_order_is_told(tmp_path: Path, flow: Any, cellprob: Any, says: str) -> None:
    path = tmp_path / "cell7.npz"
    with pytest.raises(DataError, match=says) as caught:
        check_layout(path, (flow * FLOW_SCALE, cellprob), noisy())
    assert str(path) in str(caught.value)


def test_no_false_alarm_in_order() -> None:
    check_layout(Path("a"), (UNIT, LOGIT), noisy())
    check_layout(Path("a"), noisy(1), noisy(2))
    rng = np.random.default_rng(0)
    untrained = rng.normal(size=UNIT.shape), np.ones_like(LOGIT)
    for flow in (UNIT, UNIT[::-1]):  # nothing can be said
        check_layout(Path("a"), (flow, LOGIT), untrained)
    check_layout(Path("a"), (UNIT, LOGIT - 20), noisy())

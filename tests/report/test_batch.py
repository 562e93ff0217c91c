"""The picture of a training batch: every crop is there, and the colours mean what the key says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.io import imread

from cellflow.report.batch import COLUMNS, flow_colors, plot_batch

pytestmark = pytest.mark.filterwarnings("error")

Arrays = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]


def batch(n: int, size: int = 224, *, second: bool = False) -> Arrays:
    """Crops with one disc each, whose flow points to its centre."""
    y, x = np.mgrid[:size, :size] - size / 2 + 0.5
    away = np.hypot(y, x)
    inside = away < size / 3
    images = np.zeros((n, 2, size, size), np.float32)
    images[:, 0] = 0.3 + 0.5 * inside
    images[:, 1] = second * inside
    flow = np.stack([-y, -x]) / np.maximum(away, 1e-6) * inside
    flows = np.repeat(flow[np.newaxis], n, axis=0).astype(np.float32)
    return images, flows, np.repeat(inside[np.newaxis], n, axis=0).astype(np.float32)


def named(n: int) -> list[tuple[str, str]]:
    return [
        (f"image ${place}_$ with a name that is much too long", "3 cells") for place in range(n)
    ]


def coloured(path: Path) -> np.ndarray[Any, Any]:
    picture = imread(path)[..., :3].astype(int)
    return picture.max(axis=2) - picture.min(axis=2) > 60


@pytest.mark.parametrize("n", [1, 2, 8, 11, 16])
@pytest.mark.parametrize("size", [32, 224])
def test_every_crop_is_drawn(tmp_path: Path, n: int, size: int) -> None:
    plot_batch(tmp_path / "batch.png", *batch(n, size), title="First batch", names=named(n))
    found = coloured(tmp_path / "batch.png")
    bands = -(-n // COLUMNS)
    height, width = found.shape
    assert height == pytest.approx(110 * 1.55 + bands * (471 + 37.4), abs=2)
    assert width == pytest.approx(max(946, min(n, COLUMNS) * 230.6 + 26), abs=2)
    per_flow = np.pi * (224 / 3) ** 2
    assert found[: height - 130].sum() > 0.9 * n * per_flow


def test_second_channel_is_blue_and_told(tmp_path: Path) -> None:
    plot_batch(tmp_path / "one.png", *batch(1), title="", names=named(1))
    plot_batch(tmp_path / "two.png", *batch(1, second=True), title="", names=named(1))
    one, two = (
        imread(tmp_path / name)[97:307, 360:580].astype(int) for name in ("one.png", "two.png")
    )
    assert (two[..., 2] - two[..., 0]).max() > 80
    assert (one[..., 2] - one[..., 0]).max() < 20


def test_outline_is_yellow(tmp_path: Path) -> None:
    plot_batch(tmp_path / "batch.png", *batch(1), title="", names=named(1))
    upper = imread(tmp_path / "batch.png")[97:307, 360:580].astype(int)
    yellow = (upper[..., 0] > 180) & (upper[..., 1] > 180) & (upper[..., 2] < 120)
    assert yellow.sum() > 2 * np.pi * 60


@pytest.mark.parametrize("fill", [0.0, np.nan, 7.0, -3.0])
def test_odd_values(tmp_path: Path, fill: float) -> None:
    images, flows, foregrounds = batch(2, 64)
    images[0, 0], flows[1], foregrounds[0] = fill, fill, 0
    plot_batch(tmp_path / "batch.png", images, flows, foregrounds, title="odd", names=named(2))


def test_directions_have_their_colours() -> None:
    red, blueish, cyan, dark = (
        flow_colors(np.array(vector, np.float32).reshape(2, 1, 1))[0, 0]
        for vector in ((0, 1), (-1, 0), (0, -1), (0, 0))
    )
    assert red.argmax() == 0
    assert blueish.argmax() == 2
    assert cyan.argmin() == 0
    assert dark.tolist() == [0, 0, 0]
    half = flow_colors(np.array((0, 0.5), np.float32).reshape(2, 1, 1))[0, 0]
    np.testing.assert_allclose(half, red / 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda a, b, c: (a[:0], b[:0], c[:0]),
        lambda a, b, c: (a, b[:1], c),
        lambda a, b, c: (a[:, :1], b, c),
        lambda a, b, c: (a, b, c[:, :10]),
        lambda a, b, c: tuple(np.concatenate([part] * 9) for part in (a, b, c)),
    ],
)
def test_shapes_that_do_not_fit(tmp_path: Path, change: Any) -> None:
    with pytest.raises(ValueError, match="expected images"):
        plot_batch(tmp_path / "batch.png", *change(*batch(2, 32)), title="", names=named(2))
    assert not list(tmp_path.iterdir())


def test_every_crop_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a name for each of 2 crops, found 1"):
        plot_batch(tmp_path / "batch.png", *batch(2, 32), title="", names=named(1))
    for name, text in (("with", named(2)), ("without", [("", "")] * 2)):
        plot_batch(tmp_path / f"{name}.png", *batch(2), title="", names=text)
    drawn, blank = (imread(tmp_path / f"{name}.png") for name in ("with", "without"))
    differs = (drawn != blank).any(axis=(1, 2))
    assert differs[55:92].any() and not differs[94:].any()  # above the crops, and nowhere else


def test_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(target: Path, data: bytes) -> None:
        with target.open("wb") as file:
            file.write(data[:4])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(OSError, match=r"batch\.png"):
        plot_batch(tmp_path / "batch.png", *batch(1, 32), title="", names=named(1))
    assert not list(tmp_path.iterdir())

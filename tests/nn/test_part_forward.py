"""Flows of a box are those of the whole image, to the bit, whichever tiles it is run with."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow import NarrowUNet
from numpy.typing import NDArray

from cellflow.errors import DataError, NotFiniteError
from cellflow.nn.forward import image_to_flows, image_to_style
from cellflow.nn.grid import Read
from cellflow.nn.part_forward import KnownTiles, part_to_flows, sampled_style
from cellflow.nn.precision import choose_layout, set_layout
from cellflow.nn.runners import Runner, make_runner
from cellflow.numeric.resize import resize_linear
from cellflow.numeric.tiling import (
    average_tiles,
    flip_tiles_back,
    make_tiles,
    pad_for_network,
    tile_grid,
    tiled_shape,
)
from cellflow.numeric.tta import VIEWS, flip_image, unflip_flow
from cellflow.types import Box

OPENVINO = importlib.util.find_spec("openvino") is not None
ENGINES: list[Any] = [
    ("torch", None),
    ("torch", torch.bfloat16),
    pytest.param(("openvino", None), marks=pytest.mark.skipif(not OPENVINO, reason="not here")),
    pytest.param(
        ("openvino", torch.bfloat16), marks=pytest.mark.skipif(not OPENVINO, reason="not here")
    ),
]


class SmallTiles(NarrowUNet):
    """Many tiles in small images."""

    tile = 48


@cache
def make_one(engine: Any = "torch", amp: torch.dtype | None = None) -> Runner:
    torch.manual_seed(3)
    net = SmallTiles(widths=(4, 8, 16))
    set_layout(net, choose_layout(torch.device("cpu")))
    with torch.no_grad():  # batch-norm statistics of something seen
        net.train()(torch.rand(2, 2, 64, 64))
    return make_runner(net.eval(), engine=engine, amp=amp)


def make_image(shape: tuple[int, int], channels: int = 2, flat: float = 0.0) -> NDArray[np.float32]:
    """Noise, constant in a part of its rows."""
    image = np.random.default_rng(shape).random((channels, *shape), dtype=np.float32)
    image[:, int(shape[0] * (1 - flat)) :] = 0.25
    return image


def reader(image: NDArray[np.float32], asked: list[Box] | None = None) -> Any:
    def read(box: Box) -> NDArray[np.float32]:
        assert not box.is_empty
        assert box == box.intersection(Box(0, image.shape[1], 0, image.shape[2]))
        if asked is not None:
            asked.append(box)
        return image[:, *box.slices]

    return read


def plain(
    runner: Runner, image: NDArray[np.float32], rescale: float, batch_size: int, augment: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The whole image, every tile by the network, step by step as Cellpose does."""
    net = runner.net
    seen = np.zeros((net.channels, *image.shape[1:]), np.float32)
    seen[: len(image)] = image[: net.channels]
    height, width = image.shape[1:]
    if rescale != 1.0:
        seen = resize_linear(seen, (max(1, int(height * rescale)), max(1, int(width * rescale))))
    padded, (rows, columns) = pad_for_network(seen, net.multiple)
    tiles, origins = make_tiles(padded, net.tile, augment=augment)
    outputs, _ = runner.run(tiles, batch_size=batch_size)
    if augment:
        grid = tile_grid(padded.shape[1:], net.tile, augment=True)
        outputs = flip_tiles_back(outputs, len(grid[1]))
    full = tiled_shape(padded.shape[1:], net.tile, augment)
    mean = average_tiles(outputs, origins, full, net.tile)[:, rows, columns]
    mean = resize_linear(mean, (height, width)) if rescale != 1.0 else mean
    return mean[:2], mean[2]


@st.composite
def parts(draw: st.DrawFn) -> tuple[tuple[int, int], Box]:
    shape = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    sides = [sorted(draw(st.sets(st.integers(0, n), min_size=2, max_size=2))) for n in shape]
    return shape, Box(*sides[0], *sides[1])


@settings(max_examples=25, deadline=None)
@given(
    parts(),
    st.sampled_from([1.0, 0.5, 0.37, 1.3, 2.0]),
    st.sampled_from([1, 3, 8]),
    st.booleans(),
    st.sampled_from(VIEWS),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([0.0, 0.7]),
)
@pytest.mark.slow
def test_a_box_is_that_of_the_whole(
    part: Any, rescale: float, batch: int, augment: bool, axes: Any, channels: int, flat: float
) -> None:
    runner, (shape, box) = make_one(), part
    image = make_image(shape, channels, flat)
    whole = plain(runner, flip_image(image, axes), rescale, batch, augment)
    flow, cellprob = unflip_flow(*whole, axes)
    found = part_to_flows(
        runner, reader(image), shape, box, rescale=rescale, batch_size=batch, augment=augment,
        axes=axes,
    )  # fmt: skip
    assert found[0].tobytes() == flow[:, *box.slices].tobytes()
    assert found[1].tobytes() == cellprob[box.slices].tobytes()
    if not axes:
        flows = image_to_flows(runner, image, rescale=rescale, batch_size=batch, augment=augment)
        assert flows.flow.tobytes() == flow.tobytes()
        assert flows.cellprob.tobytes() == cellprob.tobytes()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("side", "batch"), [(200, 8), (200, 3), (90, 8)])
def test_every_engine_gives_a_tile_the_same_bits_in_any_company(
    engine: tuple[Any, Any], side: int, batch: int
) -> None:
    """The last call of an image has fewer tiles, and a box runs other tiles together."""
    runner, image = make_one(*engine), make_image((side, side - 7), flat=0.3)
    whole = image_to_flows(runner, image, rescale=0.9, batch_size=batch)
    for box in (Box(0, 9, 0, 9), Box(60, 80, 10, side - 20), Box(side - 1, side, 0, side - 7)):
        found = part_to_flows(
            runner, reader(image), (side, side - 7), box, rescale=0.9, batch_size=batch
        )
        assert found[0].tobytes() == whole.flow[:, *box.slices].tobytes()
        assert found[1].tobytes() == whole.cellprob[box.slices].tobytes()
    style = image_to_style(runner, image, rescale=0.9, batch_size=batch)
    found_style = sampled_style(
        runner, reader(image), (side, side - 7), rescale=0.9, batch_size=batch
    )
    assert found_style.tobytes() == style.tobytes()


def test_only_what_the_tiles_show_is_read() -> None:
    asked: list[Box] = []
    image = make_image((600, 600))
    part_to_flows(
        make_one(), reader(image, asked), (600, 600), Box(300, 310, 200, 220), rescale=1.0
    )
    (box,) = asked
    assert box.shape <= (96 + 48, 96 + 48)
    assert Box(300, 310, 200, 220).intersection(box) == Box(300, 310, 200, 220)


def test_constant_tiles_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = make_one("openvino" if OPENVINO else "torch")
    image = make_image((400, 400))
    image[:, 100:] = np.array([0.1, 0.7], np.float32)[:, None, None]
    whole = plain(runner, image, 1.0, 8, False)
    counts: list[int] = []
    run = runner.run

    def counted(tiles: Any, **settings: Any) -> Any:
        counts.append(len(tiles))
        return run(tiles, **settings)

    monkeypatch.setattr(runner, "run", counted)
    known = KnownTiles()
    for box in (Box(200, 300, 100, 300), Box(250, 320, 60, 240), Box(80, 300, 100, 300)):
        found = part_to_flows(runner, reader(image), (400, 400), box, rescale=1.0, known=known)
        assert found[0].tobytes() == whole[0][:, *box.slices].tobytes()
        assert found[1].tobytes() == whole[1][box.slices].tobytes()
    assert counts[0] == 1  # then none, then those that show something
    assert len(counts) == 2
    assert len(known.values) == 1
    assert known.run < known.seen


def test_the_style_of_a_large_image_is_sampled_evenly() -> None:
    runner, shape = make_one(), (500, 260)
    image = make_image(shape, flat=0.5)
    asked: list[Box] = []
    style = sampled_style(runner, reader(image, asked), shape, rescale=1.0, most_tiles=20)
    assert 10 <= len(asked) <= 20
    assert 0.3 < np.mean([box.bottom > 250 for box in asked]) < 0.7
    assert len({box.left for box in asked}) > 1
    assert np.linalg.norm(style) == pytest.approx(1, abs=1e-6)
    assert style @ image_to_style(runner, image, rescale=1.0) > 0.99
    one = sampled_style(runner, reader(image, asked := []), shape, rescale=1.0, most_tiles=1)
    assert len(asked) == 1
    assert one.shape == style.shape


def test_tiles_that_cannot_be_read_have_no_say_in_the_style(caplog) -> None:
    runner, shape = make_one(), (500, 260)
    image = make_image(shape, flat=0.5)

    def damaged(last: int) -> Read:
        def read(box: Box) -> NDArray[np.float32]:
            if box.bottom > last:
                raise DataError("A chunk is damaged.")
            return reader(image)(box)

        return read

    style = sampled_style(runner, damaged(400), shape, rescale=1.0)
    assert style @ image_to_style(runner, image, rescale=1.0) > 0.9
    assert "A chunk is damaged. The style is found without" in caplog.text
    with pytest.raises(DataError, match="damaged"):
        sampled_style(runner, damaged(0), shape, rescale=1.0)


def test_a_broken_network_is_said() -> None:
    net = SmallTiles(widths=(4, 8))
    net.output[2].bias.data.fill_(float("nan"))
    runner, image = make_runner(net.eval()), make_image((60, 60))
    with pytest.raises(NotFiniteError, match="--amp off"):
        part_to_flows(runner, reader(image), (60, 60), Box(0, 5, 0, 5), rescale=1.0)

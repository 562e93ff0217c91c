from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Oracle

from cellflow.numeric import tiling
from cellflow.numeric.tta import VIEWS, flip_image, unflip_flow

SIZES = [(500, 333), (224, 224), (100, 700), (100, 150), (48, 225)]


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("augment", [False, True])
def test_equals_cellpose(shape, augment):
    transforms = Oracle("transforms")

    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *shape)).astype(np.float32)
    theirs, rows, columns, height, width = transforms.make_tiles(image, augment=augment)
    tiles, origins = tiling.make_tiles(image, 224, augment=augment)
    assert np.array_equal(theirs.reshape(tiles.shape), tiles)
    assert origins.tolist() == [[r[0], c[0]] for r, c in zip(rows, columns, strict=True)]
    assert tiling.tiled_shape(shape, 224, augment=augment) == (height, width)
    outputs = rng.normal(size=(len(tiles), 3, *tiles.shape[2:])).astype(np.float32)
    if augment:
        grid = theirs.shape[:2]
        flipped = transforms.unaugment_tiles(outputs.reshape(*grid, *outputs.shape[1:]).copy())
        outputs = tiling.flip_tiles_back(outputs, grid[1])
        assert np.array_equal(flipped.reshape(outputs.shape), outputs)
    average = transforms.average_tiles(outputs, rows, columns, height, width)
    assert np.array_equal(average, tiling.average_tiles(outputs, origins, (height, width), 224))


@pytest.mark.parametrize("shape", [*SIZES, (1, 1), (16, 31)])
def test_padding_equals_cellpose(shape):
    transforms = Oracle("transforms")

    image = np.ones((2, *shape), np.float32)
    padded, (rows, columns) = tiling.pad_for_network(image, 16)
    theirs, their_rows, their_columns = transforms.pad_image_ND(image)
    assert np.array_equal(padded, theirs)
    assert np.arange(padded.shape[1])[rows].tolist() == their_rows.tolist()
    assert np.arange(padded.shape[2])[columns].tolist() == their_columns.tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(8, 40), st.floats(0, 0.6), st.booleans())
def test_tiling_is_invisible_for_a_function_of_single_pixels(height, width, tile, overlap, augment):
    image = np.random.default_rng(0).normal(size=(3, height, width)).astype(np.float32)
    tiles, origins = tiling.make_tiles(image, tile, overlap, augment)
    outputs = 2 * tiles
    if augment:
        columns = tiling.tile_grid((height, width), tile, overlap, augment)[1]
        outputs = tiling.flip_tiles_back(outputs, len(columns))
        outputs[:, :2] = np.abs(outputs[:, :2])  # the signs of flows follow flips
        image[:2] = np.abs(image[:2])
    full = tiling.tiled_shape((height, width), tile, augment)
    average = tiling.average_tiles(outputs, origins, full, tile)[:, :height, :width]
    assert np.allclose(average, 2 * image, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(8, 40), st.booleans())
def test_the_average_equals_that_of_plain_numpy(height, width, tile, augment):
    random = np.random.default_rng(height * width)
    image = random.normal(size=(3, height, width)).astype(np.float32)
    tiles, origins = tiling.make_tiles(image, tile, augment=augment)
    outputs = random.normal(size=tiles.shape).astype(np.float32)
    full = tiling.tiled_shape((height, width), tile, augment)
    mean, total = np.zeros((3, *full), np.float32), np.zeros(full)
    side_y, side_x = tiles.shape[2:]
    weight = tiling.taper(side_y, side_x, tile)
    for output, (y, x) in zip(outputs, origins, strict=True):
        mean[:, y : y + side_y, x : x + side_x] += output * weight
        total[y : y + side_y, x : x + side_x] += weight
    mean /= total
    assert np.array_equal(mean, tiling.average_tiles(outputs, origins, full, tile))


def test_overlap_is_clamped_and_starts_are_even():
    assert tiling.tile_starts(100, 224).tolist() == [0]
    assert tiling.tile_starts(224, 224).tolist() == [0]
    assert tiling.tile_starts(225, 224).tolist() == [0, 1]
    assert np.array_equal(
        tiling.tile_starts(1000, 224, overlap=0), tiling.tile_starts(1000, 224, overlap=0.05)
    )
    assert np.array_equal(
        tiling.tile_starts(1000, 224, overlap=2), tiling.tile_starts(1000, 224, overlap=0.5)
    )


@pytest.mark.parametrize("axes", VIEWS)
def test_flips_of_flows_are_flips_of_what_they_point_at(axes):
    # the flow towards a point, seen in a flipped image, points at the flipped point
    def towards(cy, cx, shape=(9, 12)):
        y, x = np.mgrid[: shape[0], : shape[1]]
        return np.stack([cy - y, cx - x]).astype(np.float32)

    cy, cx = 2, 7
    seen_y, seen_x = (8 - cy if "y" in axes else cy), (11 - cx if "x" in axes else cx)
    image = np.zeros((1, 9, 12))
    image[0, cy, cx] = 1
    assert flip_image(image, axes)[0, seen_y, seen_x] == 1
    flow, cellprob = unflip_flow(towards(seen_y, seen_x), flip_image(image, axes)[0], axes)
    assert np.array_equal(flow, towards(cy, cx))
    assert np.array_equal(cellprob, image[0])


def test_equals_run_net_for_a_network():
    import torch

    run_net = Oracle("core").run_net

    class Net(torch.nn.Module):
        nout, device, mkldnn = 3, torch.device("cpu"), False

        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.weight = torch.randn(3, 2, 5, 5, generator=generator) / 7

        def forward(self, x):
            y = torch.nn.functional.conv2d(x, self.weight, padding=2)
            return y, y.mean(dim=(2, 3)).repeat(1, 86)[:, :256]

    net = Net()
    image = np.random.default_rng(0).normal(size=(2, 250, 130)).astype(np.float32)
    for augment in (False, True):
        theirs, _ = run_net(net, image.transpose(1, 2, 0)[None], augment=augment)
        padded, (rows, columns) = tiling.pad_for_network(image, 16)
        tiles, origins = tiling.make_tiles(padded, 224, augment=augment)
        with torch.no_grad():
            outputs = np.concatenate(
                [
                    net(torch.from_numpy(tiles[i : i + 8]))[0].numpy()
                    for i in range(0, len(tiles), 8)
                ]
            )
        if augment:
            grid = tiling.tile_grid(padded.shape[1:], 224, augment=True)
            outputs = tiling.flip_tiles_back(outputs, len(grid[1]))
        full = tiling.tiled_shape(padded.shape[1:], 224, augment=augment)
        ours = tiling.average_tiles(outputs, origins, full, 224)[:, rows, columns]
        assert np.array_equal(ours, theirs[0].transpose(2, 0, 1))

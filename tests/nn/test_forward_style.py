from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from cellflow.errors import NotFiniteError
from cellflow.nn.forward import image_to_flows, image_to_style
from cellflow.nn.networks import UNet
from cellflow.nn.precision import choose_layout, set_layout
from cellflow.nn.runners import TorchRunner

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """New weights, with batch-norm statistics of something seen."""
    net = UNet.build(seed=4)
    set_layout(net, choose_layout(CPU))
    with torch.no_grad():
        net.train()(torch.from_numpy(make_image(0, (64, 64))[None]))
    return net.eval()


def make_image(seed: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((2, *shape), dtype=np.float32)


def test_encode_is_the_networks_second_output(net: nn.Module) -> None:
    tiles = torch.from_numpy(np.stack([make_image(seed, (32, 48)) for seed in (1, 2, 3)]))
    with torch.inference_mode():
        style = net.encode(tiles)
        assert torch.equal(style, net(tiles)[1])
    assert style.shape == (3, UNet.style_size)
    assert not torch.equal(style[0], style[1])


@pytest.mark.parametrize(
    ("shape", "rescale", "batch_size"),
    [
        ((40, 56), 1.0, 8),
        ((50, 33), 0.5, 8),  # smaller than a multiple of 16
        ((240, 40), 1.0, 1),  # two tiles, one a call
        ((120, 20), 2.0, 8),  # the same by enlarging
        ((3, 2), 0.1, 8),  # less than a pixel
    ],
)
@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_the_style_of_image_to_flows(
    net: nn.Module,
    shape: tuple[int, int],
    rescale: float,
    batch_size: int,
    amp: torch.dtype | None,
) -> None:
    """To the bit: the same operations on the same tiles."""
    image = make_image(5, shape)
    kept = image.copy()
    style = image_to_style(TorchRunner(net, amp), image, rescale=rescale, batch_size=batch_size)
    whole = image_to_flows(TorchRunner(net, amp), image, rescale=rescale, batch_size=batch_size)
    np.testing.assert_array_equal(style, whole.style)
    assert style.shape == (UNet.style_size,)
    assert style.dtype == np.float32
    assert np.linalg.norm(style) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(image, kept)


def test_a_broken_network_is_said() -> None:
    net = UNet.build().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(NotFiniteError, match="--amp off"):
        image_to_style(TorchRunner(net), make_image(1, (16, 16)), rescale=1.0)

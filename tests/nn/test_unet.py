"""Our U-Net against Cellpose's own, and the flavours of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import Oracle

from cellflow.errors import CheckpointError
from cellflow.nn.checkpoint import load_model_file, save_model_file
from cellflow.nn.networks import UNet
from cellflow.nn.runners import TorchRunner

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def cellpose_network(channels: int = 2, widths: tuple[int, ...] = (32, 64, 128, 256)) -> Any:
    """Cellpose's network with new weights."""
    torch.manual_seed(7)
    return Oracle("resnet_torch").CPnet([channels, *widths], 3, 3)


def with_weights(state: dict[str, Any]) -> UNet:
    net = UNet.build()
    net.load_state_dict(state)
    return net


def test_a_seed_gives_the_weights_of_cellpose() -> None:
    theirs, ours = cellpose_network(), UNet.build(seed=7)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    assert [name for name, _ in theirs.named_parameters()] == [
        name for name, _ in ours.named_parameters()
    ]
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_equals_cellpose_to_the_bit(layout: torch.memory_format) -> None:
    """Outputs, styles, gradients and 20 steps of SGD, batch norm statistics included."""
    theirs = cellpose_network(widths=(8, 16, 32)).to(memory_format=layout)
    ours = UNet(widths=(8, 16, 32)).to(memory_format=layout)
    ours.load_state_dict(theirs.state_dict())
    optimizers = [
        torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-5)
        for net in (theirs, ours)
    ]
    draw = torch.Generator().manual_seed(3)
    for _ in range(20):
        image = torch.randn(2, 2, 48, 32, generator=draw).to(memory_format=layout)
        target = torch.randn(2, 3, 48, 32, generator=draw)
        outputs = [net(image) for net in (theirs, ours)]
        assert torch.equal(outputs[0][0], outputs[1][0])
        assert torch.equal(outputs[0][1], outputs[1][1])
        for net, optimizer, output in zip((theirs, ours), optimizers, outputs, strict=True):
            net.zero_grad()
            ((output[0] - target) ** 2).mean().backward()
            optimizer.step()
        for one, other in zip(theirs.parameters(), ours.parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None)
            assert one.grad is None or torch.equal(one.grad, other.grad)
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_real_model_puts_out_the_same(shared: Path, layout: torch.memory_format) -> None:
    path = shared / "models" / "usiigaci_unet"
    theirs = cellpose_network()
    theirs.load_model(str(path))
    theirs.eval().to(memory_format=layout)
    ours = load_model_file(path).net.to(memory_format=layout)
    tile = torch.rand(1, 2, 112, 96, generator=torch.Generator().manual_seed(0))
    tile = tile.to(memory_format=layout)
    with torch.no_grad():
        expected, found = theirs(tile), ours(tile)
        assert torch.equal(expected[0], found[0]) and torch.equal(expected[1], found[1])
        assert all(torch.equal(a, b) for a, b in zip(expected[2], found[2], strict=True))
        assert torch.equal(ours.encode(tile), expected[1])


@pytest.mark.parametrize(
    ("channels", "widths"), [(1, (8, 16)), (3, (8, 16, 24)), (2, (4, 8, 8, 12, 16))]
)
def test_channels_and_widths_come_from_the_file(
    tmp_path: Path, channels: int, widths: tuple[int, ...]
) -> None:
    net = UNet(channels=channels, widths=widths).eval()
    save_model_file(tmp_path / "odd.pt", net, {})
    loaded = load_model_file(tmp_path / "odd.pt").net
    assert (loaded.channels, loaded.style_size) == (channels, widths[-1])
    tiles = torch.rand(2, channels, 32, 48)
    with torch.no_grad():
        assert torch.equal(net(tiles)[0], loaded(tiles)[0])
    outputs, styles = TorchRunner(loaded).run(tiles.numpy())
    assert outputs.shape == (2, 3, 32, 48) and styles is not None and styles.shape[1] == widths[-1]


def test_files_of_version_1_have_no_diameters(tmp_path: Path) -> None:
    """Nor are they zip files: torch wrote another format then."""
    state = UNet().state_dict()
    del state["diam_mean"], state["diam_labels"]
    for name, diameter in {"cytotorch_0": 30.0, "nucleitorch_2": 17.0}.items():
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=False)
        assert load_model_file(tmp_path / name).net.diameters == (diameter, diameter)


def with_outputs(count: int) -> dict[str, Any]:
    state = UNet(widths=(8, 16)).state_dict()
    state["output.2.weight"] = torch.zeros(count, 8, 1, 1)
    state["output.2.bias"] = torch.zeros(count)
    return state


def concatenating() -> dict[str, Any]:
    state = UNet(widths=(8, 16)).state_dict()
    state["upsample.up.res_up_0.conv.conv_1.full.weight"] = torch.zeros(16, 16)
    return state


def without_residuals() -> dict[str, Any]:
    state = UNet(widths=(8, 16)).state_dict()
    return {name.replace("res_down", "conv_down"): value for name, value in state.items()}


def of_volumes() -> dict[str, Any]:
    return UNet(widths=(8, 16)).state_dict() | {"extra": torch.zeros(1, 1, 3, 3, 3)}


@pytest.mark.parametrize(
    ("name", "state", "reason"),
    [
        ("omni", with_outputs(4), r"expected 3 outputs .*found 4, as in Omnipose"),
        ("denoise", with_outputs(1), r"found 1, as in Cellpose's image restoration"),
        ("cat", concatenating(), "concatenates features"),
        ("plain", without_residuals(), "no residual blocks"),
        ("cellpose_residual_on_style_off_x", UNet(widths=(8, 16)).state_dict(), "without the style"),
        ("volumes", of_volumes(), "for volumes"),
    ],
)  # fmt: skip
def test_relatives_are_refused_with_the_reason(
    tmp_path: Path, name: str, state: dict[str, Any], reason: str
) -> None:
    torch.save(state, tmp_path / name)
    with pytest.raises(CheckpointError, match=rf"{name}: .*{reason}") as caught:
        load_model_file(tmp_path / name)
    assert caught.value.path == tmp_path / name

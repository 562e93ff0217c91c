from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from narrow import NarrowUNet
from oracle import Oracle
from torch import nn

from cellflow.nn import step
from cellflow.nn.dataset import Batch
from cellflow.nn.networks import UNet
from cellflow.nn.optim import make_optimizer
from cellflow.nn.precision import set_layout
from cellflow.nn.step import Stepper, StepResult

upstream = Oracle("train")
cellpose_resnet = Oracle("resnet_torch")


def make_batch(seed: int, count: int = 2, size: int = 32) -> Batch:
    rng = np.random.default_rng(seed)
    image = rng.random((count, 2, size, size), dtype=np.float32)
    flow = rng.normal(size=(count, 2, size, size)).astype(np.float32)
    foreground = (rng.random((count, size, size)) < 0.4).astype(np.float32)
    counts = np.ones((count, size, size), dtype=np.bool_)
    return Batch(*map(torch.from_numpy, (image, flow, foreground, counts)))


def make_stepper(net: nn.Module | None = None, *, rate_name: str = "sgd", **more: float) -> Stepper:
    net = NarrowUNet.build(seed=1) if net is None else net
    return Stepper(net, make_optimizer(net, rate_name, weight_decay=1e-5), **more)  # type: ignore[arg-type]


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def vector(net: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


@pytest.mark.parametrize("steps", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_steps_of_sgd_stay_with_cellpose(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cellpose's network, loss and optimizer, as train_seg steps them, beside ours in the same layout."""
    monkeypatch.setattr(step, "choose_layout", lambda device: torch.contiguous_format)
    theirs = cellpose_resnet.CPnet([2, 32, 64, 128, 256], 3, 3, mkldnn=False)
    ours = UNet.build(seed=3)
    theirs.load_state_dict(ours.state_dict())
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-5)
    stepper = make_stepper(ours)
    for seed in range(steps):
        batch = make_batch(seed)
        loss = upstream_gradient(theirs, optimizer, batch)
        result = stepper.step(batch, 0.05)
        assert result.loss == pytest.approx(loss, rel=1e-6)
        if seed == 0:
            assert apart(gradient(ours), gradient(theirs)) < 1e-6
        optimizer.step()
    moved = vector(ours) - vector(UNet.build(seed=3))
    assert apart(moved, vector(theirs) - vector(UNet.build(seed=3))) < 1e-6


def test_channels_last_differs_by_rounding_only() -> None:
    """The layout we train in. Over many steps on such small crops rounding grows, so one step is compared."""
    theirs = cellpose_resnet.CPnet([2, 32, 64, 128, 256], 3, 3, mkldnn=False)
    ours = UNet.build(seed=3)
    theirs.load_state_dict(ours.state_dict())
    set_layout(ours, torch.channels_last)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05)
    batch = make_batch(0)
    loss = upstream_gradient(theirs, optimizer, batch)
    assert make_stepper(ours).step(batch, 0.05).loss == pytest.approx(loss, rel=1e-5)
    assert apart(gradient(ours), gradient(theirs)) < 2e-3


def upstream_gradient(net: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    """Loss and gradient of cellpose, as the loop of train_seg computes them."""
    lbl = np.concatenate([batch.foreground[:, None].numpy(), batch.unit_flow.numpy()], axis=1)
    net.train()
    loss = upstream._loss_fn_seg(lbl, net(batch.image)[0], torch.device("cpu"))
    optimizer.zero_grad()
    loss.backward()
    return float(loss.item())


def gradient(net: nn.Module) -> torch.Tensor:
    return torch.cat([item.grad.flatten() for item in net.parameters() if item.grad is not None])


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def test_pieces_give_the_gradient_of_the_parts_averaged() -> None:
    """Two pieces are two forward passes whose gradients are averaged, with batch norm a pass."""
    stepper = make_stepper()
    reference = copy.deepcopy(stepper.net)
    stepper.pieces = 2
    batch = make_batch(0, count=4)
    stepper.step(batch, 0.0)
    reference.train()
    from cellflow.nn.loss import segmentation_loss

    for part in (slice(0, 2), slice(2, 4)):
        output = reference(batch.image[part])[0]
        loss = segmentation_loss(output, batch.unit_flow[part], batch.foreground[part]).total
        (loss / 2).backward()
    expected = [item.grad for item in reference.parameters() if item.requires_grad]
    for mine, gradient in zip(stepper.parameters, expected, strict=True):
        torch.testing.assert_close(mine.grad, gradient, rtol=1e-4, atol=1e-6)


def test_a_step_that_is_not_finite_leaves_no_trace() -> None:
    stepper = make_stepper(ema=0.9)
    stepper.step(make_batch(0), 0.01)
    before, average = copy.deepcopy(stepper.net), copy.deepcopy(stepper.average)
    bad = make_batch(1)
    bad.image[0, 0, 0, 0] = math.nan
    result = stepper.step(bad, 0.01)
    assert not result.taken
    assert same(stepper.net, before)
    assert average is not None and stepper.average is not None
    assert same(stepper.average, average)
    assert stepper.step(make_batch(2), 0.01).taken


def test_clipping_shortens_the_gradient_and_says_its_length() -> None:
    free, clipped = make_stepper(), make_stepper(clip_grad=0.01)
    batch = make_batch(0)
    length = free.step(batch, 0.0).grad_norm
    assert length > 0.01
    assert clipped.step(batch, 0.0).grad_norm == pytest.approx(length)
    norm = torch.cat([item.grad.flatten() for item in clipped.parameters]).norm()
    assert norm.item() == pytest.approx(0.01, rel=1e-3)


def test_the_average_of_the_weights_follows_its_formula() -> None:
    """Against the recurrence written out: the decay rises from 2/11 to its value."""
    stepper = make_stepper(ema=0.5)
    name = "output.2.weight"
    expected = None
    for count in range(6):
        stepper.step(make_batch(count), 0.05)
        now = stepper.net.state_dict()[name].double()
        decay = min(0.5, (1 + count) / (10 + count))
        expected = now.clone() if expected is None else decay * expected + (1 - decay) * now
    assert stepper.average is not None and expected is not None
    found = stepper.average.state_dict()[name].double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert not torch.equal(found, stepper.net.state_dict()[name].double())
    counts = [key for key in stepper.average.state_dict() if key.endswith("num_batches_tracked")]
    assert stepper.average.state_dict()[counts[0]] == 6


def test_out_of_memory_halves_the_batch_until_it_fits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A network that can take two crops at a time: the batch goes through in parts of two."""
    stepper, expected = make_stepper(), make_stepper()
    expected.pieces = 4
    forward = stepper.net.forward

    def tight(image: torch.Tensor) -> object:
        result = forward(image)  # batch-norm statistics have changed by the time memory runs out
        if len(image) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return result

    monkeypatch.setattr(stepper.net, "forward", tight)
    batch = make_batch(0, count=8)
    result = stepper.step(batch, 0.01)
    assert result.taken
    assert stepper.pieces == 4
    assert "4 parts" in caplog.text
    expected.step(batch, 0.01)
    assert same(stepper.net, expected.net)
    assert make_stepper_with(stepper.state_dict()).pieces == 4


def make_stepper_with(state: dict[str, object]) -> Stepper:
    stepper = make_stepper()
    stepper.load_state_dict(state)
    return stepper


def test_out_of_memory_with_a_single_crop_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stepper = make_stepper()

    def never(image: torch.Tensor) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(stepper.net, "forward", never)
    with pytest.raises(torch.OutOfMemoryError):
        stepper.step(make_batch(0), 0.01)


def test_a_stand_in_counts_nothing() -> None:
    stepper = make_stepper()
    result = stepper.step(make_batch(0), 0.01, share=0.0)
    assert result.loss == 0
    assert all(not item.grad.any() for item in stepper.parameters)


def test_a_frozen_encoder_stays_as_it_is() -> None:
    net = NarrowUNet.build(seed=1)
    net.freeze_encoder()
    before = copy.deepcopy(net)
    stepper = make_stepper(net)
    stepper.step(make_batch(0), 0.01)
    old, new = before.state_dict(), net.state_dict()
    changed = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert "upsample" in changed and "output" in changed
    assert "downsample" not in changed


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_state_goes_on_bit_for_bit(name: str) -> None:
    one = make_stepper(rate_name=name, ema=0.9)
    one.step(make_batch(0), 0.01)
    state = copy.deepcopy(one.state_dict())
    other = make_stepper(NarrowUNet.build(seed=9), rate_name=name, ema=0.9)
    other.load_state_dict(state)
    results: list[StepResult] = [item.step(make_batch(1), 0.01) for item in (one, other)]
    assert results[0] == results[1]
    assert same(one.net, other.net)
    assert one.average is not None and other.average is not None
    assert same(one.average, other.average)

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import Oracle

from cellflow.nn import loss as loss_module
from cellflow.nn.loss import segmentation_loss
from cellflow.nn.networks import UNet
from cellflow.nn.optim import cellpose_schedule, learning_rate_at, make_optimizer

upstream = Oracle("train")


def upstream_schedule(n_epochs: int, learning_rate: float) -> np.ndarray:
    """The schedule as it stands inside cellpose.train.train_seg, written out step by step."""
    rates = list(np.linspace(0, learning_rate, 10)) + [learning_rate] * max(0, n_epochs - 10)
    if n_epochs > 300:
        rates = rates[:-100]
        for _ in range(10):
            rates += [rates[-1] / 2] * 10
    elif n_epochs > 100:
        rates = rates[:-50]
        for _ in range(10):
            rates += [rates[-1] / 2] * 5
    return np.array(rates[:n_epochs])


@pytest.mark.parametrize("n_epochs", [1, 5, 10, 11, 100, 101, 150, 300, 301, 500])
def test_cellpose_schedule(n_epochs: int) -> None:
    np.testing.assert_allclose(cellpose_schedule(n_epochs, 0.2), upstream_schedule(n_epochs, 0.2))


def test_cosine_rises_to_the_peak_and_falls_to_one_percent() -> None:
    rates = [
        learning_rate_at(step, schedule="cosine", peak=0.1, n_epochs=20, steps_per_epoch=10)
        for step in range(200)
    ]
    top = int(np.argmax(rates))
    assert rates[top] == pytest.approx(0.1)
    assert rates[0] > 0
    assert np.all(np.diff(rates[: top + 1]) > 0)
    assert np.all(np.diff(rates[top + 1 :]) < 0)
    assert rates[-1] == pytest.approx(0.001, rel=0.05)


def test_loss_and_gradient_equal_cellpose() -> None:
    rng = np.random.default_rng(0)
    label = np.concatenate(
        [rng.integers(0, 3, (2, 1, 16, 16)), rng.normal(size=(2, 2, 16, 16))], axis=1
    ).astype(np.float32)
    output = torch.tensor(rng.normal(size=(2, 3, 16, 16)), dtype=torch.float32)
    ours, theirs = output.clone().requires_grad_(), output.clone().requires_grad_()
    expected = upstream._loss_fn_seg(label, theirs, torch.device("cpu"))
    expected.backward()
    unit_flow, foreground = (
        torch.from_numpy(label[:, 1:]),
        torch.from_numpy(label[:, 0] > 0.5).float(),
    )
    loss = segmentation_loss(ours, unit_flow, foreground)
    loss.total.backward()
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(loss.terms["flow"] + loss.terms["cellprob"], loss.total)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pixels_that_do_not_count_have_neither_loss_nor_gradient(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    rng = np.random.default_rng(1)
    output = torch.tensor(rng.normal(0, 9, size=(2, 3, 8, 8)), dtype=dtype, requires_grad=True)
    unit_flow = torch.tensor(rng.normal(size=(2, 2, 8, 8)), dtype=torch.float32)
    foreground = torch.tensor(rng.random((2, 8, 8)) < 0.5, dtype=torch.float32)
    counts = torch.tensor(rng.random((2, 8, 8)) < 0.6)
    loss = segmentation_loss(output, unit_flow, foreground, counts)
    loss.total.backward()
    assert output.grad is not None
    seen = output.grad.ne(0).any(dim=1)
    assert torch.equal(seen, counts)
    # whatever stands there, the loss is the same to the bit, and the sum over those that count
    with torch.no_grad():
        output[:, :, :, :] = torch.where(counts[:, None], output, -7.0 * output)
    again = segmentation_loss(output, unit_flow + ~counts[:, None] * 3.0, foreground, counts)
    assert torch.equal(again.total, loss.total)
    alone = output.detach().float().movedim(1, -1)[counts].T[None, :, None]
    flow, truth = unit_flow.movedim(1, -1)[counts].T[None, :, None], foreground[counts][None, None]
    share = counts.float().mean()
    torch.testing.assert_close(loss.total, share * segmentation_loss(alone, flow, truth).total)
    # a term that somebody adds knows nothing of them either
    terms = loss_module.loss_terms
    monkeypatch.setattr(
        loss_module,
        "loss_terms",
        lambda out, *rest: terms(out, *rest) | {"large": out.square().mean()},
    )
    output.grad = None
    segmentation_loss(output, unit_flow, foreground, counts).total.backward()
    assert not output.grad.movedim(1, -1)[~counts].any()


def test_all_pixels_that_count_change_nothing() -> None:
    output = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    targets = torch.zeros((2, 2, 8, 8)), torch.ones((2, 8, 8))
    everything = torch.ones((2, 8, 8), dtype=torch.bool)
    plain, masked = (segmentation_loss(output, *targets, *more) for more in ((), (everything,)))
    assert torch.equal(plain.total, masked.total)


@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_same_seed_same_weights_and_untouched_global_generator(seed: int) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first = UNet.build(seed=seed).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    second = UNet.build(seed=seed).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_diameters_are_kept_in_the_network() -> None:
    net = UNet.build(diam_mean=17.0)
    assert net.diameters == (17.0, 17.0)
    net.set_diam_labels(41.5)
    assert net.diameters == (17.0, 41.5)


def test_optimizers() -> None:
    net = UNet.build()
    sgd = make_optimizer(net, "sgd", weight_decay=1e-4, momentum=0.8)
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["momentum"] == 0.8
    assert isinstance(make_optimizer(net, "adamw", weight_decay=0, momentum=0), torch.optim.AdamW)
    trained = sum(p.numel() for group in sgd.param_groups for p in group["params"])
    # Neither diameter is trained.
    assert trained == sum(p.numel() for p in net.parameters()) - 2

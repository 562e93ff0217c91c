from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from cellflow.nn.dataset import Batch, CropDataset, EpochSampler, Sample, make_loader


@dataclass(frozen=True)
class Reader:
    """Samples made from their index; picklable, as workers need it."""

    def __call__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        target = np.zeros((3, 70, 60), np.float32)
        target[0, 20:40, 20:40] = 1
        target[1:, 20:40, 20:40] = 0.7
        return Sample(rng.random((1, 70, 60), dtype=np.float32), target, 20.0)


def batches(workers: int, epoch: int, *, per_epoch: int = 6) -> list[Batch]:
    crops = CropDataset(Reader(), seed=3, fold=1, diam_mean=30.0, size=64, scale_range=0.5)
    sampler = EpochSampler(6, per_epoch, 4, seed=3, fold=1)
    sampler.epoch = epoch
    return [Batch(*batch) for batch in make_loader(crops, sampler, workers=workers)]


def test_shapes_and_an_empty_second_channel() -> None:
    first, last = batches(0, 0)
    assert first.image.shape == (4, 2, 64, 64)
    assert first.unit_flow.shape == (4, 2, 64, 64)
    assert first.foreground.shape == (4, 64, 64)
    assert len(last.image) == 2
    assert first.image[:, 1].eq(0).all()
    assert first.image[:, 0].ne(0).any()


def test_same_crops_whatever_the_number_of_workers_and_the_global_generator() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    alone = batches(0, 5)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    for ours, theirs in zip(alone, batches(2, 5), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_epochs_differ() -> None:
    assert not torch.equal(batches(0, 0)[0].image, batches(0, 1)[0].image)


def test_the_loader_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    batches(0, 0)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("images", "per_epoch"), [(5, 5), (5, 12), (5, 2)])
def test_sampler(images: int, per_epoch: int) -> None:
    sampler = EpochSampler(images, per_epoch, 4, seed=0, fold=0)
    slots = [slot for batch in sampler for slot in batch]
    assert len(slots) == per_epoch
    assert [slot.place for slot in slots] == list(range(per_epoch))
    assert len(list(sampler)) == len(sampler)
    if images == per_epoch:
        assert sorted(slot.image for slot in slots) == list(range(images))

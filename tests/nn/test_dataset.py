from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from cellflow import labels_to_flows
from cellflow.nn.augment import draw_warp, warp_sample
from cellflow.nn.dataset import Batch, CropDataset, EpochSampler, Sample, Slot, make_loader
from cellflow.rng import generator


@dataclass(frozen=True)
class Reader:
    """Samples made from their index; picklable, as workers need it."""

    def __call__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        target = np.zeros((3, 70, 60), np.float32)
        target[0, 20:40, 20:40] = 1
        target[1:, 20:40, 20:40] = 0.7
        return Sample(rng.random((1, 70, 60), dtype=np.float32), target, 20.0)


def crops_of(**options: Any) -> CropDataset:
    return CropDataset(
        Reader(), seed=3, fold=1, diam_mean=30.0, size=64, scale_range=0.5, **options
    )


def batches(workers: int, epoch: int, *, per_epoch: int = 6, **options: Any) -> list[Batch]:
    sampler = EpochSampler(6, per_epoch, 4, seed=3, fold=1)
    sampler.epoch = epoch
    return [Batch(*batch) for batch in make_loader(crops_of(**options), sampler, workers=workers)]


def test_shapes_and_an_empty_second_channel() -> None:
    first, last = batches(0, 0)
    assert first.image.shape == (4, 2, 64, 64)
    assert first.unit_flow.shape == (4, 2, 64, 64)
    assert first.foreground.shape == (4, 64, 64)
    assert len(last.image) == 2
    assert first.image[:, 1].eq(0).all()
    assert first.image[:, 0].ne(0).any()


ALL_OPTIONS = {"diameter": 25.0, "intensity": 1.0, "targets": "recompute"}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, ALL_OPTIONS], ids=["default", "all options"])
def test_same_crops_whatever_the_number_of_workers_and_the_global_generator(
    options: dict[str, Any],
) -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    alone = batches(0, 5, **options)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    for ours, theirs in zip(alone, batches(2, 5, **options), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("place", range(4))
def test_crops_without_options_are_the_recipe_of_cellpose(place: int) -> None:
    sample = Reader()(2)
    rng = generator(3, "crop", 1, 7, place)
    warp = draw_warp(rng, (70, 60), rescale=30.0 / sample.diameter, scale_range=0.5, size=64)
    expected = warp_sample(sample.image, sample.target, warp, size=64)
    batch = crops_of()[Slot(7, place, 2)]
    np.testing.assert_array_equal(batch.image[0], expected.image[0])
    np.testing.assert_array_equal(batch.unit_flow, expected.unit_flow)
    np.testing.assert_array_equal(batch.foreground, expected.foreground)


@dataclass(frozen=True)
class Discs:
    """One disc in the middle of an image, larger from index to index: diameter 20, 40."""

    def __call__(self, index: int) -> Sample:
        diameter = 20.0 * (index + 1)
        yy, xx = np.mgrid[:96, :96]
        labels = ((yy - 48) ** 2 + (xx - 48) ** 2 < diameter**2 / 4).astype(np.int32)
        target = np.concatenate([labels[None].astype(np.float32), labels_to_flows(labels)])
        return Sample(labels[None].astype(np.float32), target, diameter)


@pytest.mark.parametrize("targets", ["warp", "recompute"])
@pytest.mark.parametrize(
    ("diameter", "expected"), [(None, (30, 30)), (20.0, (30, 60)), (40.0, (15, 30))]
)
def test_diameter_sets_the_scale_of_every_crop(
    targets: str, diameter: float | None, expected: tuple[int, int]
) -> None:
    crops = CropDataset(
        Discs(), 0, 0, diam_mean=30.0, size=96, scale_range=0.0, diameter=diameter, targets=targets
    )
    for image, pixels in enumerate(expected):
        area = float(crops[Slot(0, 0, image)].foreground.sum())
        assert 2 * np.sqrt(area / np.pi) == pytest.approx(pixels, rel=0.03)


def test_intensity_changes_the_image_alone() -> None:
    for place in range(6):
        plain = crops_of()[Slot(0, place, 1)]
        changed = crops_of(intensity=1.0)[Slot(0, place, 1)]
        weaker = crops_of(intensity=0.1)[Slot(0, place, 1)]
        assert torch.equal(plain.unit_flow, changed.unit_flow)
        assert torch.equal(plain.foreground, changed.foreground)
        assert changed.image[1].eq(0).all()
        assert changed.image.isfinite().all()
        distance = (changed.image - plain.image).norm()
        assert 0 < (weaker.image - plain.image).norm() < distance
        assert torch.equal(changed.image, crops_of(intensity=1.0)[Slot(0, place, 1)].image)


def test_intensity_leaves_the_padding_black() -> None:
    crops = CropDataset(Discs(), 0, 0, 10.0, 96, 0.0, diameter=40.0, intensity=1.0)
    image = crops[Slot(0, 0, 0)].image[0]  # the image fills 24 x 24 pixels in the middle
    assert image.count_nonzero() <= 27**2
    assert image[30:-30, 30:-30].any()


def test_targets_recompute_changes_the_flow_alone() -> None:
    for place in range(4):
        plain, changed = (
            crops_of()[Slot(0, place, 1)],
            crops_of(targets="recompute")[Slot(0, place, 1)],
        )
        assert torch.equal(plain.image, changed.image)
        assert plain.foreground.ne(changed.foreground).float().mean() < 0.002
        length = changed.unit_flow.norm(dim=0)[changed.foreground > 0]
        assert length.isclose(torch.tensor(1.0)).float().mean() > 0.99


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


def test_ignored_pixels_and_probabilities_are_warped_as_the_image_is() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((1, 70, 60), dtype=np.float32)
    target = np.zeros((3, 70, 60), np.float32)
    target[0] = cv2.GaussianBlur(rng.random((70, 60), dtype=np.float32), (0, 0), 3)
    target[1] = 0.6
    ignored = np.zeros((70, 60), np.bool_)
    ignored[10:30, 15:50] = True
    soft = Sample(image, target, 20.0, ignored, is_soft=True)
    for options in ({}, {"targets": "recompute"}):  # there are no labels to compute flows of
        crops = replace(crops_of(**options), reader=lambda index: soft)
        found = Batch(*crops[Slot(0, 0, 0)])
        warp = draw_warp(
            generator(3, "crop", 1, 0, 0), (70, 60), rescale=30 / 20, scale_range=0.5, size=64
        )
        same = warp_sample(np.stack([target[0], ignored.astype(np.float32)]), target, warp, size=64)
        np.testing.assert_array_equal(found.foreground.numpy(), same.image[0])
        inside = (same.image[1] > 0.99) | (same.image[1] < 0.01)
        assert inside.mean() > 0.8
        np.testing.assert_array_equal(~found.counts.numpy()[inside], same.image[1][inside] > 0.5)
        np.testing.assert_array_equal(found.unit_flow.numpy(), same.unit_flow)
    assert not np.isin(found.foreground.numpy(), (0, 1)).all()
    hard = crops_of()[Slot(0, 0, 0)]
    assert hard.counts.all()

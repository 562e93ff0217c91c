"""Training crops: which image, which transformation, in which order, from the seed alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from cellflow.nn.augment import (
    Crop,
    Warp,
    draw_warp,
    inside_image,
    jitter_intensity,
    recompute_sample,
    warp_labels,
    warp_sample,
)
from cellflow.numeric._jit import set_threads
from cellflow.rng import generator

__all__ = [
    "Batch",
    "CropDataset",
    "CropFacts",
    "EpochSampler",
    "Sample",
    "SampleReader",
    "Slot",
    "make_loader",
]


class Sample(NamedTuple):
    """A training image with its targets.

    `image` is ``(1 or 2, H, W)`` float32, normalised; `target` is ``(3, H, W)`` float32: labels, dY, dX
    of the unit flow; `diameter` is the image's median cell diameter in pixels. Pixels of `ignored`, ``(H, W)``, do
    not count. Of what a network has put out (`is_soft`) the target is the probability of a cell in place of labels,
    and the flow everywhere.
    """

    image: NDArray[np.float32]
    target: NDArray[np.float32]
    diameter: float
    ignored: NDArray[np.bool_] | None = None
    is_soft: bool = False


SampleReader = Callable[[int], Sample]
"""Gives the sample of an index; must be picklable when workers are used."""


class Slot(NamedTuple):
    """One place in one epoch, and the image that fills it."""

    epoch: int
    place: int
    image: int


class Batch(NamedTuple):
    """Tensors of a step: images ``(N, 2, S, S)``, unit flows ``(N, 2, S, S)``, foregrounds ``(N, S, S)``.

    Where `counts`, ``(N, S, S)`` bool, is false, a pixel is not looked at.
    """

    image: torch.Tensor
    unit_flow: torch.Tensor
    foreground: torch.Tensor
    counts: torch.Tensor


class CropFacts(NamedTuple):
    """What a crop shows: pixels of the crop per pixel of the image, and cells, also those that are cut."""

    scale: float
    cells: int


@dataclass(frozen=True)
class CropDataset(Dataset[Batch]):
    """Augmented crops. A crop depends on the seed and its slot only, not on which process makes it.

    Attributes
    ----------
    reader : callable
        Gives the sample of an image index.
    seed, fold : int
        With epoch and place, the key of a crop's randomness.
    diam_mean : float
        Diameter in pixels that cells are rescaled to.
    size : int
        Side of a crop in pixels.
    scale_range : float
        Range of the random scale.
    channels : int
        Channels of the network; missing ones are 0.
    diameter : float, optional
        Cell diameter in pixels that is rescaled to `diam_mean`. Without it each image's own median, as
        Cellpose trains; with the mean of the data set crops come at the scale of Cellpose's inference.
    intensity : float
        Strength of the random changes of brightness, see `jitter_intensity`; 0 is none, as in Cellpose.
    targets : str
        "warp" interpolates the flows of the sample, as Cellpose does; "recompute" computes the flows of
        the warped labels.
    """

    reader: SampleReader
    seed: int
    fold: int
    diam_mean: float
    size: int
    scale_range: float
    channels: int = 2
    diameter: float | None = None
    intensity: float = 0.0
    targets: Literal["warp", "recompute"] = "warp"

    def __getitem__(self, slot: Slot) -> Batch:
        sample = self.reader(slot.image)
        shape = sample.image.shape[1], sample.image.shape[2]
        warp = self._draw(sample, slot)
        crop = self._warp(sample, warp)
        pixels = crop.image
        if self.intensity > 0:
            rng = generator(self.seed, "intensity", self.fold, slot.epoch, slot.place)
            inside = inside_image(shape, warp, size=self.size)
            pixels = jitter_intensity(pixels, rng, strength=self.intensity, inside=inside)
        image = np.zeros((self.channels, self.size, self.size), dtype=np.float32)
        image[: len(pixels)] = pixels
        counts = np.ones((self.size, self.size), dtype=np.bool_)
        if sample.ignored is not None:
            ignored = sample.ignored.astype(np.float32)
            counts = warp_labels(ignored, warp, size=self.size) == 0
        planes = image, crop.unit_flow, crop.foreground, counts
        return Batch(*(torch.from_numpy(plane) for plane in planes))

    def facts(self, slot: Slot) -> CropFacts:
        """What a crop shows."""
        sample = self.reader(slot.image)
        warp = self._draw(sample, slot)
        labels = np.unique(warp_labels(sample.target[0], warp, size=self.size))
        cells = 0 if sample.is_soft else int(np.count_nonzero(labels))
        return CropFacts(warp.scale, cells)

    def _draw(self, sample: Sample, slot: Slot) -> Warp:
        return draw_warp(
            generator(self.seed, "crop", self.fold, slot.epoch, slot.place),
            (sample.image.shape[1], sample.image.shape[2]),
            rescale=self.diam_mean / (sample.diameter if self.diameter is None else self.diameter),
            scale_range=self.scale_range,
            size=self.size,
        )

    def _warp(self, sample: Sample, warp: Warp) -> Crop:
        if self.targets == "warp" or sample.is_soft:
            return warp_sample(
                sample.image, sample.target, warp, size=self.size, soft=sample.is_soft
            )
        labels, diameter = sample.target[0], sample.diameter
        return recompute_sample(sample.image, labels, warp, diameter=diameter, size=self.size)


class EpochSampler(Sampler[list[Slot]]):
    """Batches of slots of one epoch: every image once, or a random draw.

    Parameters
    ----------
    images : int
        Number of training images.
    per_epoch : int
        Crops per epoch.
    batch_size : int
        Crops per step; the last step of an epoch may have fewer.
    seed, fold : int
        With the epoch, the key of the order.
    weights : sequence of float or None
        Relative frequency of every image. None takes every image once where the numbers agree, and
        draws them evenly where they do not.
    rank, world : int
        Process, and number of processes; each takes its part of every batch.

    Attributes
    ----------
    epoch, start : int
        The epoch to give out, and the batch to start with. Set before iterating.
    """

    def __init__(
        self,
        images: int,
        per_epoch: int,
        batch_size: int,
        *,
        seed: int,
        fold: int,
        weights: Sequence[float] | None = None,
        rank: int = 0,
        world: int = 1,
    ):
        self.images, self.per_epoch, self.batch_size = images, per_epoch, batch_size
        self.seed, self.fold, self.epoch, self.start = seed, fold, 0, 0
        self.weights, self.rank, self.world = weights, rank, world

    def __len__(self) -> int:
        return -(-self.per_epoch // self.batch_size)

    def __iter__(self) -> Iterator[list[Slot]]:
        slots = [Slot(self.epoch, place, image) for place, image in enumerate(self._order())]
        for start in range(self.start * self.batch_size, self.per_epoch, self.batch_size):
            batch = slots[start : start + self.batch_size]
            share = np.array_split(np.arange(len(batch)), self.world)[self.rank]
            # A process without a crop takes the first one as a stand-in, which counts nothing.
            yield [batch[place] for place in share] or batch[:1]

    def size(self, place: int) -> int:
        """Crops in the batch at a place of the epoch, over all processes."""
        return min(self.batch_size, self.per_epoch - place * self.batch_size)

    def share(self, place: int) -> float:
        """Part of that batch that this process has; 0 when it has a stand-in."""
        size = self.size(place)
        return len(np.array_split(np.arange(size), self.world)[self.rank]) / size

    def _order(self) -> list[int]:
        rng = generator(self.seed, "order", self.fold, self.epoch)
        if self.weights is not None:
            share = np.asarray(self.weights) / np.sum(self.weights)
            order = rng.choice(self.images, size=self.per_epoch, p=share)
        elif self.per_epoch == self.images:
            order = rng.permutation(self.images)
        else:
            order = rng.choice(self.images, size=self.per_epoch)
        return [int(image) for image in order]


def make_loader(dataset: CropDataset, sampler: EpochSampler, *, workers: int) -> DataLoader[Batch]:
    """Loader over the sampler's epoch, in this process or in spawned workers.

    Workers are spawned, because a process forked after numba's threads have run may be killed. The
    loader has a generator of its own, so that it never draws from torch's global one.
    """
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        persistent_workers=workers > 0,
        generator=torch.Generator(),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=partial(_start_worker, os.getpid()),
    )


def _start_worker(trainer: int, worker: int) -> None:
    """One thread each, since there are several; and signals are left to the trainer.

    Ctrl-C and SIGTERM reach every process of a group, but workers must live until the state is saved.
    torch ends a worker whose trainer is killed, unless that was while the worker started.
    """
    if os.getppid() != trainer:
        os._exit(1)
    set_threads(1)
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

"""Evaluation of a network that is being trained, on the images its fold validates on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from cellflow.config import TrainConfig, chosen
from cellflow.config.shared import Policy
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.segmentation.member import Member
from cellflow.engine.segmentation.scoring import Seen, score_images
from cellflow.engine.segmentation.segmenter import Ready, Segmenter
from cellflow.engine.segmentation.styles import fit_style_models
from cellflow.engine.training.sample_cache import CachedSamples
from cellflow.errors import NotFiniteError
from cellflow.io.dataset import Dataset
from cellflow.nn.dataset import Batch, CropDataset, Slot
from cellflow.nn.loss import segmentation_loss
from cellflow.nn.precision import autocast
from cellflow.nn.step import to_device

__all__ = ["Validator"]

STYLED = 64
"""Training images, at most, whose styles tell the diameters at an evaluation."""
KEPT_TRUTHS = 1000
"""Images whose cells are kept as runs, some 50 kB each, from one evaluation to the next."""
VALIDATION_EPOCH = -1
"""Epoch in the key of the validation crops' randomness: the same crops at every evaluation."""


class Validator:
    """Score and loss on validation images.

    Parameters
    ----------
    config : TrainConfig
        Thresholds, batch size.
    dataset : Dataset
        Images and their cells.
    training : CachedSamples
        The images that train, for estimates of the diameter.
    samples : CachedSamples
        The images that validate.
    crops : CropDataset
        Crops of these images, for the loss.
    machine : Machine
        Where and how to compute.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        *,
        training: CachedSamples,
        samples: CachedSamples,
        crops: CropDataset,
        machine: Machine,
    ):
        self.config, self.dataset, self.machine = config, dataset, machine
        self.ids, self.crops = samples.ids, crops
        # of the images, from one evaluation to the next
        self._ready: dict[str, Ready] = {}
        self._truth = lru_cache(KEPT_TRUTHS)(dataset.instances)
        # images without cells say nothing of the diameter, and by themselves give no estimate at all
        cells = dataset.images["n_instances"]
        with_cells = [name for name in training.ids if cells[name]]
        step = max(1, -(-len(with_cells) // STYLED))
        self.styled = with_cells[::step] if config.eval_diameter == "image" else []

    @property
    def share(self) -> Sequence[str]:
        """Ids of the images that this process segments."""
        return self.ids[self.machine.ranks.rank :: self.machine.ranks.world]

    def score(
        self,
        member: Member,
        check: Callable[[], None],
        watching: Sequence[Seen] = (),
    ) -> list[dict[str, Any]]:
        """A row of scores per image, segmented as prediction would. Processes share the images.

        Parameters
        ----------
        member : Member
            The network, in evaluation mode.
        check : callable
            Called before every image; may raise to end the evaluation.
        watching : sequence of callable
            Each gets id, label map and scores of every image of this process's share.
        """
        segmenter = self._segmenter(member, self.styled, check)
        if self.machine.ranks.world > 1:
            rows = self._scored_by_all(segmenter, watching)
            place = {name: number for number, name in enumerate(self.ids)}
            return sorted(rows, key=lambda row: place[row["id"]])
        return score_images(
            segmenter,
            self.dataset,
            self.share,
            check=check,
            watching=watching,
            ready=self._ready,
            truth=self._truth,
            metric=self.config.select_metric,
        )

    def _scored_by_all(
        self, segmenter: Segmenter, watching: Sequence[Seen]
    ) -> list[dict[str, Any]]:
        """Rows of all processes; an output that is not a number in one of them fails in all."""
        ranks, rows, failure = self.machine.ranks, list[dict[str, Any]](), None
        try:
            metric = self.config.select_metric
            rows = score_images(
                segmenter,
                self.dataset,
                self.share,
                watching=watching,
                ready=self._ready,
                truth=self._truth,
                metric=metric,
            )
        except NotFiniteError as error:
            failure = error
        if ranks.sums([float(failure is not None)])[0]:
            raise failure or NotFiniteError("The network's output is not a number.")
        return ranks.gather(rows)

    def estimate(self, member: Member) -> float:
        """Seconds that an evaluation will take, from one image, after what only the first one takes."""
        member.runner.prepare()
        score_images(self._segmenter(member, self.styled[:1]), self.dataset, self.ids[:1])
        started = time.monotonic()
        segmenter = self._segmenter(member, self.styled[:1])
        styled = (time.monotonic() - started) * len(self.styled)
        started = time.monotonic()
        score_images(segmenter, self.dataset, self.ids[:1])
        scored = (time.monotonic() - started) * len(self.ids)
        return styled + scored / self.machine.ranks.world

    def _segmenter(
        self, member: Member, styled: Sequence[str], check: Callable[[], None] | None = None
    ) -> Segmenter:
        """The network with the diameters that were asked for."""
        size = chosen(self.config.optim.batch_size)
        if styled:
            models = fit_style_models(member, self.dataset, styled, batch_size=size, check=check)
            member = replace(member, styles=models)
        policy: Policy = chosen(self.config.eval_diameter)
        return Segmenter([member], self.config.mask, batch_size=size, policy=policy)

    def loss(self, net: nn.Module) -> float:
        """Loss on one fixed crop of every image."""
        size, count = chosen(self.config.optim.batch_size), len(self.ids)
        total = 0.0
        for start in range(0, count, size):
            places = range(start, min(start + size, count))
            items = [self.crops[Slot(VALIDATION_EPOCH, place, place)] for place in places]
            batch = Batch(*map(torch.stack, zip(*items, strict=True)))
            image, *targets = to_device(batch, self.machine.device)
            with torch.inference_mode(), autocast(self.machine.device, self.machine.amp):
                output = net(image)[0]
            total += segmentation_loss(output, *targets).total.item() * len(items)
        return total / count

"""One training step: forward, backward, optimizer, moving average."""

from __future__ import annotations

import logging
import math
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cellflow.nn.dataset import Batch
from cellflow.nn.loss import segmentation_loss
from cellflow.nn.networks import Network
from cellflow.nn.precision import autocast, choose_layout
from cellflow.nn.ranks import ALONE, Ranks

__all__ = ["StepResult", "Stepper", "to_device"]

_log = logging.getLogger(__name__)


class StepResult(NamedTuple):
    """What a step came to.

    `loss` and its `terms` by name are means over the step's crops, `grad_norm` is the L2 norm of the
    gradient before clipping. `taken` is false when the loss or the gradient was not finite; the network
    is then as it was before.
    """

    loss: float
    terms: dict[str, float]
    grad_norm: float
    taken: bool


class Stepper:
    """A network with all that changes when it takes a training step.

    Parameters
    ----------
    net : Network
        On its device.
    optimizer : torch.optim.Optimizer
        From `make_optimizer`.
    amp : torch.dtype or None
        Type for mixed precision. float16 brings a gradient scaler.
    clip_grad : float
        Longer gradients are shortened to this L2 norm; 0 leaves all as they are.
    ema : float
        Decay of the moving average of the weights; 0 for none.
    ranks : Ranks
        Processes that train together.

    Attributes
    ----------
    pieces : int
        Parts that a batch is cut into, one after the other through the network, their gradients
        accumulated. 1 until a GPU has run out of memory.
    average : Network or None
        Network with the moving average of weights and batch-norm statistics.
    """

    def __init__(
        self,
        net: Network,
        optimizer: torch.optim.Optimizer,
        *,
        amp: torch.dtype | None = None,
        clip_grad: float = 0.0,
        ema: float = 0.0,
        ranks: Ranks = ALONE,
    ):
        self.net, self.optimizer, self.amp, self.ranks = net, optimizer, amp, ranks
        self.device = next(net.parameters()).device
        self.parameters = [item for group in optimizer.param_groups for item in group["params"]]
        self.model = ranks.wrap(net)
        scaled = self.device.type == "cuda" and amp == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.max_norm = clip_grad or math.inf
        self.pieces = 1
        self._averaged = _averaged(net, ema) if ema else None
        self._buffers = list(net.buffers())
        self._kept = [buffer.clone() for buffer in self._buffers]

    @property
    def networks(self) -> dict[str, Network]:
        """What may be the best model: the weights ("net") and, if there is one, their average ("ema")."""
        return {"net": self.net} | ({"ema": self.average} if self.average is not None else {})

    @property
    def average(self) -> Network | None:
        """The network with averaged weights, if there is one."""
        return None if self._averaged is None else cast("Network", self._averaged.module)

    def step(self, batch: Batch, rate: float, *, share: float = 1.0) -> StepResult:
        """Train on one batch.

        Parameters
        ----------
        batch : Batch
            Crops of this process.
        rate : float
            Learning rate.
        share : float
            Part of the step's crops that this process has. 0 for a stand-in, whose crops count nothing.
        """
        self.net.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)
        names, losses = self._gradient(to_device(batch, self.device), share)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        # One copy from the device for all numbers: each would wait for the GPU.
        *parts, grad_norm = torch.cat([losses, norm.reshape(1)]).tolist()
        loss, *terms = self.ranks.sums(parts)
        taken = math.isfinite(loss) and math.isfinite(grad_norm)
        if taken or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # itself skips a gradient that overflowed in float16
            self.scaler.update()
        if taken and self._averaged is not None:
            self._averaged.update_parameters(self.net)
        if not taken:
            self._restore_buffers()
        return StepResult(loss, dict(zip(names, terms, strict=True)), grad_norm, taken)

    def state_dict(self) -> dict[str, Any]:
        """All that a later step depends on."""
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self._averaged.state_dict() if self._averaged is not None else {},
            "pieces": self.pieces,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of `state_dict`."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty unless it was trained in float16
            self.scaler.load_state_dict(state["scaler"])
        if self._averaged is not None:
            self._averaged.load_state_dict(state["average"])
        self.pieces = int(state["pieces"])

    def _gradient(self, batch: Batch, share: float) -> tuple[list[str], torch.Tensor]:
        """Compute the gradient of a batch.

        Returns the names of the loss's terms, and this process's part of the loss and of each term.
        """
        while True:
            try:
                return self._accumulate(batch, share)
            except torch.OutOfMemoryError:
                if self.ranks.world > 1 or self.pieces >= len(batch.image):
                    raise
            # Outside of the except clause, whose traceback would keep the tensors alive.
            self._halve(len(batch.image))

    def _accumulate(self, batch: Batch, share: float) -> tuple[list[str], torch.Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        count = len(batch.image)
        names, sums = list[str](), torch.zeros(1, device=self.device)
        parts = zip(*(tensor.tensor_split(self.pieces) for tensor in batch), strict=True)
        for image, *targets in parts:
            if not len(image):
                continue
            with autocast(self.device, self.amp):
                output = self.model(image)[0]
            loss = segmentation_loss(output, *targets)
            weight = share * len(image) / count
            # Processes average their gradients; the mean over crops is wanted.
            scaled = self.scaler.scale(loss.total * (weight * self.ranks.world))
            torch.autograd.backward(scaled)
            names = list(loss.terms)
            sums = sums + weight * torch.stack([loss.total, *loss.terms.values()]).detach()
        return names, sums

    def _halve(self, count: int) -> None:
        self._restore_buffers()
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        self.pieces *= 2
        _log.warning(
            "the GPU ran out of memory: from here on a batch of %d crops goes through the network in %d parts. "
            "Gradients are accumulated, so the effective batch stays; batch-norm statistics are now those "
            "of the parts. A smaller --bsize or --batch_size avoids it.",
            count, self.pieces,
        )  # fmt: skip

    def _restore_buffers(self) -> None:
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._kept)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A batch on a device, images in the layout that is fastest there."""
    image = batch.image.to(device, non_blocking=True, memory_format=choose_layout(device))
    return Batch(image, *(target.to(device, non_blocking=True) for target in batch[1:]))


def _averaged(net: nn.Module, decay: float) -> AveragedModel:
    """Moving average that forgets its start: the decay rises to its value over the first steps."""

    @torch.no_grad()
    def update(averaged: Any, current: Any, count: torch.Tensor | int) -> None:
        steps = int(count)
        weight = 1 - min(decay, (1 + steps) / (10 + steps))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, weight)
        else:
            torch._foreach_copy_(averaged, current)

    return AveragedModel(net, multi_avg_fn=update, use_buffers=True).eval()

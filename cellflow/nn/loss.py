"""Cellpose's training loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from cellflow.numeric.dynamics import FLOW_SCALE

__all__ = ["Loss", "segmentation_loss"]


class Loss(NamedTuple):
    """Terms of the loss; `total` is what is minimised."""

    total: torch.Tensor
    flow: torch.Tensor
    cellprob: torch.Tensor


def segmentation_loss(
    output: torch.Tensor, unit_flow: torch.Tensor, foreground: torch.Tensor
) -> Loss:
    """Half the mean squared flow error plus the cross-entropy of the foreground.

    Parameters
    ----------
    output : (N, 3, H, W) tensor
        Network output: dY, dX (times `FLOW_SCALE`), cellprob logit.
    unit_flow : (N, 2, H, W) tensor
        Target flow, length 1 inside cells.
    foreground : (N, H, W) tensor
        1 inside cells, 0 outside.

    Notes
    -----
    Equals ``cellpose.train._loss_fn_seg``. Computed in float32 whatever the output's type.
    """
    output = output.float()
    flow = functional.mse_loss(output[:, :2], FLOW_SCALE * unit_flow) / 2.0
    cellprob = functional.binary_cross_entropy_with_logits(output[:, 2], foreground)
    return Loss(flow + cellprob, flow, cellprob)

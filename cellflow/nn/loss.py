"""The training loss: Cellpose's, as terms by name. A new term is a line in `loss_terms`, nothing else.

Each term gets its column ``train_NAME_loss`` in ``history.csv``, its line in ``history.png`` and its value in
the trackers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from cellflow.numeric.dynamics import FLOW_SCALE

__all__ = ["Loss", "loss_terms", "segmentation_loss"]


CERTAIN = 30.0
"""Logit whose cross-entropy is 0 for all that float32 can tell: 1e-13."""


class Loss(NamedTuple):
    """What is minimised, and the terms by name that it is the sum of."""

    total: torch.Tensor
    terms: dict[str, torch.Tensor]


def loss_terms(
    output: torch.Tensor, unit_flow: torch.Tensor, foreground: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Half the mean squared flow error, and the cross-entropy of the foreground.

    Parameters
    ----------
    output : (N, 3, H, W) float32 tensor
        Network output: dY, dX (times `FLOW_SCALE`), cellprob logit.
    unit_flow : (N, 2, H, W) tensor
        Target flow, length 1 inside cells.
    foreground : (N, H, W) tensor
        1 inside cells, 0 outside.

    Returns
    -------
    dict of tensor
        Means over the crops, with their weights. The same names for every batch.
    """
    return {
        "flow": functional.mse_loss(output[:, :2], FLOW_SCALE * unit_flow) / 2.0,
        "cellprob": functional.binary_cross_entropy_with_logits(output[:, 2], foreground),
    }


def segmentation_loss(
    output: torch.Tensor,
    unit_flow: torch.Tensor,
    foreground: torch.Tensor,
    counts: torch.Tensor | None = None,
) -> Loss:
    """Sum of `loss_terms`, with the same parameters; in float32 whatever the output's type.

    Where `counts`, ``(N, H, W)`` bool, is false, a pixel has neither a loss nor a gradient, whatever the terms are.

    Notes
    -----
    Equals ``cellpose.train._loss_fn_seg`` where all pixels count.
    """
    output = output.float()
    if counts is not None:
        output, unit_flow, foreground = _without_others(output, unit_flow, foreground, counts)
    terms = loss_terms(output, unit_flow, foreground)
    return Loss(torch.stack(tuple(terms.values())).sum(), terms)


def _without_others(
    output: torch.Tensor, unit_flow: torch.Tensor, foreground: torch.Tensor, counts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Background that is foretold for certain, in place of all pixels that do not count."""
    nothing = output.new_tensor([0.0, 0.0, -CERTAIN])[:, None, None]
    planes = counts[:, None]
    return torch.where(planes, output, nothing), unit_flow * planes, foreground * counts

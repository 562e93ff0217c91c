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
    output: torch.Tensor, unit_flow: torch.Tensor, foreground: torch.Tensor
) -> Loss:
    """Sum of `loss_terms`, with the same parameters; in float32 whatever the output's type.

    Notes
    -----
    Equals ``cellpose.train._loss_fn_seg``.
    """
    terms = loss_terms(output.float(), unit_flow, foreground)
    return Loss(torch.stack(tuple(terms.values())).sum(), terms)

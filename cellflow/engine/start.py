"""The network that a fold's training starts from."""

from __future__ import annotations

from typing import Any

import torch

from cellflow.config import TrainConfig
from cellflow.errors import CheckpointError, LeakError
from cellflow.nn.checkpoint import find_model_file, load_model_file
from cellflow.nn.unet import build_unet, set_diam_labels

__all__ = ["start_network"]

DEFAULT_DIAMETER = 30.0
"""Diameter in pixels that a new network works at, as Cellpose's cyto models do."""


def start_network(config: TrainConfig, diam_labels: float, own: dict[str, Any]) -> torch.nn.Module:
    """The network a fold starts from: new weights, or those of a model file.

    Parameters
    ----------
    config : TrainConfig
        Says which.
    diam_labels : float
        Mean diameter of the training images in pixels, recorded in the network.
    own : dict
        Fold, data hash and folds hash of the fold to train.

    Raises
    ------
    CheckpointError
        If the model file cannot be used, or wants other channels.
    LeakError
        If cellflow trained it on images that this fold validates on.
    """
    model = config.model
    if model.pretrained_model.lower() == "none":
        net = build_unet(diam_mean=model.diam_mean or DEFAULT_DIAMETER, seed=config.seed)
    else:
        path = find_model_file(model.pretrained_model)
        net, facts = load_model_file(path)
        channels = (facts.get("chan", model.chan), facts.get("chan2", model.chan2))
        if channels != (model.chan, model.chan2):
            raise CheckpointError(
                f"{path} was trained with --chan {channels[0]} --chan2 {channels[1]}, found --chan "
                f"{model.chan} --chan2 {model.chan2}."
            )
        same = {key for key, value in own.items() if facts.get(key) == value}
        if "data_hash" in same and not {"fold", "folds_hash"} <= same:
            raise LeakError(
                f"{path} was trained on this dataset with another validation fold ({facts.get('fold')}), "
                f"so it has seen images that fold {own['fold']} validates on. Start from another model."
            )
    set_diam_labels(net, diam_labels)
    return net

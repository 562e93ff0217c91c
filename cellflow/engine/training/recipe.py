"""The settings of a training that were left open, filled by its recipe."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from cellflow.config import TrainConfig, check_config
from cellflow.config.recipes import CELLPOSE, filled
from cellflow.engine.training.trainable import with_channel_numbers
from cellflow.io.dataset import Dataset
from cellflow.nn.ranks import ranks_asked

__all__ = ["auto_recipe", "settled_config"]

_log = logging.getLogger(__name__)

FEW_STEPS = 500
"""A training of fewer steps of `CELLPOSE`'s batch takes twice as many of half of it."""
AVERAGED = 0.2
"""Part of the training's steps over which weights are averaged."""
LONGEST = 0.999
"""Decay of the average in long trainings."""
TRAIN = 0.8
"""Part of the images that train, in one of five folds; of other splits it is near enough."""
FINE = 0.001
"""Learning rate of AdamW for a training that starts from a model: its usual one first unlearns what the model knows."""
SPREAD = 0.4
"""Standard deviation of the log diameter of images from which each is evaluated at its own."""


def settled_config(config: TrainConfig) -> TrainConfig:
    """A config with nothing left open: channels are numbers, and its recipe says what it does not.

    Raises
    ------
    ConfigError
        If a name is not that of one channel, or settings do not go with what the recipe says.
    DataError
        If the recipe looks at the dataset and it cannot be read.
    """
    config = with_channel_numbers(config)
    recipe = CELLPOSE if config.recipe == "cellpose" else auto_recipe(config)
    settled = filled(config, recipe)
    check_config(settled)
    groups = [(config, settled), (config.optim, settled.optim), (config.sampling, settled.sampling)]
    words = [
        f"--{name} {getattr(after, name)}"
        for before, after in groups
        for name in recipe
        if getattr(before, name, 0) is None and getattr(after, name) is not None
    ]
    first = ranks_asked()[1] == 0  # one process speaks for all
    if config.recipe != "cellpose" and words and first:
        _log.info("recipe %s: %s", config.recipe, " ".join(words))
    return settled


def auto_recipe(config: TrainConfig) -> Mapping[str, Any]:
    """What suits a dataset and the length of a training.

    AdamW at a constant rate with averaged weights, and crops at the scale that prediction takes: each image's own
    where diameters differ much from image to image, else the dataset's. From a model it goes on at a fifth of the
    rate. What that gains over Cellpose's recipe is in docs/results.md.

    Parameters
    ----------
    config : TrainConfig
        Says which dataset, how many epochs, and what is chosen already.
    """
    dataset = Dataset.open(config.data)
    # not of the folds: those of a chain are made later, and the same command must go on
    crops = config.sampling.nimg_per_epoch or max(1, round(TRAIN * len(dataset)))
    size = config.optim.batch_size or _batch_size(crops, config.optim.n_epochs)
    steps = config.optim.n_epochs * -(-crops // size)
    diameters = dataset.images["median_diameter"].to_numpy(dtype=float)
    known = diameters[diameters > 0]
    spread = float(np.std(np.log(known))) if len(known) else 0.0
    scale = "image" if spread > SPREAD else "dataset"
    schedule = config.optim.schedule or "constant"
    from_model = config.model.pretrained_model.lower() != "none"
    return {
        "optimizer": "adamw",
        "learning_rate": FINE if from_model and config.optim.optimizer != "sgd" else None,
        "schedule": schedule,
        "warmup": 0.1 if schedule == "constant" else None,
        "ema": round(min(LONGEST, max(0.5, 1 - 1 / (AVERAGED * steps))), 4),
        "batch_size": size,
        "rescale": scale,
        "intensity": 0.0,
        "targets": "warp",
        "eval_diameter": scale,
    }


def _batch_size(crops: int, n_epochs: int) -> int:
    whole = int(CELLPOSE["batch_size"])
    return whole if n_epochs * -(-crops // whole) >= FEW_STEPS else whole // 2

"""The settings of a training that were left open, filled by its recipe."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from cellflow.config import TrainConfig, check_config
from cellflow.config.layers import with_settings
from cellflow.config.recipes import CELLPOSE, filled
from cellflow.engine.runs.identity import is_begun
from cellflow.engine.runs.lengthen import at_length
from cellflow.engine.training.trainable import with_channel_numbers
from cellflow.io.dataset import Dataset
from cellflow.nn.ranks import ranks_asked
from cellflow.storage.plain_values import flatten
from cellflow.storage.run_folder import RunFolder, debug_name, final_name, first_length

__all__ = ["auto_recipe", "settled_config"]

_log = logging.getLogger(__name__)

DECIDED = (*CELLPOSE, "learning_rate", "warmup")
"""Settings that recipes decide."""
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

    A recipe chooses once, for the number of epochs that a run is started for. Where none is named, a run that has
    begun goes on as it was started, whatever its recipe was; a new one takes `auto`, which with SGD is Cellpose's:
    what else it would choose was found with AdamW.

    Raises
    ------
    ConfigError
        If a name is not that of one channel, or settings do not go with what the recipe says.
    DataError
        If the recipe looks at the dataset and it cannot be read.
    RunError
        If the run has begun and its record cannot be read.
    """
    config = with_channel_numbers(config)
    begun = _begun(config)
    if config.recipe is None and begun is not None:
        recipe = _as_begun(config, begun)
    elif config.recipe == "cellpose" or config.optim.optimizer == "sgd":
        recipe = CELLPOSE
    else:
        recipe = _auto_of_start(config, begun)
        _say(config, recipe)
    settled = filled(config, recipe)
    check_config(settled)
    return settled


def _begun(config: TrainConfig) -> RunFolder | None:
    """The run that a config names, or else the one whose folds vouch for it, where that has begun."""
    names = [final_name(config.name), config.name] if config.is_final else [config.name]
    names = [debug_name(name) for name in names] if config.debug else names
    runs = [RunFolder(config.runs_dir / name) for name in names]
    return next((run for run in runs if is_begun(run)), None)


def _as_begun(config: TrainConfig, run: RunFolder) -> Mapping[str, Any]:
    """What a recipe would decide, as it is in a run that has begun."""
    was = dict(flatten(run.read_record()["config"]))
    known = {name.rpartition(".")[2]: value for name, value in was.items()}
    names = [name for name in (*DECIDED, "n_epochs") if name in known]
    there = with_settings(
        TrainConfig(), {name: known[name] for name in names}, str(run.record_path)
    )
    everything = {**vars(there), **vars(there.sampling), **vars(there.optim)}
    kept = {name: everything[name] for name in names}
    return at_length({**CELLPOSE, **kept}, there.optim.n_epochs, config.optim.n_epochs)


def _auto_of_start(config: TrainConfig, run: RunFolder | None) -> Mapping[str, Any]:
    """What `auto` chose when the run was started, for more epochs where it is lengthened."""
    before = run and first_length(run.read_record())
    if not before:
        return auto_recipe(config)
    started = replace(config, optim=replace(config.optim, n_epochs=before))
    return at_length(auto_recipe(started), before, config.optim.n_epochs)


def _say(config: TrainConfig, recipe: Mapping[str, Any]) -> None:
    """Log what a recipe fills in; one process speaks for all."""
    settled = filled(config, recipe)
    groups = [(config, settled), (config.optim, settled.optim), (config.sampling, settled.sampling)]
    words = [
        f"--{name} {getattr(after, name)}"
        for before, after in groups
        for name in recipe
        if getattr(before, name, 0) is None and getattr(after, name) is not None
    ]
    if words and ranks_asked()[1] == 0:
        _log.info("recipe auto: %s", " ".join(words))


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
        "learning_rate": FINE if from_model else None,
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

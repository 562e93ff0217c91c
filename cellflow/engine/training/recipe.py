"""The settings of a training that were left open, filled by its recipe."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from cellflow.config import TrainConfig, check_config
from cellflow.config.layers import with_settings
from cellflow.config.recipes import CELLPOSE, filled
from cellflow.engine.runs.identity import is_begun
from cellflow.engine.runs.lengthen import warmup_at
from cellflow.engine.runs.next_command import trained_run
from cellflow.engine.training.trainable import with_channel_numbers
from cellflow.errors import ConfigError
from cellflow.io.dataset import Dataset
from cellflow.nn.ranks import ranks_asked
from cellflow.storage.config_file import read_config_file
from cellflow.storage.plain_values import flatten
from cellflow.storage.records import dict_or_empty
from cellflow.storage.run_folder import RunFolder, first_length, vouching_folder

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


def settled_config(config: TrainConfig, *, say: bool = True) -> TrainConfig:
    """A config with nothing left open: channels are numbers, and its recipe says what it does not.

    A recipe chooses once, for the number of epochs that a run is started for. Where none is named, a run that has
    begun goes on as it was started, whatever its recipe was, and a final network takes what its folds have; any other
    takes `auto`, which with SGD is Cellpose's: what else it would choose was found with AdamW.

    Parameters
    ----------
    config : TrainConfig
        Settings.
    say : bool
        Log what `auto` has filled in.

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
    own = trained_run(config)
    begun = own if is_begun(own) else None
    model = begun or _folds_of(config, own)
    if config.recipe is None and model is not None:
        settled = replace(filled(config, _as_in(model, config)), recipe=_recipe_of(model))
    elif config.recipe == "cellpose" or config.optim.optimizer == "sgd":
        settled = replace(filled(config, CELLPOSE), recipe=config.recipe or "cellpose")
    else:
        settled = replace(filled(config, _auto_of_start(config, begun)), recipe="auto")
        if say:
            _say(config, settled)
    if begun is not None and not config.debug:
        settled = _with_its_warmup(settled, begun)
    check_config(settled)
    return settled


def _folds_of(config: TrainConfig, own: RunFolder) -> RunFolder | None:
    """The run whose folds vouch for a final network, unless its optimizer or schedule is another."""
    folds = vouching_folder(own)
    if not config.is_final or not is_begun(folds):
        return None
    was = dict_or_empty(folds.read_record()["config"].get("optim"))
    given = {"optimizer": config.optim.optimizer, "schedule": config.optim.schedule}
    alike = all(value in (None, was.get(name)) for name, value in given.items())
    return folds if alike else None


def _as_in(run: RunFolder, config: TrainConfig) -> Mapping[str, Any]:
    """What a recipe would decide, as it is in a run; what depends on another optimizer or schedule stays open."""
    was = dict(flatten(run.read_record()["config"]))
    known = {name.rpartition(".")[2]: value for name, value in was.items()}
    names = [name for name in DECIDED if name in known]
    source = str(run.record_path)
    there = with_settings(TrainConfig(), {name: known[name] for name in names}, source)
    everything = {**vars(there), **vars(there.sampling), **vars(there.optim)}
    kept = {**CELLPOSE, **{name: everything[name] for name in names}}
    if config.optim.optimizer not in (None, kept["optimizer"]):
        kept["learning_rate"] = None
    if config.optim.schedule not in (None, kept["schedule"]):
        kept["warmup"] = None
    return kept


def _recipe_of(run: RunFolder) -> Literal["cellpose", "auto"]:
    """The recipe by which a run was started, as far as its settings tell."""
    with suppress(ConfigError):
        if read_config_file(run.settings("train"), "train").get("recipe") == "auto":
            return "auto"
    return "cellpose"


def _auto_of_start(config: TrainConfig, run: RunFolder | None) -> Mapping[str, Any]:
    """What `auto` chose when the run was started, for more epochs where it is lengthened."""
    before = run and not config.debug and first_length(run.read_record())
    if not before:
        return auto_recipe(config)
    started = replace(config, optim=replace(config.optim, n_epochs=before))
    recipe = dict(auto_recipe(started))
    return recipe | {"warmup": warmup_at(recipe["warmup"], before, config.optim.n_epochs)}


def _with_its_warmup(config: TrainConfig, run: RunFolder) -> TrainConfig:
    """A config that gives a run more epochs, with a warm-up of as many as it had: as a share, that is a smaller one."""
    was = dict_or_empty(run.read_record()["config"].get("optim"))
    before, share = was.get("n_epochs"), config.optim.warmup
    if type(before) is not int or share is None or share != was.get("warmup"):
        return config
    optim = replace(config.optim, warmup=warmup_at(share, before, config.optim.n_epochs))
    return replace(config, optim=optim)


def _say(config: TrainConfig, settled: TrainConfig) -> None:
    """Log what `auto` has filled in; one process speaks for all."""
    groups = [(config, settled), (config.optim, settled.optim), (config.sampling, settled.sampling)]
    words = [
        f"--{name} {getattr(after, name)}"
        for before, after in groups
        for name in DECIDED
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
    return {
        "optimizer": "adamw",
        "learning_rate": FINE if config.model.is_pretrained else None,
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

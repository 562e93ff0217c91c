"""The network that a fold's training starts from, and its optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cellflow.config import TrainConfig, chosen
from cellflow.engine.runs.contents import is_final_model
from cellflow.engine.runs.start_file import start_file
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.training.sample_cache import CachedSamples
from cellflow.errors import CheckpointError, ConfigError, LeakError
from cellflow.nn.checkpoint import load_model_file
from cellflow.nn.networks import DEFAULT, Network
from cellflow.nn.optim import make_optimizer
from cellflow.nn.precision import choose_layout, set_layout
from cellflow.nn.step import Stepper

__all__ = ["check_crop_side", "start_model", "start_stepper"]

DEFAULT_DIAMETER = 30.0
"""Diameter in pixels that a new network works at, as Cellpose's cyto models do."""


def start_model(config: TrainConfig, fold: int) -> tuple[Path, Network, dict[str, Any]]:
    """The model file that the training of a fold starts from, its network, and the facts in it.

    Raises
    ------
    CheckpointError
        If the file cannot be used, or wants other channels.
    """
    model = config.model
    path = start_file(model.pretrained_model, fold, download=config.download)
    net, facts = load_model_file(path)
    chan, chan2 = model.channels
    channels = (facts.get("chan", chan), facts.get("chan2", chan2))
    if channels != (chan, chan2):
        raise CheckpointError(
            f"{path} was trained with --chan {channels[0]} --chan2 {channels[1]}, found --chan "
            f"{chan} --chan2 {chan2}."
        )
    return path, net, facts


def check_crop_side(config: TrainConfig, fold: int) -> None:
    """Check that the network which a fold starts from can be trained on crops of ``--bsize``.

    Raises
    ------
    ConfigError
        If it cannot, naming the sides next to it that fit.
    CheckpointError
        If the model file to start from cannot be used.
    """
    net = start_model(config, fold)[1] if config.model.is_pretrained else DEFAULT
    side, step = config.sampling.bsize, net.crop_multiple
    if side % step:
        below = side - side % step
        raise ConfigError(
            f"--bsize {side}: the network {net.title} takes crops whose side is a multiple of {step}, such as "
            f"{f'{below} or ' if below else ''}{below + step}.",
            expected=step,
            found=side,
        )


def _start_network(
    config: TrainConfig, diam_labels: float, origin: dict[str, Any], machine: Machine
) -> Network:
    """The network a fold starts from, where it is trained: new weights, or those of a model file.

    Its training images' mean diameter in pixels, `diam_labels`, is kept in it. On several GPUs batch norm
    takes its statistics over all of them.
    """
    model = config.model
    if not model.is_pretrained:
        net = DEFAULT.build(diam_mean=model.diam_mean or DEFAULT_DIAMETER, seed=config.seed)
    else:
        path, net, facts = start_model(config, origin["fold"])
        same = {key for key, value in origin.items() if facts.get(key) == value}
        elsewhere = is_final_model(facts) or not {"fold", "folds_hash"} <= same
        if "data_hash" in same and elsewhere and not config.is_final:
            fold = "none" if is_final_model(facts) else facts.get("fold")
            raise LeakError(
                f"{path} was trained on this dataset with another validation fold ({fold}), "
                f"so it has seen images that fold {origin['fold']} validates on. Start from another model."
            )
    if model.channels[1] and net.channels < 2:
        raise ConfigError(f"--chan2 {model.chan2}: the network {net.title} takes one channel.")
    net.set_diam_labels(diam_labels)
    if model.freeze_encoder:
        net.freeze_encoder()
    if machine.ranks.world > 1 and machine.device.type == "cuda":
        net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
    net.to(machine.device)
    set_layout(net, choose_layout(machine.device))
    return net


def start_stepper(
    config: TrainConfig, training: CachedSamples, origin: dict[str, Any], machine: Machine
) -> Stepper:
    """The network a fold starts from, ready to take training steps.

    Parameters
    ----------
    config : TrainConfig
        Settings.
    training : CachedSamples
        Samples that train; their mean diameter is kept in the network.
    origin : dict
        Fold, data hash and folds hash of the fold to train.
    machine : Machine
        Where it is trained.

    Raises
    ------
    CheckpointError
        If the model file cannot be used, or wants other channels.
    LeakError
        If cellflow trained it on images that this fold validates on.
    """
    optim = config.optim
    net = _start_network(config, float(np.mean(training.diameters)), origin, machine)
    optimizer = make_optimizer(
        net, chosen(optim.optimizer), weight_decay=optim.weight_decay, momentum=optim.momentum
    )
    return Stepper(
        net,
        optimizer,
        amp=machine.amp,
        clip_grad=optim.clip_grad,
        ema=chosen(optim.ema),
        ranks=machine.ranks,
    )

"""One network on all images, which the folds of another run vouch for."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from cellflow.config import TrainConfig
from cellflow.engine.runs.run_records import read_fold_summary
from cellflow.engine.runs.sample_list import TRAINS, read_sample_list
from cellflow.engine.runtime.machine import Machine
from cellflow.engine.segmentation.member import load_member
from cellflow.engine.segmentation.styles import (
    fit_style_models,
    read_style_models,
    write_style_models,
)
from cellflow.errors import CheckpointError
from cellflow.io.dataset import Dataset
from cellflow.storage.hashing import hash_file
from cellflow.storage.run_folder import FoldFolder, RunFolder, final_name, vouching_folder

__all__ = ["final_config", "fit_final_styles"]

_log = logging.getLogger(__name__)

EARLY = 0.7
"""Folds whose best epochs lie on average before this part of the training do not vouch for its end."""


def final_config(config: TrainConfig) -> TrainConfig:
    """A final network's config under the name of its own run; what its folds say of its length is warned of."""
    folds = vouching_folder(RunFolder(config.runs_dir / config.name))
    _warn_of_length(folds, config.optim.n_epochs)
    if config.optim.patience:
        _log.warning("--patience has no effect on a final network, of which no score is honest")
    return replace(config, name=final_name(config.name))


def _warn_of_length(run: RunFolder, n_epochs: int) -> None:
    summaries = [read_fold_summary(files) for files in run.fold_folders()]
    best = [item.best_epoch for item in summaries if item.finished and item.best_epoch is not None]
    if best and np.mean(best) < EARLY * n_epochs:
        _log.warning(
            "the folds of run %r were best at epoch %g of %d on average, but a final network is taken as it is after "
            "the last one. Fewer --n_epochs may suit both better, under another --name.",
            run.name, np.mean(best), n_epochs,
        )  # fmt: skip


def fit_final_styles(files: FoldFolder, dataset: Dataset, machine: Machine) -> None:
    """Fit what tells cell types and diameters of new images, unless that was done, as no out-of-fold pass does it.

    Parameters
    ----------
    files : FoldFolder
        With the network, and the list of its images.
    dataset : Dataset
        Images and cells.
    machine : Machine
        Where and how to compute.
    """
    try:
        if read_style_models(files.styles).model_hash == hash_file(files.best):
            return
    except (OSError, CheckpointError):
        pass
    roles = read_sample_list(files.samples)
    names = [str(name) for name in roles.index[roles == TRAINS]]
    models = fit_style_models(load_member(files.best, "final", machine), dataset, names)
    if models is not None:
        write_style_models(files.styles, models)

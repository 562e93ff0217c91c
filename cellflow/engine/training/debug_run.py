"""Debug runs: the whole of a command in a minute, on few images, marked so that nobody takes it for real."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pandas as pd

from cellflow.config import TrainConfig
from cellflow.engine.data.folds import load_folds
from cellflow.io.dataset import Dataset, DatasetWriter
from cellflow.io.fold_table import fold_table_hash, read_fold_facts, write_fold_table
from cellflow.io.source import FileImage
from cellflow.storage.atomic import atomic_folder, write_json
from cellflow.storage.records import read_json
from cellflow.storage.run_folder import RunFolder, debug_name

__all__ = ["debug_config"]

_log = logging.getLogger(__name__)

EACH = 2
"""Images of every cell type in every fold."""
EPOCHS, CROPS, BATCH, SIDE = 2, 4, 2, 96
"""Epochs, crops an epoch, crops a step, and the side of a crop."""
SOURCE = "source.json"
"""File that says what the few images were taken from."""


def debug_config(config: TrainConfig, *, folds: int | None = None) -> TrainConfig:
    """A training's config, tiny and under a name of its own; unchanged where it is so already.

    The images are a copy of a few, in the run's folder, so that everything after the training sees just
    these.

    Parameters
    ----------
    config : TrainConfig
        With `debug`.
    folds : int, optional
        Number of folds that will be made where the dataset has none yet; without it there must be some.

    Raises
    ------
    DataError, FoldError
        If the dataset or its folds cannot be used.
    """
    run = RunFolder(config.runs_dir / debug_name(config.name))
    if config.data.resolve() == run.debug_data.resolve():
        return config
    dataset = Dataset.open(config.data)
    split = load_folds(dataset) if folds is None or dataset.folds_path.exists() else None
    source = {"data": dataset.hash, "folds": fold_table_hash(split) if split is not None else folds}
    if not run.debug_data.exists() or read_json(run.debug_data / SOURCE) != source:
        _cut(dataset, run.debug_data, split, folds or 0)
        write_json(run.debug_data / SOURCE, source)
    _log.info(
        "debug run %s: %d images, %d epochs", run.path, len(Dataset.open(run.debug_data)), EPOCHS
    )
    return dataclasses.replace(
        config,
        name=run.name,
        data=run.debug_data,
        eval_every=EPOCHS,
        savedir=None,
        optim=dataclasses.replace(config.optim, n_epochs=EPOCHS, batch_size=BATCH),
        sampling=dataclasses.replace(
            config.sampling, nimg_per_epoch=CROPS, min_train_masks=0, bsize=SIDE
        ),
        tracking=dataclasses.replace(
            config.tracking, wandb_offline=config.tracking.wandb, slack=False
        ),
    )


def _cut(dataset: Dataset, folder: Path, split: pd.Series[int] | None, folds: int) -> None:
    """Write a dataset of a few images of every fold and cell type, with its part of the fold table."""
    chosen = _choose(dataset.images, split, folds)
    with atomic_folder(folder, replace=True) as temporary:
        writer = DatasetWriter(temporary)
        for name in chosen:
            writer.add(
                _source(dataset, name),
                dataset.image(name),
                dataset.instances(name),
                pixel_hash=str(dataset.images.at[name, "pixel_hash"]),
            )
        writer.finish("debug")
        if split is not None:
            facts = read_fold_facts(dataset.folds_path)
            write_fold_table(temporary / "folds.csv", split[chosen], facts)


def _choose(images: pd.DataFrame, split: pd.Series[int] | None, folds: int) -> list[str]:
    """Ids of images: those with cells first, then by id."""
    table = pd.DataFrame({"few": images["n_instances"] < 5}, index=images.index)
    table["cell_type"] = images.get("cell_type", "")
    table["fold"] = 0 if split is None else split
    count = EACH * folds if split is None else EACH
    ordered = table.sort_values("few", kind="stable")
    return sorted(map(str, ordered.groupby(["fold", "cell_type"]).head(count).index))


def _source(dataset: Dataset, name: str) -> FileImage:
    """An image of a dataset as a reader of sources would hand it on."""
    row = dataset.images.loc[name]
    extra = {
        str(key): str(value) for key, value in row.items() if key not in dataset.computed_columns
    }
    return FileImage(name, dataset.path / "images" / str(row["file"]), extra)

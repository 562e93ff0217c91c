"""Whether folds can be trained, and give an honest score: known of all of them before the first begins."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from cellflow.config import TrainConfig
from cellflow.engine.segmentation.channels import channel_numbers
from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.storage.sizes import few_text, plural

__all__ = [
    "check_trainable",
    "enough_cells",
    "training_ids",
    "validation_ids",
    "with_channel_numbers",
]

_Problem = tuple[str, str]
"""What is wrong, and what to do, which is said once for all that have it in common."""
_FEWER_CELLS = "Lower --min_train_masks, or annotate more images."
_PREPARE = "Prepare the dataset again with `cellflow prepare`."
_OTHER_FOLDS = (
    "Move images with cells to other folds in folds.csv, or make the folds new: `cellflow folds --overwrite` "
    "with another --seed, --k or --group."
)


def with_channel_numbers(config: TrainConfig) -> TrainConfig:
    """A config whose channels are numbers, those of names found in its dataset.

    Raises
    ------
    ConfigError
        If a name is not that of one channel, at the same place in every image.
    """
    model = config.model

    def names() -> dict[str, tuple[str, ...]]:
        dataset = Dataset.open(config.data)
        return {name: dataset.channel_names(name) for name in dataset.ids}

    chan, chan2 = channel_numbers(model.chan, model.chan2, names)
    return replace(config, model=replace(model, chan=chan, chan2=chan2))


def validation_ids(fold: int, folds: pd.Series[int]) -> list[str]:
    """Images that validate in a fold, by id."""
    return [str(name) for name in folds.index if folds[name] == fold]


def training_ids(
    config: TrainConfig, fold: int, dataset: Dataset, folds: pd.Series[int]
) -> list[str]:
    """Images that train where a fold validates, those with too few cells left out."""
    return enough_cells(config, dataset, _others(fold, folds))


def enough_cells(config: TrainConfig, dataset: Dataset, names: list[str]) -> list[str]:
    """Those of some images that have as many cells as one needs to train."""
    cells, least = dataset.images["n_instances"], config.sampling.min_train_masks
    return [name for name in names if cells[name] >= least]


def check_trainable(
    config: TrainConfig, dataset: Dataset, folds: pd.Series[int], wanted: list[int]
) -> None:
    """Check folds before any of them is trained.

    Parameters
    ----------
    config : TrainConfig
        Says which images are left out, and which channels are used.
    dataset : Dataset
        Images and cells.
    folds : pandas.Series
        Fold of every image, by id.
    wanted : list of int
        Folds to train.

    Raises
    ------
    DataError
        Naming every fold without images that train, or without a cell in those that validate, every file
        that is gone, and images without the channels that were asked for.
    """
    problems = _file_problems(dataset) + _channel_problems(config, dataset, folds)
    for fold in wanted:
        problems += _training_problems(config, fold, dataset, folds)
        problems += _validation_problems(fold, dataset, folds)
    if problems:
        remedies = dict.fromkeys(remedy for _, remedy in problems)
        lines = [f"{dataset.path} cannot be trained on:", *(f"  - {text}" for text, _ in problems)]
        raise DataError("\n".join([*lines, *remedies]))


def _others(fold: int, folds: pd.Series[int]) -> list[str]:
    return [str(name) for name in folds.index if folds[name] >= 0 and folds[name] != fold]


def _training_problems(
    config: TrainConfig, fold: int, dataset: Dataset, folds: pd.Series[int]
) -> list[_Problem]:
    """What is wrong with the images that train where a fold validates."""
    cells, others = dataset.images["n_instances"], _others(fold, folds)
    if any(cells[name] for name in training_ids(config, fold, dataset, folds)):
        return []
    most, least = (
        max((int(cells[name]) for name in others), default=0),
        config.sampling.min_train_masks,
    )
    found = f"fold {fold} has no training image with at least {max(1, least)} cells"
    if most:
        return [(f"{found}; the most is {most}", _FEWER_CELLS)]
    return [(f"{found}: the {len(others)} images of the other folds have none", _OTHER_FOLDS)]


def _validation_problems(fold: int, dataset: Dataset, folds: pd.Series[int]) -> list[_Problem]:
    """A fold of empty images gives 1.0 to a network that finds nothing, which is then the best one."""
    names = validation_ids(fold, folds)
    if dataset.images.loc[names, "n_instances"].any():
        return []
    return [
        (
            f"fold {fold} validates on {_images(names)} without a single cell: a network that finds nothing "
            "would have the score 1.0",
            _OTHER_FOLDS,
        )
    ]


def _file_problems(dataset: Dataset) -> list[_Problem]:
    """Images and label maps that are gone."""
    files = {
        "images": [dataset.path / "images" / str(name) for name in dataset.images["file"]],
        "label maps": [dataset.path / "labels" / f"{name}.tif" for name in dataset.ids],
    }
    gone = {
        what: [path.name for path in paths if not path.is_file()] for what, paths in files.items()
    }
    return [
        (f"{what} are missing: {len(names)} ({few_text(names)})", _PREPARE)
        for what, names in gone.items()
        if names
    ]


def _channel_problems(
    config: TrainConfig, dataset: Dataset, folds: pd.Series[int]
) -> list[_Problem]:
    """Channels that images do not have; grey ones are taken as they are, whatever was asked for."""
    channels = dataset.images.loc[folds.index[folds >= 0], "channels"]
    problems = list[_Problem]()
    for flag, value in zip(("--chan", "--chan2"), config.model.channels, strict=True):
        lacking = channels[(channels > 1) & (channels < value)]
        if len(lacking):
            names = [str(name) for name in lacking.index]
            text = f"{flag} {value}: {_images(names)} with {int(lacking.min())} channels"
            problems.append((text, f"Choose {flag} 0 to {int(lacking.min())}."))
    return problems


def _images(names: list[str]) -> str:
    return f"{plural(len(names), 'image')} ({few_text(names)})"

"""Samples, crops and their order, as a training's settings ask for them."""

from __future__ import annotations

import logging
from typing import NamedTuple

import pandas as pd

from cellflow.config import TrainConfig, chosen
from cellflow.engine.training.extra_images import extra_samples, taught_samples
from cellflow.engine.training.sample_cache import CachedSamples, cache_samples
from cellflow.engine.training.trainable import enough_cells, training_ids, validation_ids
from cellflow.errors import DataError
from cellflow.io.dataset import Dataset
from cellflow.nn.dataset import CropDataset, EpochSampler
from cellflow.nn.networks import Network
from cellflow.nn.ranks import Ranks

__all__ = ["FoldSamples", "fold_samples", "make_crops", "make_sampler"]

_log = logging.getLogger(__name__)


class FoldSamples(NamedTuple):
    """Samples of a fold: annotated images that train, those that validate, and images without annotation that train."""

    training: CachedSamples
    validation: CachedSamples
    extra: CachedSamples


def fold_samples(
    config: TrainConfig, fold: int, dataset: Dataset, folds: pd.Series[int]
) -> FoldSamples:
    """Samples of the images of a fold, as `check_trainable` and `check_targets` have found them good.

    Parameters
    ----------
    config : TrainConfig
        Settings.
    fold : int
        Fold that validates.
    dataset : Dataset
        Images and cells.
    folds : pandas.Series
        Fold of every image, by id.
    """
    others = int(((folds >= 0) & (folds != fold)).sum())
    enough = training_ids(config, fold, dataset, folds)
    if len(enough) < others:
        _log.warning(
            "fold %d: %d of %d training images have fewer than %d cells and are left out (--min_train_masks)",
            fold, others - len(enough), others, config.sampling.min_train_masks,
        )  # fmt: skip
    if config.is_final:
        _log.warning("fold %d: its images train too, so no score of this network is honest", fold)
        enough = sorted(enough + enough_cells(config, dataset, validation_ids(fold, folds)))
    chan, chan2 = config.model.channels
    training = cache_samples(dataset, enough, chan=chan, chan2=chan2)
    validation = cache_samples(dataset, validation_ids(fold, folds), chan=chan, chan2=chan2)
    training = taught_samples(config, fold, dataset, training)
    return FoldSamples(training, validation, extra_samples(config, fold, dataset))


def make_crops(
    config: TrainConfig,
    fold: int,
    samples: CachedSamples,
    net: Network,
    *,
    augmented: bool = True,
) -> CropDataset:
    """Crops of samples.

    Parameters
    ----------
    config : TrainConfig
        Settings.
    fold : int
        Key of the crops' randomness.
    samples : CachedSamples
        Images and targets.
    net : Network
        Whose channels and diameters they have.
    augmented : bool
        Whether intensities are changed too; not for the loss on validation images.
    """
    sampling = config.sampling
    diam_mean, diam_labels = net.diameters
    return CropDataset(
        samples,
        seed=config.seed,
        fold=fold,
        diam_mean=diam_mean,
        size=sampling.bsize,
        scale_range=sampling.scale_range,
        channels=net.channels,
        diameter=diam_labels if sampling.rescale == "dataset" else None,
        intensity=chosen(sampling.intensity) if augmented else 0.0,
        targets=chosen(sampling.targets),
    )


def make_sampler(
    config: TrainConfig, fold: int, dataset: Dataset, samples: FoldSamples, ranks: Ranks
) -> EpochSampler:
    """Order of the training images: the annotated ones, then the others, which come on top of an epoch's crops.

    Raises
    ------
    DataError
        If crops are to be balanced over cell types, and the dataset has none.
    """
    ids, extra = samples.training.ids, len(samples.extra)
    weights = _balanced(dataset, ids) if config.sampling.balance else None
    per_epoch = len(ids)
    if extra:
        weights = _with_extra(weights or [1.0] * len(ids), extra, config.pseudo_weight)
        per_epoch += max(1, round(config.pseudo_weight * len(ids)))
    return EpochSampler(
        len(ids) + extra,
        config.sampling.nimg_per_epoch or per_epoch,
        chosen(config.optim.batch_size),
        seed=config.seed,
        fold=fold,
        weights=weights,
        rank=ranks.rank,
        world=ranks.world,
    )


def _with_extra(weights: list[float], extra: int, weight: float) -> list[float]:
    """Weight of every image: the annotated ones together weigh 1, the others together `weight`."""
    total = sum(weights)
    return [each / total for each in weights] + [weight / extra] * extra


def _balanced(dataset: Dataset, ids: tuple[str, ...]) -> list[float]:
    """Weight of every image: all images of a cell type together weigh 1."""
    if "cell_type" not in dataset.images:
        raise DataError(
            f"--balance needs cell types, but {dataset.path / 'images.csv'} has no column cell_type. Leave "
            "it out, or give the types with: cellflow prepare --table"
        )
    types = dataset.images.loc[list(ids), "cell_type"]
    counts = types.value_counts()
    return [1.0 / float(counts[name]) for name in types]

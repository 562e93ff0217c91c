"""How much choosing the best of something flatters the score of what was chosen: an epoch, or members."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.rng import generator

__all__ = ["optimism", "selection_bias"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def selection_bias(
    evaluations: pd.DataFrame,
    groups: Mapping[str, str],
    *,
    chosen_by: str = "score",
    seed: int = 0,
    splits: int = 200,
) -> pd.Series[float]:
    """Optimism of the best epoch of one fold, estimated by choosing on half of the validation groups.

    See `optimism`; of the halves each chooses the evaluation with the highest mean score over its images, as
    training does over all of them, ties going to the earlier.

    Parameters
    ----------
    evaluations : DataFrame
        Columns id, epoch, weights ("net" or "ema") and score: a row per image and evaluation of one
        fold, every image in every evaluation.
    groups : mapping
        From the id of each image to its group.
    chosen_by : str
        Column whose highest mean chooses the evaluation, where that is not the score itself. The optimism is
        that of the score in any case.
    seed : int
        Seed of the splits.
    splits : int
        Number of random splits.

    Returns
    -------
    Series of float
        By id, sorted. 0 where there is only one evaluation, as nothing was chosen; nan where there
        are fewer than two groups, as nothing can be split.

    Raises
    ------
    DataError
        If an image lacks a score, or has two.
    """
    scores = _score_table(evaluations, "score")
    choice = scores if chosen_by == "score" else _score_table(evaluations, chosen_by)
    ids = scores.columns
    if len(scores) == 1:
        bias = np.zeros(len(ids))
    else:
        values, choices = scores.to_numpy(np.float64), choice.to_numpy(np.float64)
        # within a half, the largest sum is the largest mean
        bias = optimism(
            [str(groups[name]) for name in ids],
            lambda rows: values[np.argmax(choices @ rows)],
            seed=seed,
            splits=splits,
        )
    return pd.Series(bias, index=ids, name="selection_bias", dtype="float64")


def optimism(
    groups: Sequence[str],
    scores_chosen_by: Callable[[Bools], Floats],
    *,
    seed: int = 0,
    splits: int = 200,
) -> Floats:
    """By how much a choice flatters the score of each image, estimated by choosing on half of the groups.

    The groups are split at random into halves A and B, and each half chooses. An image of A contributes its score
    at A's choice minus its score at B's choice: what it gains by having had part in the choice. An image of B
    contributes the other way round. The result is the mean over many splits; its mean over images estimates by how
    much the score of what was chosen is too high.

    The choice is made with half of the groups. Fewer images choose worse and flatter more, so the estimate is
    rather too large than too small for a choice made with all of them.

    Parameters
    ----------
    groups : sequence of str
        Group of every image.
    scores_chosen_by : callable
        Makes the choice by some images, ``(N,)`` bool, and gives the score of every image at it, ``(N,)``.
    seed, splits : int
        Of the random halves.

    Returns
    -------
    (N,) float64 ndarray
        nan where there are fewer than two groups, as nothing can be split.
    """
    numbers = np.unique(list(groups), return_inverse=True)[1]
    if len(numbers) == 0 or numbers.max() == 0:
        return np.full(len(numbers), np.nan)
    found = np.zeros(len(numbers))
    for half in _halves(int(numbers.max()) + 1, splits, seed):
        first = half[numbers]
        gain = scores_chosen_by(first) - scores_chosen_by(~first)
        found += np.where(first, gain, -gain)
    return found / splits


def _score_table(evaluations: pd.DataFrame, value: str) -> pd.DataFrame:
    """Scores with a row per evaluation in the order of training, and a column per image."""
    if evaluations.duplicated(["epoch", "weights", "id"]).any():
        twice = evaluations[evaluations.duplicated(["epoch", "weights", "id"])].iloc[0]
        raise DataError(
            f"evaluations: the image {twice['id']} has two scores at epoch {twice['epoch']:g} "
            f"({twice['weights']}). Pass the rows of one fold of one run."
        )
    # Of one epoch, training considers the weights themselves before their moving average.
    rows = evaluations.assign(average=evaluations["weights"] != "net")
    table = rows.pivot(index=["epoch", "average", "weights"], columns="id", values=value)
    table = table.sort_index(axis=0).sort_index(axis=1)
    holes = np.argwhere(~np.isfinite(table.to_numpy(np.float64)))
    if len(holes):
        row, column = holes[0]
        raise DataError(
            f"evaluations: the image {table.columns[column]} has no {value} at epoch "
            f"{table.index[row][0]:g}; every image must have one in every evaluation. Pass the rows of "
            "one fold of one run."
        )
    return table


def _halves(n_groups: int, splits: int, seed: int) -> NDArray[np.bool_]:
    """Which groups are in the first half, ``(splits, n_groups)``; never none and never all."""
    ranks = np.tile(np.arange(n_groups), (splits, 1))
    rng = generator(seed, "selection_bias")
    return np.asarray(rng.permuted(ranks, axis=1) < n_groups // 2, dtype=np.bool_)

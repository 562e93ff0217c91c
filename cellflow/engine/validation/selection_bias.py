"""How much choosing the best epoch flatters the score of the epoch chosen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellflow.errors import DataError
from cellflow.rng import generator

__all__ = ["selection_bias"]


def selection_bias(
    evaluations: pd.DataFrame,
    groups: Mapping[str, str],
    *,
    chosen_by: str = "score",
    seed: int = 0,
    splits: int = 200,
) -> pd.Series[float]:
    """Optimism of the best epoch of one fold, estimated by choosing on half of the validation groups.

    The groups are split at random into halves A and B. Each half chooses the evaluation with the
    highest mean score over its images, as training does over all of them, ties going to the earlier.
    An image of A contributes its score at A's choice minus its score at B's choice: what the
    evaluation gains on images that chose it over one chosen without them. An image of B contributes
    the other way round. The result is the mean over many splits; its mean over images estimates by
    how much the score of the best epoch is too high.

    The choice is made with half of the groups. Fewer images choose worse and flatter more, so the
    estimate is rather too large than too small for the choice that training made with all of them.

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
    numbers = np.unique([str(groups[name]) for name in ids], return_inverse=True)[1]
    if len(scores) == 1:
        bias = np.zeros(len(ids))
    elif numbers.max() == 0:
        bias = np.full(len(ids), np.nan)
    else:
        first = _halves(int(numbers.max()) + 1, splits, seed)[:, numbers]
        bias = _optimism(scores.to_numpy(np.float64), choice.to_numpy(np.float64), first)
    return pd.Series(bias, index=ids, name="selection_bias", dtype="float64")


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


def _optimism(
    scores: NDArray[np.float64], choice: NDArray[np.float64], first: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Mean contribution of each image, ``(N,)``, from scores and what chooses ``(E, N)`` and halves ``(S, N)``."""
    own = np.argmax(first @ choice.T, axis=1)  # within a half, the largest sum is the largest mean
    other = np.argmax(~first @ choice.T, axis=1)
    gain = scores[own] - scores[other]
    return np.asarray(np.where(first, gain, -gain).mean(axis=0), dtype=np.float64)

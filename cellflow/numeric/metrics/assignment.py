"""One-to-one matching of cells, among the pairs that share pixels only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

__all__ = ["best_pairs"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def best_pairs(truth: Ints, prediction: Ints, gain: Floats) -> Ints:
    """Pairs of the one-to-one matching with the largest total gain.

    A pair whose two cells are in no other pair is taken as it is; the rest is solved as a sparse
    assignment (Jonker and Volgenant, "A shortest augmenting path algorithm for dense and sparse linear
    assignment problems", 1987; SciPy's), where a true cell may also stay alone.

    Parameters
    ----------
    truth, prediction : (P,) int64 ndarray
        The cells of each pair, each pair once.
    gain : (P,) float64 ndarray
        What each pair is worth, above 0.

    Returns
    -------
    (k,) int64 ndarray
        Indices of the pairs that are taken, ascending.
    """
    if not len(truth):
        return np.zeros(0, dtype=np.int64)
    alone = (np.bincount(truth)[truth] == 1) & (np.bincount(prediction)[prediction] == 1)
    taken = alone.copy()
    rest = np.flatnonzero(~alone)
    if len(rest):
        taken[rest[_assign(truth[rest], prediction[rest], gain[rest])]] = True
    return np.flatnonzero(taken)


def _assign(truth: Ints, prediction: Ints, gain: Floats) -> NDArray[np.bool_]:
    """Which pairs are taken, by an assignment of every true cell to a prediction or to nobody."""
    rows, columns = (np.unique(index, return_inverse=True)[1] for index in (truth, prediction))
    n_rows, n_columns = int(rows.max()) + 1, int(columns.max()) + 1
    # each true cell has a partner of its own that stands for nobody; costs must not be 0
    nobody = np.arange(n_rows)
    top = float(gain.max()) + 1
    cost = np.concatenate([top - gain, np.full(n_rows, top)])
    where = np.concatenate([rows, nobody]), np.concatenate([columns, n_columns + nobody])
    table = csr_array((cost, where), shape=(n_rows, n_columns + n_rows))
    partner = np.empty(n_rows, dtype=np.int64)
    chosen_rows, chosen_columns = min_weight_full_bipartite_matching(table)
    partner[chosen_rows] = chosen_columns
    return np.asarray(partner[rows] == columns, dtype=np.bool_)

"""Which validation images are shown while a fold trains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cellflow.io.dataset import Dataset

__all__ = ["choose_examples", "types_of"]


def choose_examples(dataset: Dataset, ids: Sequence[str], count: int) -> list[str]:
    """Up to `count` of some images, always the same ones, sorted by cell type and id.

    The types take turns until there are enough; the images of a type lie evenly over its sorted ids,
    whose neighbours are often of one movie.
    """
    types = types_of(dataset)
    table = pd.Series({name: types.get(name, "") for name in sorted(ids)}, dtype=object)
    turns = table.groupby(table).cumcount().sort_values(kind="stable").index[:count]
    shares = table[turns].value_counts()
    chosen = []
    for kind in sorted(shares.index):
        names = table.index[table == kind]
        places = np.linspace(0, len(names) - 1, shares[kind]).round().astype(int)
        chosen += [str(name) for name in names[places]]
    return chosen


def types_of(dataset: Dataset) -> dict[str, str]:
    """Cell type of every image; empty where they have none."""
    if "cell_type" not in dataset.images:
        return {}
    return {str(name): str(value) for name, value in dataset.images["cell_type"].items()}

"""Splits of random datasets, as many as four seconds allow: disjoint, complete, groups whole, nothing leaks."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd

from cellflow.config import FoldsConfig
from cellflow.engine.data.folds import find_leaks
from cellflow.engine.data.make_folds import split_dataset
from cellflow.errors import FoldError
from cellflow.io.dataset import NEAR_COPY, Dataset

SECONDS = 4.0


def random_images(rng: np.random.Generator) -> pd.DataFrame:
    """Ids, types, groups (some empty), images that are there twice, and other forms of a picture."""
    n = int(rng.integers(4, 60))
    ids = pd.Index([f"i{at:02d}" for at in range(n)], name="id")
    groups = [f"g{number}" if number else "" for number in rng.integers(0, max(2, n // 2), n)]
    pixels = [f"p{number}" for number in np.where(rng.random(n) < 0.1, 0, np.arange(n) + 1)]
    copies = [ids[rng.integers(n)] if rng.random() < 0.1 else "" for _ in range(n)]
    types = rng.choice(["x", "y", "z"], n, p=[0.6, 0.3, 0.1])
    return pd.DataFrame(
        {"pixel_hash": pixels, "cell_type": types, "group": groups, NEAR_COPY: copies}, index=ids
    )


def count_wholes(images: pd.DataFrame, group: str | None) -> int:
    """How many sets of images are left when what shares pixels, group or picture is joined, pair by pair."""
    of = {name: {name} for name in images.index}
    for name, row in images.iterrows():
        for other, its in images.iterrows():
            alike = row["pixel_hash"] == its["pixel_hash"] or row[NEAR_COPY] == other
            if alike or (group is not None and row[group] and row[group] == its[group]):
                whole = of[name] | of[other]
                of.update(dict.fromkeys(whole, whole))
    return len({id(whole) for whole in of.values()})


def random_split(seed: int) -> tuple[pd.DataFrame, FoldsConfig, pd.Series, str | None] | None:
    """Images, how they are to be split, their folds and the column of groups; None where that was refused."""
    rng = np.random.default_rng(seed)
    images = random_images(rng)
    config = FoldsConfig(
        split="holdout" if rng.random() < 0.2 else "kfold",
        k=int(rng.integers(2, 6)),
        seed=seed,
        group="id" if rng.random() < 0.2 else None,
        calibration=float(rng.choice([0.0, 0.15])),
    )
    try:
        folds, group, _ = split_dataset(config, Dataset(Path("nowhere"), images, {}))
    except FoldError:
        return None
    return images, config, folds, group


def check_split(
    images: pd.DataFrame, config: FoldsConfig, folds: pd.Series, group: str | None
) -> None:
    """Disjoint, complete, groups and other forms of an image whole, nothing leaks."""
    wanted = {0, 1} if config.split == "holdout" else set(range(config.k))
    assert list(folds.index) == list(images.index)  # each image once
    assert set(folds) - {-1} == wanted
    assert (-1 in set(folds)) == bool(config.calibration)
    assert find_leaks(images, folds, group) == {}
    if count_wholes(images, group) >= len(wanted):
        for name, first in images[NEAR_COPY].items():
            assert not first or folds[name] == folds[first], (config.seed, name)
    if group is not None and (images["group"] != "").any():
        named = images[images["group"] != ""]
        assert folds[named.index].groupby(named["group"]).nunique().max() == 1


def test_random_splits_are_disjoint_complete_and_leak_nothing():
    until, made, refused, seed = time.monotonic() + SECONDS, 0, 0, 0
    while time.monotonic() < until or made < 20:
        seed += 1
        split = random_split(seed)
        if split is None:
            refused += 1
            continue
        made += 1
        check_split(*split)
    assert made > 5 * refused

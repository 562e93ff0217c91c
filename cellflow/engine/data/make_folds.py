"""`cellflow folds`: grouped and stratified folds, and reserved images."""

from __future__ import annotations

import logging
import re
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from cellflow.config import FoldsConfig, check_config
from cellflow.engine.data.folds import GROUP_COLUMNS, check_leaks, find_column, split_text
from cellflow.errors import FoldError
from cellflow.io.dataset import NEAR_COPY, Dataset
from cellflow.io.fold_table import RESERVED, fold_table_hash, read_fold_facts, write_fold_table
from cellflow.storage.atomic import remove_leftovers
from cellflow.storage.config_file import write_config_file
from cellflow.storage.sizes import few_text, type_text

__all__ = ["make_folds", "split_dataset"]

_log = logging.getLogger(__name__)


def make_folds(config: FoldsConfig) -> pd.DataFrame:
    """Split a dataset and write ``folds.csv`` and ``folds.json``.

    With ``split="kfold"`` the folds are 0..K-1. With ``split="holdout"`` fold 0 validates and fold 1
    holds the rest; only a model for fold 0 is meant to be trained (see `validation_folds`). Images
    reserved by ``calibration`` are in fold -1. Groups stay whole, and so do images with the same pixels or
    of one picture (turned, mirrored, rescaled, brightened).

    Parameters
    ----------
    config : FoldsConfig

    Returns
    -------
    DataFrame
        Columns id and fold, sorted by id.

    Raises
    ------
    FoldError
        If the table exists, a column does not, or there are too few groups.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from skimage.io import imsave
    >>> from cellflow import FoldsConfig, make_folds, prepare, PrepareConfig
    >>> with TemporaryDirectory() as name:
    ...     cells, data = Path(name) / "cells", Path(name) / "data"
    ...     cells.mkdir()
    ...     for at in range(3):
    ...         imsave(cells / f"{at}.png", np.arange(at, 64 + at, dtype=np.uint8).reshape(8, 8))
    ...         imsave(cells / f"{at}_masks.png", np.eye(8, dtype=np.uint8), check_contrast=False)
    ...     dataset = prepare(PrepareConfig(cells, out=data))
    ...     sorted(make_folds(FoldsConfig(data=data, k=3))["fold"])
    [0, 1, 2]
    """
    check_config(config)
    dataset = Dataset.open(config.data)
    result, group, stratify = split_dataset(config, dataset)
    size = {"k": config.k} if config.split == "kfold" else {"holdout": config.holdout}
    facts: dict[str, Any] = {
        "group": group, "stratify": stratify, "split": config.split, "seed": config.seed, **size,
        "calibration": config.calibration,
    }  # fmt: skip
    remove_leftovers(dataset.path)
    if config.overwrite or not _is_there(dataset, result, facts):
        write_fold_table(dataset.folds_path, result, facts)
    write_config_file(dataset.folds_path.with_suffix(".yaml"), "folds", config)
    for column in dict.fromkeys(name for name in (group, stratify) if name is not None):
        _tell_of_like_values(dataset.images[column].astype(str), column)
    _log_table(dataset.images, result, group, stratify)
    return result.rename_axis("id").reset_index()


def split_dataset(
    config: FoldsConfig, dataset: Dataset
) -> tuple[pd.Series[int], str | None, str | None]:
    """The split that `make_folds` would write: fold by id, and the columns of groups and of strata."""
    images = dataset.images
    group = find_column(images, config.group, GROUP_COLUMNS, "--group")
    stratify = find_column(images, config.stratify, ("cell_type",), "--stratify")
    needed = config.k if config.split == "kfold" else 2
    groups = _groups_for(images, group, needed)
    strata = _codes(images, stratify)
    rng = np.random.default_rng([config.seed, 0xF01D])
    folds = np.full(len(images), RESERVED, np.int64)
    free = np.ones(len(images), bool)
    if config.calibration:
        free = ~_choose(groups, strata, config.calibration, rng)
    _check_enough(groups[free], strata[free], needed, images, (group, stratify))
    if config.split == "kfold":
        folds[free] = _kfold(groups[free], strata[free], config.k, config.seed)
    else:
        folds[free] = np.where(_choose(groups[free], strata[free], config.holdout, rng), 0, 1)
    result = pd.Series(folds, index=images.index, name="fold")
    check_leaks(images, result, group)
    return result, group, stratify


def _codes(images: pd.DataFrame, column: str | None) -> NDArray[np.int64]:
    if column is None:
        return np.zeros(len(images), np.int64)
    return np.asarray(pd.factorize(images[column].astype(str), sort=True)[0], dtype=np.int64)


def _tell_of_like_values(values: pd.Series[str], column: str) -> None:
    """Warn of values that may be one: wells A01 and a1 would be two groups, which may lie in two folds."""
    alike: dict[str, list[str]] = {}
    for value in sorted(set(values) - {""}):
        plain = re.sub(r"(?<![\d.])0+(?=\d)", "", "".join(value.casefold().split()))
        alike.setdefault(plain, []).append(value)
    several = [" and ".join(map(repr, names)) for names in alike.values() if len(names) > 1]
    if several:
        _log.warning(
            "Column %s: %s differ in capitals, blanks or zeros only, and count as different. If they mean the same, "
            "write them alike in the table, prepare again and make the folds again.",
            *(column, few_text(several)),
        )


def _groups_for(images: pd.DataFrame, group: str | None, needed: int) -> NDArray[np.int64]:
    """Group number per image; forms of one picture may lie apart where too few groups would be left else.

    That two pictures are forms of one is likely, never sure: small regular ones look alike.
    """
    groups = _whole_groups(images, group)
    if NEAR_COPY not in images or len(np.unique(groups)) >= needed:
        return groups
    apart = _whole_groups(images.drop(columns=NEAR_COPY), group)
    if len(np.unique(apart)) < needed:
        return groups
    alike = images.index[images[NEAR_COPY] != ""]
    _log.warning(
        "%d images look like other forms of another image (%s ...; %s in images.csv). Kept together they leave "
        "%d groups for %d folds, so they may lie in different folds: if they are copies, scores are too good. "
        "`cellflow verify` shows them.",
        *(len(alike), alike[0], NEAR_COPY, len(np.unique(groups)), needed),
    )
    return apart


def _whole_groups(images: pd.DataFrame, group: str | None) -> NDArray[np.int64]:
    """Group number per image: what shares a group, its pixels or its picture, directly or through others.

    Forms of one picture stay together as copies do: a pair that was joined in error costs nothing, one that is
    not joined makes the score of its fold too good.
    """
    n = len(images)
    _, twins = np.unique(images["pixel_hash"].to_numpy(str), return_inverse=True)
    links = [(np.arange(n), n + twins)]
    if NEAR_COPY in images:
        first = images.index.get_indexer(pd.Index(images[NEAR_COPY]))
        links.append((np.flatnonzero(first >= 0), n + twins[first[first >= 0]]))
    if group is not None:
        values = images[group].astype(str).to_numpy(str)
        named = np.flatnonzero(values != "")
        if len(named) < n:
            _log.warning(
                "%d images have no %s and stand for themselves (%s ...)",
                *(n - len(named), group, images.index[values == ""][0]),
            )
        links.append((named, 2 * n + np.unique(values[named], return_inverse=True)[1]))
    rows, columns = (np.concatenate(part) for part in zip(*links, strict=True))
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(3 * n, 3 * n))
    labels = connected_components(graph, directed=False)[1][:n]
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64)


def _choose(
    groups: NDArray[np.int64], strata: NDArray[np.int64], share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Choose whole groups that hold about a share of the images of every stratum; of several one is left."""
    counts = np.zeros((groups.max() + 1, strata.max() + 1))
    np.add.at(counts, (groups, strata), 1)
    order = rng.permutation(np.unique(groups))
    missing = share * counts.sum(axis=0)
    chosen: list[int] = []
    for candidate in order:
        left = missing - counts[candidate]
        if (left**2).sum() < (missing**2).sum() and len(chosen) < len(order) - 1:
            chosen.append(candidate)
            missing = left
    if not chosen:  # every group is larger than what is asked for
        chosen = [min(order, key=lambda number: counts[number].sum())]
    return np.asarray(np.isin(groups, chosen))


def _check_enough(
    groups: NDArray[np.int64],
    strata: NDArray[np.int64],
    k: int,
    images: pd.DataFrame,
    columns: tuple[str | None, str | None],
) -> None:
    """Check that there are groups for all folds; `columns` are those of groups and of strata."""
    group, stratify = columns
    n_groups = len(np.unique(groups))
    if n_groups < k:
        free = f"{len(groups)} images" + (" not reserved" if len(groups) < len(images) else "")
        if NEAR_COPY in images and (images[NEAR_COPY] != "").any():
            free += f"; forms of one picture count once, see {NEAR_COPY} in images.csv, and empty it if wrong"
        ways = ["Add images"]
        ways += ["reserve fewer images"] if len(groups) < len(images) else []
        ways += ["lower --k"] if n_groups > 1 and k > 2 else []
        if group is not None:
            values = images[group].astype(str).unique()
            free += f", groups from the column {group}"
            free += f", which is {values[0]!r} for all" if len(values) == 1 else ""
            ways += ["name another column with --group"]
            ways += ["say --group id if every image stands for itself"]
        raise FoldError(
            f"{k} folds need at least {k} groups, found {n_groups} ({free}). {', or '.join(ways)}.",
            expected=k,
            found=n_groups,
        )
    if stratify is None:
        return
    names = pd.factorize(images[stratify].astype(str), sort=True)[1]
    for stratum in np.unique(strata):
        count = len(np.unique(groups[strata == stratum]))
        if count < k:
            _log.warning(
                "%s %r has %d group(s) for %d folds: some folds will be without it.",
                *(stratify, type_text(names[stratum]), count, k),
            )


def _kfold(
    groups: NDArray[np.int64], strata: NDArray[np.int64], k: int, seed: int
) -> NDArray[np.int64]:
    folds = np.full(len(groups), RESERVED, np.int64)
    splitter = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed)
    if np.bincount(strata).max() < k:  # every stratum is tiny: balance sizes only
        strata = np.zeros_like(strata)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for fold, (_, members) in enumerate(splitter.split(groups, strata, groups)):
            folds[members] = fold
    empty = sorted(set(range(k)) - set(folds.tolist()))
    if empty:
        raise FoldError(f"No group was left for fold {empty[0]}. Lower --k or try another --seed.")
    return folds


def _log_table(
    images: pd.DataFrame, folds: pd.Series[int], group: str | None, stratify: str | None
) -> None:
    if stratify is None:
        table = folds.value_counts().sort_index().to_frame("images")
    else:
        kind = images[stratify].astype(str).map(type_text)
        table = pd.crosstab(folds, kind)
        table.loc["total"] = table.sum()
        table.insert(table.shape[1], "total", table.sum(axis=1), allow_duplicates=True)
    _log.info("Images per fold (groups: %s)\n%s", group or "every image", table.to_string())


def _is_there(dataset: Dataset, folds: pd.Series[int], facts: dict[str, Any]) -> bool:
    """Whether this very table is there already, as after a kill at the end of the same command; another is refused."""
    path = dataset.folds_path
    if not path.exists():
        return False
    there = ""
    with suppress(FoldError):
        known = {**facts, "hash": fold_table_hash(folds)}
        if dataset.folds_hash() == known["hash"] and read_fold_facts(path) == known:
            _log.info("%s is there already, made with these settings", path)
            return True
        there = f" ({split_text(dataset)})"
    raise FoldError(
        f"{path} exists already{there}. Add --overwrite to replace it; runs that used it "
        "cannot be mixed with runs of the new one.",
        path=path,
    )

"""`cellflow folds`: grouped and stratified folds, reserved images, and the leak check."""

from __future__ import annotations

import logging
import shlex
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from cellflow.config import FoldsConfig, check_config
from cellflow.errors import FoldError, LeakError
from cellflow.io.dataset import Dataset
from cellflow.io.fold_table import (
    RESERVED,
    fold_table_hash,
    read_fold_facts,
    read_fold_table,
    write_fold_table,
)
from cellflow.storage.atomic import atomic_path, remove_leftovers
from cellflow.storage.config_file import write_config_file
from cellflow.storage.sizes import type_text

__all__ = [
    "check_leaks",
    "check_split",
    "copy_folds",
    "folds_hash",
    "image_groups",
    "load_folds",
    "make_folds",
    "read_folds",
    "split_dataset",
    "split_text",
    "validation_folds",
    "wanted_folds",
]

_log = logging.getLogger(__name__)

GROUP_COLUMNS = ("group", "sample_id")
_MAX_LEAKS = 10


def make_folds(config: FoldsConfig) -> pd.DataFrame:
    """Split a dataset and write ``folds.csv`` and ``folds.json``.

    With ``split="kfold"`` the folds are 0..K-1. With ``split="holdout"`` fold 0 validates and fold 1
    holds the rest; only a model for fold 0 is meant to be trained (see `validation_folds`). Images
    reserved by ``calibration`` are in fold -1. Groups, and images with the same pixels, stay whole.

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
    """
    check_config(config)
    dataset = Dataset.open(config.data)
    result, group, stratify = split_dataset(config, dataset)
    size = {"k": config.k} if config.split == "kfold" else {"holdout": config.holdout}
    facts: dict[str, Any] = {"group": group, "stratify": stratify}
    facts |= {"split": config.split, "seed": config.seed}
    facts |= {**size, "calibration": config.calibration}
    remove_leftovers(dataset.path)
    if config.overwrite or not _is_there(dataset, result, facts):
        write_fold_table(dataset.folds_path, result, facts)
    write_config_file(dataset.folds_path.with_suffix(".yaml"), "folds", config)
    _log_table(dataset.images, result, group, stratify)
    return result.rename_axis("id").reset_index()


def split_dataset(
    config: FoldsConfig, dataset: Dataset
) -> tuple[pd.Series[int], str | None, str | None]:
    """The split that `make_folds` would write: fold by id, and the columns of groups and of strata.

    Raises
    ------
    FoldError
        If a column does not exist, or there are too few groups.
    """
    images = dataset.images
    group = _column(images, config.group, GROUP_COLUMNS, "--group")
    stratify = _column(images, config.stratify, ("cell_type",), "--stratify")
    groups = _whole_groups(images, group)
    strata = _codes(images, stratify)
    rng = np.random.default_rng([config.seed, 0xF01D])
    folds = np.full(len(images), RESERVED, np.int64)
    free = np.ones(len(images), bool)
    if config.calibration:
        free = ~_choose(groups, strata, config.calibration, rng)
    if config.split == "kfold":
        _check_enough(groups[free], strata[free], config.k, images, (group, stratify))
        folds[free] = _kfold(groups[free], strata[free], config.k, config.seed)
    else:
        _check_enough(groups[free], strata[free], 2, images, (group, stratify))
        folds[free] = np.where(_choose(groups[free], strata[free], config.holdout, rng), 0, 1)
    result = pd.Series(folds, index=images.index, name="fold")
    check_leaks(images, result, group)
    return result, group, stratify


def load_folds(dataset: Dataset) -> pd.Series[int]:
    """Read the fold table of a dataset, made here or by hand, and check it for leaks.

    The column of groups is the one ``folds.json`` names, else the default of `make_folds`; both where the
    table was edited since.

    Returns
    -------
    Series of int64
        Fold by id.

    Raises
    ------
    FoldError
        If there is no table, or it does not fit the images.
    LeakError
        If a group, or one image under two names, lies in two folds.
    """
    folds = dataset.folds()
    facts = read_fold_facts(dataset.folds_path)
    default = _default(dataset.images, GROUP_COLUMNS)
    columns = [facts["group"]] if "group" in facts else [default]
    if facts.get("edited") and default is not None:
        columns.append(default)
    for group in dict.fromkeys(columns):
        check_leaks(
            dataset.images, folds, _column(dataset.images, group, (), "group in folds.json")
        )
    return folds


def check_split(data: Path, *, k: int | None, group: str | None, calibration: float | None) -> None:
    """Check that settings that were given are those of the split that is there, if there is one.

    Parameters
    ----------
    data : Path
        Dataset folder.
    k, group, calibration
        As in `FoldsConfig`; None where nothing was said.

    Raises
    ------
    FoldError
        Naming every setting that differs, with both values. Of a table that was brought along it is not
        known how it was made: its groups are then looked at themselves.
    LeakError
        If it is one of those and its folds split a group.
    """
    dataset = Dataset.open(data)
    if not dataset.folds_path.exists():
        return
    folds, facts = load_folds(dataset), read_fold_facts(dataset.folds_path)
    there, reserved = validation_folds(dataset, folds), int((folds == RESERVED).sum())
    holdout = facts.get("split") == "holdout"
    differ = list[str]()
    if k is not None and (holdout or k != len(there)):
        differ.append(
            f"--k {k}, but {'it is one holdout split' if holdout else f'there are {len(there)} folds'}"
        )
    column = None if group is None else _column(dataset.images, group, (), "--group")
    if group is not None and facts.get("group", column) != column:
        differ.append(f"--group {group}, but groups are {facts['group'] or 'id'}")
    share = facts.get("calibration", calibration if reserved else 0.0)
    if calibration is not None and share != calibration:
        differ.append(
            f"--calibration {calibration:g}, but {reserved} of {len(folds)} images are reserved"
            + (f" ({share:g})" if reserved else "")
        )
    if differ:
        given = {"--k": k, "--group": group, "--calibration": calibration}
        flags = "".join(
            f" {name} {shlex.quote(str(value))}"
            for name, value in given.items()
            if value is not None
        )
        raise FoldError(
            f"{dataset.folds_path} is another split than was asked for: {'; '.join(differ)}. Leave "
            f"{' and '.join(text.split()[0] for text in differ)} out to use it as it is; or make it new, for "
            f"new runs: cellflow folds --data {shlex.quote(str(data))}{flags} --overwrite"
        )
    if "group" not in facts:
        check_leaks(dataset.images, folds, column)


def read_folds(path: Path, dataset: Dataset | None = None) -> pd.Series[int]:
    """Read a fold table from a file, for instance a run's copy; check its ids against a dataset.

    Raises
    ------
    FoldError
        If it is missing, malformed or does not fit the dataset.
    """
    return read_fold_table(path, None if dataset is None else dataset.ids)


def folds_hash(folds: pd.Series[int]) -> str:
    """Hash of which image is in which fold, whatever the order of the rows."""
    return fold_table_hash(folds)


def copy_folds(dataset: Dataset, folder: Path) -> None:
    """Copy the fold table and what is known of it into a folder, each file atomically."""
    for source in (dataset.folds_path.with_suffix(".json"), dataset.folds_path):
        if source.is_file():
            with atomic_path(folder / source.name) as temporary:
                shutil.copyfile(source, temporary)


def validation_folds(where: Dataset | Path, folds: pd.Series[int]) -> list[int]:
    """Folds that a model is to be trained for.

    Parameters
    ----------
    where : Dataset or Path
        The dataset, or a folder that holds a copy of its fold table.
    folds : Series
        Fold by id.

    Returns
    -------
    list of int
        All folds but -1; only fold 0 after a holdout split.
    """
    folder = where.path if isinstance(where, Dataset) else where
    if read_fold_facts(folder / "folds.csv").get("split") == "holdout":
        return [0]
    return sorted({int(fold) for fold in folds} - {RESERVED})


def check_leaks(images: pd.DataFrame, folds: pd.Series[int], group: str | None) -> None:
    """Check that no group and no image lies in two folds.

    Parameters
    ----------
    images : DataFrame
        Indexed by id, with the column pixel_hash and the column of groups.
    folds : Series
        Fold by id; -1 counts as a fold of its own.
    group : str or None
        Column of groups; None if every image stands for itself.

    Raises
    ------
    LeakError
        Naming the groups, or the images with the same pixels, and the folds they lie in.
    """
    leaks = []
    kinds = {"pixel_hash": "the same image under several names"}
    if group is not None:
        kinds = {group: group, **kinds}
    for column, what in kinds.items():
        values = images[column].astype(str)
        named = values[values != ""]
        for value, members in named.groupby(named):
            found = folds.loc[members.index]
            if found.nunique() > 1:
                name = what if column == "pixel_hash" else f"{what} {value}"
                where = ", ".join(f"{image_id} in fold {fold}" for image_id, fold in found.items())
                leaks.append(f"{name}: {where}")
    if leaks:
        rest = len(leaks) - _MAX_LEAKS
        lines = [f"  - {leak}" for leak in leaks[:_MAX_LEAKS]]
        lines += [f"  and {rest} more"] if rest > 0 else []
        raise LeakError(
            "\n".join(
                [
                    "The folds leak: what belongs together lies in more than one fold.",
                    *lines,
                    "Put each of these into one fold, or make the table new with "
                    "`cellflow folds --overwrite` (--group COLUMN; --group id if every image "
                    "stands for itself).",
                ]
            )
        )


def _is_there(dataset: Dataset, folds: pd.Series[int], facts: dict[str, Any]) -> bool:
    """Whether this very table is there already, as after a kill at the end of the same command.

    Raises
    ------
    FoldError
        If another one is there.
    """
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
        "cannot be mixed with runs of the new one."
    )


def split_text(dataset: Dataset) -> str:
    """The split of a dataset in words: its folds, groups, seed and reserved images, as far as known."""
    folds, facts = dataset.folds(), read_fold_facts(dataset.folds_path)
    numbers = validation_folds(dataset, folds)
    parts = [f"folds {' '.join(map(str, numbers))}"]
    if facts.get("split") == "holdout":
        parts = ["a holdout, fold 0 validates"]
    if "group" in facts:
        parts.append(f"groups {facts['group'] or 'id'}")
    if "seed" in facts:
        parts.append(f"seed {facts['seed']}")
    reserved = int((folds == RESERVED).sum())
    return ", ".join([*parts, f"{reserved} of {len(folds)} images reserved"])


def _default(images: pd.DataFrame, candidates: tuple[str, ...]) -> str | None:
    return next((name for name in candidates if name in images.columns), None)


def _column(
    images: pd.DataFrame, wanted: str | None, candidates: tuple[str, ...], flag: str
) -> str | None:
    """Name of a column, given or found; None for none, or for the id."""
    if wanted is None:
        return _default(images, candidates)
    if wanted == "id":
        return None
    if wanted not in images.columns:
        raise FoldError(
            f"{flag} {wanted}: images.csv has no such column. "
            f"It has: id, {', '.join(images.columns)}."
        )
    return wanted


def _codes(images: pd.DataFrame, column: str | None) -> NDArray[np.int64]:
    if column is None:
        return np.zeros(len(images), np.int64)
    return np.asarray(pd.factorize(images[column].astype(str), sort=True)[0], dtype=np.int64)


def _whole_groups(images: pd.DataFrame, group: str | None) -> NDArray[np.int64]:
    """Group number per image: what shares a group or its pixels, directly or through others."""
    n = len(images)
    _, twins = np.unique(images["pixel_hash"].to_numpy(str), return_inverse=True)
    links = [(np.arange(n), n + twins)]
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
    """Choose whole groups that hold about a share of the images of every stratum."""
    counts = np.zeros((groups.max() + 1, strata.max() + 1))
    np.add.at(counts, (groups, strata), 1)
    order = rng.permutation(np.unique(groups))
    missing = share * counts.sum(axis=0)
    chosen = []
    for candidate in order:
        left = missing - counts[candidate]
        if (left**2).sum() < (missing**2).sum():
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
            f"{k} folds need at least {k} groups, found {n_groups} ({free}). {', or '.join(ways)}."
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


def image_groups(dataset: Dataset, folds_path: Path) -> pd.Series[str]:
    """Group of every image, by id: what the fold table was made with, else the default column, else the id."""
    images = dataset.images
    facts = read_fold_facts(folds_path)
    column = facts.get("group") if "group" in facts else _default(images, GROUP_COLUMNS)
    if column not in images:
        column = None
    ids = pd.Series(images.index, images.index, dtype=str)
    names = images[column].astype(str) if column else ids
    return names.where(names != "", ids).rename("group")


def wanted_folds(asked: tuple[str, ...], there: list[int], dataset: Dataset) -> list[int]:
    """The folds that `--fold` names, among those that validate.

    Raises
    ------
    FoldError
        If one of them does not exist.
    """
    if "all" in asked:
        return there
    wanted = sorted({int(part) for part in asked})
    missing = [fold for fold in wanted if fold not in there]
    if missing:
        raise FoldError(
            f"--fold {' '.join(map(str, missing))}: {dataset.folds_path} has the folds "
            f"{' '.join(map(str, there))}."
        )
    return wanted

"""The split of a dataset: its folds and groups, and the leak check."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.errors import FoldError, LeakError
from cellflow.io.dataset import Dataset
from cellflow.io.fold_table import RESERVED, read_fold_facts
from cellflow.storage.atomic import atomic_path
from cellflow.storage.sizes import few_lines

__all__ = [
    "check_leaks",
    "check_split",
    "copy_folds",
    "find_column",
    "find_leaks",
    "group_column",
    "group_columns",
    "groups_of",
    "image_groups",
    "load_folds",
    "split_text",
    "validation_folds",
    "wanted_folds",
]

GROUP_COLUMNS = ("group", "sample_id")
_MAX_LEAKS = 10


def load_folds(dataset: Dataset) -> pd.Series[int]:
    """Fold of every image by id, from the fold table of a dataset, made here or by hand.

    Raises
    ------
    FoldError
        If there is no table, or it does not fit the images.
    LeakError
        If a group, or one image under two names, lies in two folds.
    """
    folds = dataset.folds()
    for column in group_columns(dataset.images, read_fold_facts(dataset.folds_path)):
        check_leaks(dataset.images, folds, column)
    return folds


def group_columns(images: pd.DataFrame, facts: Mapping[str, Any]) -> list[str | None]:
    """Columns of groups to look at: the one that `read_fold_facts` names, and the usual one where it was edited."""
    columns = [group_column(images, facts)]
    columns += [group_column(images)] if facts.get("edited") else []
    return [find_column(images, name, (), "group in folds.json") for name in dict.fromkeys(columns)]


def check_split(data: Path, *, k: int | None, group: str | None, calibration: float | None) -> None:
    """Check that settings that were given, as in `FoldsConfig`, are those of the split that is there, if there is one.

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
    column = None if group is None else find_column(dataset.images, group, (), "--group")
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
            f" {name} {shlex.quote(str(said))}" for name, said in given.items() if said is not None
        )
        raise FoldError(
            f"{dataset.folds_path} is another split than was asked for: {'; '.join(differ)}. Leave "
            f"{' and '.join(text.split()[0] for text in differ)} out to use it as it is; or make it new, for "
            f"new runs: cellflow folds --data {shlex.quote(str(data))}{flags} --overwrite",
            path=dataset.folds_path,
        )
    if "group" not in facts:
        check_leaks(dataset.images, folds, column)


def copy_folds(dataset: Dataset, folder: Path) -> None:
    """Copy the fold table and what is known of it into a folder, each file atomically."""
    for source in (dataset.folds_path.with_suffix(".json"), dataset.folds_path):
        if source.is_file():
            with atomic_path(folder / source.name) as temporary:
                shutil.copyfile(source, temporary)


def validation_folds(where: Dataset | Path, folds: pd.Series[int]) -> list[int]:
    """Folds that a model is to be trained for: all but -1; only fold 0 after a holdout split.

    `where` is the dataset, or a folder that holds a copy of its fold table.
    """
    folder = where.path if isinstance(where, Dataset) else where
    if read_fold_facts(folder / "folds.csv").get("split") == "holdout":
        return [0]
    return sorted({int(fold) for fold in folds} - {RESERVED})


def check_leaks(images: pd.DataFrame, folds: pd.Series[int], group: str | None) -> None:
    """Check that no group and no image lies in two folds; -1 counts as a fold of its own.

    `images` are indexed by id, with the column pixel_hash and that of groups; without that each stands for itself.

    Raises
    ------
    LeakError
        Naming the groups, or the images with the same pixels, and the folds they lie in.
    """
    leaks = find_leaks(images, folds, group)
    if leaks:
        raise LeakError(
            "The folds leak: what belongs together lies in more than one fold.\n"
            + few_lines(leaks.values(), _MAX_LEAKS)
            + "\nPut each of these into one fold, or make the table new with `cellflow folds --overwrite` "
            "(--group COLUMN; --group id if every image stands for itself)."
        )


def find_leaks(
    images: pd.DataFrame, folds: pd.Series[int], group: str | None
) -> dict[tuple[str, ...], str]:
    """What belongs together and lies in two folds, in words, by the ids; parameters as in `check_leaks`."""
    leaks = dict[tuple[str, ...], str]()
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
                leaks.setdefault(tuple(map(str, found.index)), f"{name}: {where}")
    return leaks


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


def find_column(
    images: pd.DataFrame, wanted: str | None, candidates: tuple[str, ...], flag: str
) -> str | None:
    """Name of a column, given or found; None for none, or for the id."""
    if wanted is None:
        return next((name for name in candidates if name in images), None)
    if wanted == "id":
        return None
    if wanted not in images:
        raise FoldError(
            f"{flag} {wanted}: images.csv has no such column. "
            f"It has: id, {', '.join(images.columns)}.",
            expected=list(images.columns),
            found=wanted,
        )
    return wanted


def group_column(images: pd.DataFrame, facts: Mapping[str, Any] | None = None) -> str | None:
    """Column of groups: the one a fold table was made with, else the usual one; None if images stand for themselves."""
    usual = next((name for name in GROUP_COLUMNS if name in images), None)
    column = usual if facts is None else facts.get("group", usual)
    return None if column is None else str(column)


def groups_of(images: pd.DataFrame, column: str | None) -> pd.Series[str]:
    """Group of every image, by id; an image without one stands for itself."""
    ids = pd.Series(images.index, images.index, dtype=str)
    names = images[column].astype(str) if column else ids
    return names.where(names != "", ids).rename("group")


def image_groups(dataset: Dataset, folds_path: Path) -> pd.Series[str]:
    """Group of every image of a dataset, as the fold table has it where the dataset still knows."""
    column = group_column(dataset.images, read_fold_facts(folds_path))
    return groups_of(dataset.images, column if column in dataset.images else None)


def wanted_folds(asked: tuple[str, ...], there: list[int], dataset: Dataset) -> list[int]:
    """The folds that `--fold` names, among those that validate; refused if one of them does not exist."""
    if "all" in asked:
        return there
    if asked == ("none",):  # one network, which is kept as that of the first
        return there[:1]
    wanted = sorted({int(part) for part in asked})
    missing = [fold for fold in wanted if fold not in there]
    if missing:
        raise FoldError(
            f"--fold {' '.join(map(str, missing))}: {dataset.folds_path} has the folds "
            f"{' '.join(map(str, there))}. Give one of these, or --fold all.",
            path=dataset.folds_path,
            expected=there,
            found=missing,
        )
    return wanted

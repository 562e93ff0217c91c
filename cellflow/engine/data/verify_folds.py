"""What is wrong with the folds of a dataset."""

from __future__ import annotations

from collections.abc import Mapping

from cellflow.engine.data.findings import Finding
from cellflow.engine.data.folds import find_column, find_leaks, group_column, split_text
from cellflow.errors import FoldError
from cellflow.io.dataset import Dataset
from cellflow.io.fold_table import read_fold_facts

__all__ = ["fold_findings"]

KIND = "over several folds"


def fold_findings(
    dataset: Dataset, copies: Mapping[tuple[str, str], str]
) -> tuple[list[Finding], str]:
    """Groups, images and their copies that lie in more than one fold, and the split in words.

    Parameters
    ----------
    dataset : Dataset
    copies : mapping of (str, str) to str
        Pairs of images of which one was made from the other, with what the second is of the first.
    """
    if not dataset.folds_path.exists():
        return [], "none yet"
    try:
        folds, facts = dataset.folds(), read_fold_facts(dataset.folds_path)
        columns = [group_column(dataset.images, facts)]
        if facts.get("edited"):
            columns.append(group_column(dataset.images))
        names = [find_column(dataset.images, name, (), "group in folds.json") for name in columns]
        text = split_text(dataset)
    except FoldError as error:
        return [Finding(KIND, "folds.csv", str(error), wrong=True)], "cannot be used"
    leaks: dict[tuple[str, ...], str] = {}
    for name in dict.fromkeys(names):
        leaks |= find_leaks(dataset.images, folds, name)
    found = [Finding(KIND, ids[0], text_, wrong=True) for ids, text_ in leaks.items()]
    for (one, other), how in copies.items():
        if folds[one] != folds[other]:
            where = f"{one} in fold {folds[one]}, {other} in fold {folds[other]}"
            found.append(Finding(KIND, other, f"{other} is {how}: {where}", wrong=True))
    return found, text

"""What is wrong with the folds of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cellflow.engine.data.findings import Finding
from cellflow.engine.data.folds import find_leaks, group_columns, split_text
from cellflow.errors import FoldError
from cellflow.io.dataset import Dataset
from cellflow.io.fold_table import read_fold_facts, read_fold_table

__all__ = ["OVER_FOLDS", "fold_findings", "leak_findings"]

OVER_FOLDS = "over several folds"
"""Kind of what belongs together and does not lie in one fold."""


def fold_findings(
    dataset: Dataset, copies: Mapping[tuple[str, str], str]
) -> tuple[list[Finding], str]:
    """What is wrong with the folds of a dataset, and what they are in words.

    `copies` are pairs of images of which one was made from the other, with what the second is.
    """
    if not dataset.folds_path.exists():
        return [], "none yet"
    try:
        return leak_findings(dataset, dataset.folds_path, copies), split_text(dataset)
    except FoldError as error:
        return [Finding(OVER_FOLDS, "folds.csv", str(error), wrong=True)], "cannot be used"


def leak_findings(
    dataset: Dataset, path: Path, copies: Mapping[tuple[str, str], str]
) -> list[Finding]:
    """Groups, images and their copies that lie in more than one fold of a table, refused if it is of other images."""
    folds, leaks = read_fold_table(path, dataset.ids), dict[tuple[str, ...], str]()
    for column in group_columns(dataset.images, read_fold_facts(path)):
        leaks |= find_leaks(dataset.images, folds, column)
    found = [Finding(OVER_FOLDS, ids[0], text, wrong=True) for ids, text in leaks.items()]
    for (one, other), how in copies.items():
        if folds[one] != folds[other]:
            where = f"{one} in fold {folds[one]}, {other} in fold {folds[other]}"
            found.append(Finding(OVER_FOLDS, other, f"{other} is {how}: {where}", wrong=True))
    return found

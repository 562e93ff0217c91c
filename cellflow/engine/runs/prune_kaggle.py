"""What can go of the datasets that runs were published as on Kaggle: those of debug runs, and superseded ones.

A published run carries its `metadata.json`, which says what it is. A dataset is superseded where all its
versions are of a run that is here, and that run has since been published under another name. All else stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellflow.engine.runs.metadata import FORMAT, read_metadata
from cellflow.engine.runs.prune_remote import LeftAlone, Remote
from cellflow.errors import CellflowError
from cellflow.io.kaggle_datasets import KaggleDatasets, Owned
from cellflow.storage.records import dict_or_empty, read_json
from cellflow.storage.run_folder import RunFolder
from cellflow.storage.sizes import plural

__all__ = ["DatasetItem", "plan_datasets", "remove_datasets"]

_Facts = Mapping[str, Any]
_PAGE = re.compile(r"https?://[^/]+/(?:datasets/)?([\w-]+/[\w-]+)/?")
"""Pages of datasets; what comes after the host is OWNER/SLUG."""


@dataclass(frozen=True)
class DatasetItem(Remote):
    """A dataset on Kaggle that can go, as it was when it was listed.

    Attributes
    ----------
    dataset : Owned
        The dataset.
    run : RunFolder or None
        Run that was published again elsewhere; None for the dataset of a debug run.
    by : Owned or None
        The dataset that supersedes it.
    """

    dataset: Owned
    run: RunFolder | None = None
    by: Owned | None = None


def plan_datasets(
    chosen: Iterable[RunFolder], *, all_names: bool
) -> tuple[list[DatasetItem], list[str]]:
    """Datasets that can go, and what is left alone. Unless `all_names`, only those of runs called as the chosen ones.

    Raises
    ------
    CellflowError
        If Kaggle cannot be asked.
    """
    runs = {run.name: run for run in chosen}
    kaggle = KaggleDatasets()
    alone = LeftAlone()
    items: list[DatasetItem] = []
    older: list[str] = []
    owned = {dataset.reference: dataset for dataset in kaggle.owned()}
    for dataset in owned.values():
        metadata = _metadata(kaggle, dataset, dataset.version)
        if metadata is None:
            if all_names:
                why = "as nothing in them says that cellflow published a run there"
                alone.add(dataset.reference, why)
            continue
        run = runs.get(metadata["experiment"])
        if run is None and not all_names:
            continue
        here = run is not None and _identity(read_metadata(run) or {}) == _identity(metadata)
        by = owned.get(_published(run)) if run is not None and here else None
        why_not = _why_not(kaggle, dataset, metadata, by, here=here)
        if why_not:
            alone.add(dataset.reference, why_not)
        elif metadata.get("debug") is True:
            why = f"of a debug run; {_lost(dataset)}"
            items.append(DatasetItem(f"dataset {dataset.title}", dataset.url, why, dataset))
        elif run is not None and by is not None and by != dataset:
            items.append(_superseded(dataset, metadata, run, by))
        elif dataset.version > 1:
            older.append(_older_versions(dataset))
    return items, [*alone.texts(f"of your {plural(len(owned), 'dataset')} on Kaggle"), *older]


def remove_datasets(items: Sequence[DatasetItem], kept: list[str]) -> list[DatasetItem]:
    """Remove datasets of a plan; those that have changed since are left alone. Adds to `kept` what is, and why."""
    if not items:
        return []
    kaggle = KaggleDatasets()
    removed: list[DatasetItem] = []
    for item in items:
        try:
            if _is_as_listed(item, kaggle.owned()):
                kaggle.delete(item.dataset.reference)
                removed.append(item)
            else:
                kept.append(f"{item.url} is left alone: it has changed since it was listed")
        except CellflowError as error:
            kept.append(str(error))
    return removed


def _is_as_listed(item: DatasetItem, now: Sequence[Owned]) -> bool:
    """Whether a dataset, and what supersedes it, are what they were."""
    by = item.by
    superseded = by is None or (
        by in now and item.run is not None and _published(item.run) == by.reference
    )
    return superseded and item.dataset in now


def _why_not(
    kaggle: KaggleDatasets, dataset: Owned, metadata: _Facts, by: Owned | None, *, here: bool
) -> str:
    """Why a dataset of a run is left alone; empty where it may go, or is where its run is published now."""
    if metadata.get("debug") is not True:
        if not here:
            return "as their runs are not here, so that nothing says what supersedes them"
        if by is None or by.updated < dataset.updated:
            return "as nothing here says where their runs have been published since"
        if by == dataset:
            return ""
    if dataset.notebooks:
        return "as notebooks read them"
    if not _same_in_all_versions(kaggle, dataset, metadata):
        return "as not every version of theirs is seen to be of the same run"
    return ""


def _superseded(dataset: Owned, metadata: _Facts, run: RunFolder, by: Owned) -> DatasetItem:
    """The item of a dataset whose run is published elsewhere now."""
    still = _models(metadata) <= _models(read_metadata(run) or {})
    models = "its models are those of" if still else "and its models are not those of"
    why = f"superseded by {by.url}; {_lost(dataset)}, {models} {run.path}"
    return DatasetItem(f"dataset {dataset.title}", dataset.url, why, dataset, run, by)


def _older_versions(dataset: Owned) -> str:
    count = plural(dataset.version - 1, "older version")
    return (
        f"{dataset.url} has {count}, left alone: Kaggle's client cannot delete single versions. The page of the "
        f"whole dataset's settings is {dataset.url}/settings"
    )


def _lost(dataset: Owned) -> str:
    seen = "private" if dataset.private else "public"
    return f"{seen}, {plural(dataset.version, 'version')}; what reads it finds it no more"


def _metadata(kaggle: KaggleDatasets, dataset: Owned, version: int) -> _Facts | None:
    """What a published run says of itself; None where there is nothing that cellflow wrote."""
    text = kaggle.read_text(dataset.reference, version, "metadata.json")
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    known = isinstance(found, dict) and found.get("format") == FORMAT
    return found if known and isinstance(found.get("experiment"), str) else None


def _same_in_all_versions(kaggle: KaggleDatasets, dataset: Owned, metadata: _Facts) -> bool:
    """Whether every version is of the run that the newest is of."""
    for version in range(1, dataset.version):
        older = _metadata(kaggle, dataset, version)
        if older is None or _identity(older) != _identity(metadata):
            return False
    return True


def _identity(metadata: _Facts) -> tuple[Any, ...]:
    """What a run keeps for its life, whatever is trained, scored and published of it."""
    data, split = dict_or_empty(metadata.get("data")), dict_or_empty(metadata.get("split"))
    facts = (metadata.get(name) for name in ("experiment", "created", "debug"))
    return (*facts, data.get("hash"), split.get("id"))


def _models(metadata: _Facts) -> set[Any]:
    folds = dict_or_empty(metadata.get("model")).get("folds")
    items = folds if isinstance(folds, list) else []
    return {item.get("hash") for item in items if isinstance(item, dict)} - {None}


def _published(run: RunFolder) -> str:
    """OWNER/SLUG of what a run was published as last; empty where nothing says it."""
    record = read_json(run.publication) or {}
    found = _PAGE.fullmatch(str(record.get("url"))) if record.get("to") == "kaggle" else None
    return "" if found is None else found[1]

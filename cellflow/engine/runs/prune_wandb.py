"""What can go of the records that runs have in wandb: those of debug runs, and superseded ones.

A record is taken for one that cellflow made where its id, job type, name, group and config are all as
`WandbTracker` writes them. It is superseded where the same fold of a run of that name was recorded again
later, from the same settings, data and split, to its end, and every epoch of the earlier record is in the
later one. All else stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cellflow.engine.runs.prune_remote import LeftAlone, Remote
from cellflow.errors import CellflowError
from cellflow.storage.records import dict_or_empty, read_json
from cellflow.storage.run_folder import RunFolder
from cellflow.tracking.wandb_records import WandbRecord, WandbRecords

__all__ = ["RecordItem", "offline_records", "plan_records", "remove_records"]

_ID = re.compile(r"(?P<uid>[0-9a-f]{12})-(?P<key>fold_(?P<fold>\d+)|run)(-offline)?")
"""Ids of records, as the tracker makes them of a run's uid."""
_OFFLINE = re.compile(rf"offline-run-\d{{8}}_\d{{6}}-{_ID.pattern}")
"""Folders in which wandb records without network."""
_OF_THE_COMMAND = (
    "comment", "host", "environment", "runs_dir", "savedir", "recipe", "time_budget", "scheduler", "download",
    "dry_run", "runtime", "tracking",
)  # fmt: skip
"""Parts of a fold's config that may differ between two records of the same training."""


@dataclass(frozen=True)
class RecordItem(Remote):
    """A record in wandb that can go, as it was when it was listed.

    Attributes
    ----------
    record : WandbRecord
        The record.
    by : WandbRecord or None
        The later one that supersedes it; None for that of a debug run, with which its models go too.
    """

    record: WandbRecord
    by: WandbRecord | None = None


@dataclass(frozen=True)
class _Own:
    """A record that cellflow made for the owner of the key."""

    record: WandbRecord
    uid: str
    fold: int | None

    @property
    def settings(self) -> dict[str, Any]:
        """What makes the training of its fold what it is."""
        config = self.record.config
        return {name: config[name] for name in config if name not in _OF_THE_COMMAND}

    @property
    def complete(self) -> bool:
        """Whether it holds the end of its fold's training."""
        return self.record.state == "finished" and bool(self.record.summary.get("finished"))

    def can_replace(self, other: _Own) -> bool:
        """Whether it is a later record of the same training, to its end; its epochs are not looked at."""
        later = self.complete and self.record.created > other.record.created
        # records without a hash do not say what they were trained on
        return later and "data_hash" in self.settings and self.settings == other.settings


def plan_records(
    chosen: Sequence[RunFolder], everything: Iterable[RunFolder], *, all_names: bool
) -> tuple[list[RecordItem], list[str]]:
    """Records that can go, of the projects that the chosen runs were recorded in, and what is left alone.

    `everything` are all runs that are known here. Unless `all_names`, only records of runs called as those chosen are
    listed.

    Raises
    ------
    CellflowError
        If wandb cannot be asked.
    """
    places = {place for run in chosen for place in _places(run)}
    if not places:
        return [], ["wandb is not asked: no run here was recorded there"]
    wandb = WandbRecords()
    names = None if all_names else {run.name for run in chosen}
    here = {uid for run in everything if (uid := _uid(run)) is not None}
    items: list[RecordItem] = []
    kept: list[str] = []
    for project in sorted({wandb.project(*place) for place in places}):
        alone = LeftAlone()
        records = [item for item in wandb.list(project) if names is None or item.group in names]
        own = list(_own(records, wandb.user, alone))
        items += [_debug_item(item.record) for item in own if _is_debug(item)]
        rest = [item for item in own if not _is_debug(item)]
        items += _superseded(rest, here, wandb, alone)
        kept += alone.texts(f"of the {len(records)} records in {project}")
    return items, kept


def remove_records(items: Sequence[RecordItem], kept: list[str]) -> list[RecordItem]:
    """Remove records of a plan; those that have changed since are left alone. Adds to `kept` what is, and why."""
    if not items:
        return []
    wandb = WandbRecords()
    removed: list[RecordItem] = []
    for item in items:
        listed = [record for record in (item.record, item.by) if record is not None]
        try:
            if [wandb.look(record) for record in listed] == listed:
                wandb.remove(item.record, models=item.by is None)
                removed.append(item)
            else:
                kept.append(f"{item.url} is left alone: it has changed since it was listed")
        except CellflowError as error:
            kept.append(str(error))
    return removed


def offline_records(run: RunFolder) -> list[Path]:
    """Folders in which a run was recorded for wandb without network."""
    uid = _uid(run)
    found = [(path, _OFFLINE.fullmatch(path.name)) for path in (run.path / "wandb").glob("*")]
    return sorted(path for path, name in found if name and name["uid"] == uid and path.is_dir())


def _places(run: RunFolder) -> Iterator[tuple[str | None, str]]:
    """Entity, None for the key's own, and project of what a run was recorded to in wandb."""
    tracking = read_json(run.tracking) or {}
    settings = dict_or_empty(tracking.get("settings"))
    if settings.get("wandb") is True and isinstance(settings.get("wandb_project"), str):
        yield settings.get("wandb_entity"), settings["wandb_project"]
    links = dict_or_empty(dict_or_empty(tracking.get("links")).get("wandb"))
    for link in links.values():
        parts = urlsplit(str(link)).path.split("/")
        if "://" in str(link) and len(parts) > 4 and parts[-2] == "runs":
            yield unquote(parts[-4]), unquote(parts[-3])


def _uid(run: RunFolder) -> str | None:
    uid = (read_json(run.tracking) or {}).get("uid")
    return uid if isinstance(uid, str) and uid else None


def _own(records: Iterable[WandbRecord], user: str, alone: LeftAlone) -> Iterator[_Own]:
    """Those that cellflow made for this user, are not being written to, and nobody has changed by hand."""
    for record in records:
        found = _ID.fullmatch(record.id)
        fold = None if found is None or found["fold"] is None else int(found["fold"])
        if found is None or not _is_ours(record, fold):
            alone.add(record.id, "as not all in them is as cellflow writes it")
        elif not user or record.user != user:
            alone.add(record.id, "as another user recorded them")
        elif record.tags:
            alone.add(record.id, "as a person has given them tags")
        elif record.state not in ("finished", "failed", "crashed", "killed"):
            alone.add(record.id, f"as they are {record.state}")
        else:
            yield _Own(record, found["uid"], fold)


def _is_ours(record: WandbRecord, fold: int | None) -> bool:
    name = record.group if fold is None else f"{record.group} fold {fold}"
    kind = "cv" if fold is None else "fold"
    config = record.config
    return (
        (record.job_type, record.name) == (kind, name)
        and config.get("experiment") == record.group != ""
        and config.get("fold", fold) == fold
    )


def _is_debug(item: _Own) -> bool:
    return item.record.config.get("debug") is True


def _debug_item(record: WandbRecord) -> RecordItem:
    why = "of a debug run; its curves, pictures and models in wandb go with it"
    return RecordItem(f"record {record.name}", record.url, why, record)


def _superseded(
    own: Sequence[_Own], here: set[str], wandb: WandbRecords, alone: LeftAlone
) -> Iterator[RecordItem]:
    """Records of folds for which there is a later one that has all their epochs."""
    folds = [item for item in own if item.fold is not None]
    for item in folds:
        later = [
            other
            for other in folds
            if other.can_replace(item)
            # what a run of this disk is recorded in goes on there: another run's record is none of it
            and (item.uid not in here or other.uid == item.uid)
        ]
        if not later:
            continue
        newest = max(later, key=lambda other: other.record.created).record
        epochs, covered = wandb.epochs(item.record), wandb.epochs(newest)
        if epochs is None or covered is None or not epochs <= covered:
            alone.add(item.record.id, f"as not every epoch of theirs is seen to be in {newest.url}")
            continue
        why = (
            f"superseded by {newest.url}, which has all its epochs; its curves and pictures go with it, its "
            "models stay in the project"
        )
        yield RecordItem(f"record {item.record.name}", item.record.url, why, item.record, newest)

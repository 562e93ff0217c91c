"""`tracking.json`: what trackers must remember from one command of a run to the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from cellflow.config.tracking import TrackingConfig
from cellflow.storage.atomic import write_json
from cellflow.storage.records import dict_or_empty, read_json
from cellflow.storage.secrets import redact_tree
from cellflow.tracking.journal import locked
from cellflow.tracking.tracker import Links

__all__ = ["TrackingFile", "merge_links"]


class TrackingFile:
    """The file of a run that holds its uid, its settings and links to where it is tracked.

    Several processes may share it: reading and writing happens under a lock. All ids in trackers are made
    from the uid, which is drawn once, so that they come out the same in every process and after a resume.

    Parameters
    ----------
    path : Path
        File ``{"format", "version", "uid", "settings": TrackingConfig, "links"}``.
    """

    def __init__(self, path: Path):
        self._path = path

    def remember(self, config: TrackingConfig) -> str:
        """Keep settings for later commands, and give the run's uid."""
        settings = redact_tree(dataclasses.asdict(config))
        with self._locked():
            old = self._read()
            new = old | {"settings": settings}
            if new != old or not self._path.is_file():
                write_json(self._path, new)
        return str(new["uid"])

    def settings(self) -> TrackingConfig:
        """Settings that were remembered; the defaults where there are none."""
        known = {field.name: field.default for field in dataclasses.fields(TrackingConfig)}
        kept = self._read()["settings"]
        return TrackingConfig(**{name: kept.get(name, value) for name, value in known.items()})

    def links(self) -> Links:
        """Links from all processes and commands."""
        return dict(self._read()["links"])

    def add_links(self, links: Links) -> None:
        """Keep links beside those that are there."""
        if not links:
            return
        with self._locked():
            old = self._read()
            new = old | {"links": merge_links(old["links"], redact_tree(links))}
            if new != old:
                write_json(self._path, new)

    def _read(self) -> dict[str, Any]:
        """The content; a new one where the file is missing or damaged."""
        content = read_json(self._path) or {}
        uid = content.get("uid")
        parts = {name: dict_or_empty(content.get(name)) for name in ("settings", "links")}
        return {
            "format": "cellflow-tracking",
            "version": 1,
            "uid": uid if isinstance(uid, str) and uid else uuid4().hex[:12],
            **parts,
        }

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_name(".tracking.lock").open("a") as file, locked(file):
            yield


def merge_links(old: Links, new: Links) -> Links:
    """Links of both; the newer ones where they differ."""
    merged = dict(old)
    for name, link in new.items():
        there = merged.get(name)
        both = isinstance(there, dict) and isinstance(link, dict)
        merged[name] = {**there, **link} if both else link  # type: ignore[dict-item]
    return merged

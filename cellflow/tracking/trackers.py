"""All trackers of a run as one, which never stops a training."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from cellflow.config.tracking import TrackingConfig
from cellflow.storage.atomic import write_json
from cellflow.storage.plain_values import plain
from cellflow.storage.records import dict_or_empty, read_json
from cellflow.storage.run_folder import RunFolder
from cellflow.storage.secrets import redact, redact_tree
from cellflow.tracking.journal import Journal, locked
from cellflow.tracking.tracker import Links, Pictures, Tracker, TrackerUnavailableError

__all__ = ["NO_TRACKERS", "Trackers", "open_trackers", "reopen_trackers"]

_log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 30.0, 1800.0
"""Seconds after a failure in which a tracker is not asked for what comes often; doubled each time."""


def open_trackers(config: TrackingConfig, folder: Path, *, experiment: str) -> Trackers:
    """Trackers of a run, for a command that is told where to record.

    The settings are kept in the run folder (tracking.json), so that `reopen_trackers` records to the same
    places. Several processes may do this for one run at the same time.

    Parameters
    ----------
    config : TrackingConfig
        Where to record; the journal is always written.
    folder : Path
        Run folder.
    experiment : str
        Name of the run.

    Returns
    -------
    Trackers
        To be used as a context, or closed. A tracker that cannot be opened gives a warning and is left out.
    """
    run = RunFolder(folder)
    file = _TrackingFile(run.tracking)
    try:
        uid = file.remember(config)
    except OSError as error:
        _log.warning("nothing is tracked: %s cannot be written (%s)", run.tracking, error)
        return Trackers()
    makers = _makers(config, run, experiment=experiment, uid=uid)
    return Trackers(list(_opened(makers)), config=config, file=file)


def reopen_trackers(folder: Path, *, experiment: str) -> Trackers:
    """Trackers of a run, for a later command: they record to where its training did."""
    config = _TrackingFile(RunFolder(folder).tracking).settings()
    return open_trackers(config, folder, experiment=experiment)


class _TrackingFile:
    """``tracking.json``, ``{"format", "version", "uid", "settings", "links"}``: what the next command must know.

    Several processes may share it: reading and writing happens under a lock. All ids in trackers are made
    from the uid, which is drawn once, so that they come out the same in every process and after a resume.
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
            new = old | {"links": _merge_links(old["links"], redact_tree(links))}
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


def _merge_links(old: Links, new: Links) -> Links:
    """Links of both; the newer ones where they differ."""
    merged = dict(old)
    for name, link in new.items():
        there = merged.get(name)
        both = isinstance(there, dict) and isinstance(link, dict)
        merged[name] = {**there, **link} if both else link  # type: ignore[dict-item]
    return merged


@dataclass
class _Slot:
    """A tracker and how it fares."""

    tracker: Tracker
    failures: int = 0
    paused_until: float = 0.0
    left_out: bool = False

    def tell(self, what: str, tell: Callable[[Tracker], None], *, often: bool) -> None:
        """Let the tracker record something, unless it is left out or, for what comes often, pauses."""
        if self.left_out or (often and time.monotonic() < self.paused_until):
            return
        try:
            tell(self.tracker)
        except Exception as error:
            self._failed(what, error)
        else:
            self.paused_until = 0.0

    def _failed(self, what: str, error: Exception) -> None:
        self.left_out = isinstance(error, TrackerUnavailableError)
        pause = min(FIRST_PAUSE * 2.0**self.failures, LONGEST_PAUSE)
        self.failures += 1
        self.paused_until = time.monotonic() + pause
        level = logging.WARNING if self.failures == 1 else logging.DEBUG
        _log.log(level, "%s", _message(self.tracker, what, error))


def _message(tracker: Tracker, what: str, error: Exception) -> str:
    """What was not recorded, why, and what to do."""
    reason = _reason_of(error)
    if isinstance(error, TrackerUnavailableError):
        return f"{tracker.name} does not record {what}, nor what follows: {reason}."
    kind = type(error).__name__
    return (
        f"{tracker.name} did not record {what} ({kind}: {reason}). Training goes on and {tracker.name} "
        f"is tried again; {tracker.advice}. This is said once."
    )


def _reason_of(error: Exception) -> str:
    """What an error says, without secrets and final stop."""
    return redact(str(error).strip() or type(error).__name__).rstrip(".")


class Trackers:
    """Hands every event to each tracker; what one raises becomes a warning, once per tracker.

    A tracker that failed is asked again for everything that comes rarely, and after a pause for what comes
    with every epoch; one that says it is unavailable is left out. KeyboardInterrupt passes.

    Parameters
    ----------
    trackers : sequence of Tracker
        In the order in which they are asked; a later one sees the links of those before.
    config : TrackingConfig
        Comment and environment for all of them.
    file : _TrackingFile, optional
        Where links are kept.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker] = (),
        *,
        config: TrackingConfig | None = None,
        file: _TrackingFile | None = None,
    ):
        self._config, self._file = config or TrackingConfig(), file
        self._slots = [_Slot(tracker) for tracker in trackers]

    def __bool__(self) -> bool:
        """Whether there is anything to record to."""
        return bool(self._slots)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def takes_pictures(self) -> bool:
        """Whether it is worth drawing examples for `log_examples`."""
        return any(slot.tracker.takes_pictures and not slot.left_out for slot in self._slots)

    def start_fold(self, fold: int, start: Mapping[str, Any]) -> None:
        """A fold starts or goes on; see `Tracker.start_fold`. Comment and environment are filled in."""
        if not self._slots:
            return
        start = self._labelled(self._clean(start))
        self._tell(
            f"the start of fold {fold}",
            lambda tracker: tracker.start_fold(fold, start | {"trackers": self.links()}),
        )
        self._keep_links()

    def log_epoch(self, fold: int, row: Mapping[str, float]) -> None:
        """A row of the history; see `Tracker.log_epoch`."""
        what = f"epoch {row.get('epoch')} of fold {fold}"
        self._tell(what, lambda tracker: tracker.log_epoch(fold, row), often=True)

    def log_examples(self, fold: int, epoch: float, pictures: Pictures) -> None:
        """Pictures of an evaluation; see `Tracker.log_examples`."""
        what = f"pictures of epoch {epoch} of fold {fold}"
        self._tell(what, lambda tracker: tracker.log_examples(fold, epoch, pictures), often=True)

    def end_fold(self, fold: int, summary: Mapping[str, Any], model: Path) -> None:
        """A fold has ended; see `Tracker.end_fold`."""
        summary = self._clean(summary)
        self._tell(
            f"the end of fold {fold}", lambda tracker: tracker.end_fold(fold, summary, model)
        )
        self._keep_links()

    def update_run(self, metadata: Mapping[str, Any]) -> None:
        """The run has come further; see `Tracker.update_run`."""
        self._tell_all_of_run("the state of the run", metadata, lambda tracker: tracker.update_run)

    def fail(self, what: str, message: str) -> None:
        """Something went wrong for good; see `Tracker.fail`."""
        clean = redact(message)
        self._tell(f"the failure of {what}", lambda tracker: tracker.fail(what, clean))

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """The experiment is complete; see `Tracker.finish`."""
        self._tell_all_of_run("the end of the run", metadata, lambda tracker: tracker.finish)

    def close(self) -> None:
        """Let go of everything; nothing may be recorded afterwards."""
        self._tell("the end", lambda tracker: tracker.close())
        self._slots = []

    def links(self) -> Links:
        """Where people find this run, as metadata.json has them under trackers."""
        found = self._file.links() if self._file else {}
        for slot in self._slots:
            found = _merge_links(found, slot.tracker.links())
        return found

    def _tell(self, what: str, tell: Callable[[Tracker], None], *, often: bool = False) -> None:
        for slot in self._slots:
            slot.tell(what, tell, often=often)

    def _tell_all_of_run(
        self,
        what: str,
        metadata: Mapping[str, Any],
        method: Callable[[Tracker], Callable[[Mapping[str, Any]], None]],
    ) -> None:
        if not self._slots:
            return
        known = self._labelled(self._clean(metadata))
        self._tell(what, lambda tracker: method(tracker)(known | {"trackers": self.links()}))
        self._keep_links()

    def _labelled(self, values: dict[str, Any]) -> dict[str, Any]:
        """With the comment and the environment that people gave, else those that are there."""
        host = values.get("host")
        detected = host.get("environment") if isinstance(host, dict) else None
        config: dict[str, Any] = self._clean(
            {"comment": self._config.comment, "environment": self._config.environment}
        )
        return values | {
            "comment": config["comment"] or values.get("comment") or "",
            "environment": config["environment"] or values.get("environment") or detected or "",
        }

    def _clean(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Plain values without secrets."""
        clean: dict[str, Any] = redact_tree(plain(values))
        return clean

    def _keep_links(self) -> None:
        if self._file is None:
            return
        try:
            self._file.add_links(self.links())
        except OSError as error:
            _log.debug("links of trackers were not kept: %s", error)


NO_TRACKERS = Trackers()
"""Records nothing, at no cost."""


_Maker = tuple[str, Callable[[], Tracker]]


def _makers(
    config: TrackingConfig, run: RunFolder, *, experiment: str, uid: str
) -> Iterator[_Maker]:
    """Name of each wanted tracker and how it is made; packages are imported only then."""
    yield "journal", lambda: Journal(run.journal)
    if config.wandb:
        from cellflow.tracking.wandb_tracker import WandbTracker

        yield "wandb", lambda: WandbTracker(config, run.path, experiment=experiment, uid=uid)
    if config.sheet:
        from cellflow.tracking.sheet import SheetTracker

        target = config.sheet
        yield "sheet", lambda: SheetTracker(target, experiment=experiment, uid=uid)
    if config.slack:
        from cellflow.tracking.slack import SlackTracker

        yield "slack", lambda: SlackTracker(experiment)


def _opened(makers: Iterator[_Maker]) -> Iterator[Tracker]:
    for name, make in makers:
        try:
            yield make()
        except Exception as error:
            _log.warning(
                "%s records nothing: %s. The run goes on without.", name, _reason_of(error)
            )

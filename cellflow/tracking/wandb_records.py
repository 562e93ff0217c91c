"""Records that are in wandb: looked at, and removed, through its public Api.

`WandbTracker` makes them. Here nothing is decided: which may go is known to `cellflow.engine.runs.prune_wandb`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from cellflow.errors import CellflowError
from cellflow.storage.secrets import STARS, redact
from cellflow.tracking.wandb_tracker import has_credentials, is_reachable, unpatched

__all__ = ["WandbRecord", "WandbRecords"]

_MISSING = ("could not find project", "could not find run")
"""How wandb's Api says that something is not there; its errors have no other sign of it."""


class _MissingError(CellflowError):
    """What was asked for is not in wandb."""


@dataclass(frozen=True)
class WandbRecord:
    """A record as wandb has it at one moment; it is equal to a later look where nothing has changed.

    Attributes
    ----------
    project : str
        ENTITY/PROJECT.
    id, name, group, job_type : str
        As `WandbTracker` gave them, or a person has changed them since.
    state : str
        "running", "finished", "failed", "crashed"...
    user : str
        Who recorded it; empty where wandb does not say.
    created, heard : str
        When it was begun, and last written to; ISO 8601.
    tags : tuple of str
        Given by people: cellflow gives none.
    lines : int or None
        Rows of its history.
    url : str
        Its page.
    config, summary : mapping
        What was recorded under these names.
    """

    project: str
    id: str
    name: str
    group: str
    job_type: str
    state: str
    user: str
    created: str
    heard: str
    tags: tuple[str, ...]
    lines: int | None
    url: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]


class WandbRecords:
    """The records that a key may see.

    Raises
    ------
    CellflowError
        If there is no key, wandb does not accept it, or wandb cannot be reached.
    """

    def __init__(self) -> None:
        self._api: Any = None
        with unpatched():
            import wandb

            settings = wandb.setup().settings
        if not has_credentials(settings):
            raise CellflowError(
                "wandb wants a key, and there is none. Set WANDB_API_KEY, or type: wandb login; or leave out "
                "--wandb."
            )
        if not is_reachable(settings):
            raise CellflowError(
                f"wandb cannot be reached at {settings.base_url}. Check the network and repeat the command, or "
                "leave out --wandb."
            )
        with self._calls("sign in"):
            self._api = wandb.Api()
            self.user = str(self._api.viewer.username or "")

    def project(self, entity: str | None, name: str) -> str:
        """ENTITY/PROJECT, of the key's own entity where none is given."""
        if entity is None:
            with self._calls("ask for the key's entity"):
                entity = self._api.default_entity or self.user
        return f"{entity}/{name}"

    def list(self, project: str) -> list[WandbRecord]:
        """What a project holds of folds and experiments, oldest first; nothing where there is no such project."""
        options: dict[str, Any] = {"filters": {"jobType": {"$in": ["fold", "cv"]}}}
        if "lazy" in inspect.signature(self._api.runs).parameters:
            options["lazy"] = False  # else every config is a call of its own
        try:
            with self._calls(f"list the records of {project}"):
                return [_record(project, run) for run in self._api.runs(project, **options)]
        except _MissingError:
            return []

    def look(self, record: WandbRecord) -> WandbRecord | None:
        """The same record as it is now; None where it is gone."""
        try:
            with self._calls(f"look at {record.url}"):
                return _record(record.project, self._run(record))
        except _MissingError:
            return None

    def epochs(self, record: WandbRecord) -> frozenset[float] | None:
        """Every epoch of its history; None where wandb does not give all rows."""
        if record.lines is None:
            return None
        with self._calls(f"read the history of {record.url}"):
            asked = {"keys": ["epoch"], "samples": record.lines + 1, "pandas": False}
            rows = self._run(record).history(**asked)
        return frozenset(row["epoch"] for row in rows) if len(rows) >= record.lines else None

    def remove(self, record: WandbRecord, *, models: bool) -> None:
        """Remove a record, with the models that it logged or without."""
        with self._calls(f"remove {record.url}"):
            self._run(record).delete(delete_artifacts=models)

    def _run(self, record: WandbRecord) -> Any:
        self._api.flush()  # which else gives what it gave before
        return self._api.run(f"{record.project}/{record.id}")

    @contextmanager
    def _calls(self, what: str) -> Iterator[None]:
        """Turn what wandb raises into one error without the key.

        wandb makes a folder for every record that it lists, in WANDB_DIR: here one that goes again.
        """
        before = os.environ.get("WANDB_DIR")
        with unpatched(), TemporaryDirectory() as folder:
            os.environ["WANDB_DIR"] = folder
            try:
                yield
            except Exception as error:
                text = self._clean(error)
                kind = _MissingError if text.lower().startswith(_MISSING) else CellflowError
                raise kind(
                    f"Could not {what} in wandb: {text}. Check WANDB_API_KEY and the network, and repeat the "
                    "command."
                ) from None
            finally:
                del os.environ["WANDB_DIR"]
                if before is not None:
                    os.environ["WANDB_DIR"] = before

    def _clean(self, error: Exception) -> str:
        text = redact(str(error).strip() or type(error).__name__).rstrip(".")
        key = getattr(self._api, "api_key", None)  # also where it comes from netrc
        return text.replace(key, STARS) if key else text


def _record(project: str, run: Any) -> WandbRecord:
    user = getattr(run, "user", None)
    lines = getattr(run, "history_line_count", None)
    return WandbRecord(
        project=project,
        id=str(run.id),
        name=str(run.name or ""),
        group=str(getattr(run, "group", None) or ""),
        job_type=str(getattr(run, "job_type", None) or ""),
        state=str(run.state),
        user=str(getattr(user, "username", None) or ""),
        created=str(run.created_at),
        heard=str(getattr(run, "heartbeat_at", None) or ""),
        tags=tuple(getattr(run, "tags", None) or ()),
        lines=lines if isinstance(lines, int) else None,
        url=str(run.url),
        config=dict(run.config),
        summary=dict(run.summary_metrics),
    )

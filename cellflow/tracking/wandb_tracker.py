"""Weights & Biases: a wandb run per fold, and one for the experiment as a whole.

wandb cannot resume a run offline. A fold that goes on is then a second folder with the same id, and
``wandb sync RUN/wandb/offline-run-*`` uploads them in order of time into one (before wandb 0.30 that takes
--append). What joins them in charts is that the axis is our own epoch, not wandb's counter of steps.
Online the run goes on under its id. An epoch that was trained twice, because the first time was lost in a
kill, shows twice in wandb; events.jsonl knows which one counts.
"""

from __future__ import annotations

import logging
import netrc
import os
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cellflow.config.tracking import TrackingConfig
from cellflow.storage.plain_values import flatten, plain
from cellflow.storage.secrets import redact, without_private_facts
from cellflow.tracking.tracker import Links, Pictures, Tracker

__all__ = ["WandbTracker"]

_log = logging.getLogger(__name__)

_RUN = "run"
_SETTINGS = {
    "console": "off",
    "silent": True,
    "save_code": False,
    "disable_code": True,
    "disable_git": True,
    "symlink": False,
    "allow_val_change": True,
    "init_timeout": 60.0,
    "finish_timeout": 120.0,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
"""No patched console, no source code, nothing about the machine or its user, no endless waits.
What we know of the host and of the speed is in the config and in the history."""


class WandbTracker(Tracker):
    """Records in wandb, online or offline as wandb's own settings say.

    Where wandb is to be online but there are no credentials or no network, it records offline.

    Parameters
    ----------
    config : TrackingConfig
        Project and entity.
    folder : Path
        Run folder; files of wandb go to its folder wandb.
    experiment : str
        Name of the run; the group in wandb.
    uid : str
        What ids begin with; the same after a resume.
    """

    name = "wandb"
    advice = (
        "check WANDB_API_KEY and the network, or set WANDB_MODE=offline and upload with wandb sync"
    )
    takes_pictures = True

    def __init__(self, config: TrackingConfig, folder: Path, *, experiment: str, uid: str):
        self._config, self._folder, self._experiment = config, folder.resolve(), experiment
        self._uid = uid
        self._starts: dict[str, dict[str, Any]] = {}
        self._open: dict[str, Any] = {}
        self._links: dict[str, str] = {}
        self._offline = False
        with unpatched():
            import wandb
        self._wandb: Any = wandb

    def start_fold(self, fold: int, start: Mapping[str, Any]) -> None:
        """Open the wandb run of a fold, with the training's config."""
        config = dict(start.get("config") or {}) | _facts(start, _START_FACTS)
        self._starts[_key(fold)] = config | {"experiment": self._experiment, "fold": fold}
        self._run(_key(fold))

    def log_epoch(self, fold: int, row: Mapping[str, float]) -> None:
        """Log what was measured."""
        known = {name: value for name, value in row.items() if value == value}  # nan is not
        self._run(_key(fold)).log(known)

    def log_examples(self, fold: int, epoch: float, pictures: Pictures) -> None:
        """Log pictures with their ids."""
        images = {
            f"examples/{id}": self._wandb.Image(picture, caption=id)
            for id, picture in pictures.items()
        }
        self._run(_key(fold)).log({"epoch": epoch, **images})

    def end_fold(self, fold: int, summary: Mapping[str, Any], model: Path) -> None:
        """Log the best model, and close the wandb run of the fold."""
        run = self._run(_key(fold))
        run.summary.update(_numbers(plain(summary)))
        if model.is_file():
            run.log_artifact(self._artifact(fold, summary, model))
        self._finish(_key(fold), exit_code=0)

    def update_run(self, metadata: Mapping[str, Any]) -> None:
        """Cross-validation and thresholds, in the wandb run of the experiment."""
        self._starts[_RUN] = dict(metadata.get("config") or {}) | _facts(metadata, _FACTS)
        run = self._run(_RUN)
        run.config.update(self._starts[_RUN], allow_val_change=True)
        numbers = _numbers({"cv": metadata.get("cv") or {}})
        run.summary.update({"status": metadata.get("status")} | numbers)
        tables = {"thresholds": _threshold_rows(metadata), "folds": _fold_rows(metadata)}
        run.log({name: self._table(rows) for name, rows in tables.items() if rows})

    def fail(self, what: str, message: str) -> None:
        """Mark what is open, and the wandb run of the experiment, as failed."""
        self._run(_RUN)
        for key in list(self._open):
            self._open[key].summary["failed"] = f"{what}: {message}"
            self._finish(key, exit_code=1)

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """As `update_run`, and close the wandb run of the experiment."""
        self.update_run(metadata)
        self._finish(_RUN, exit_code=0)

    def close(self) -> None:
        """Close what is open: a fold is then an interrupted one."""
        for key in list(self._open):
            self._finish(key, exit_code=0 if key == _RUN else 1)

    def links(self) -> Links:
        """URL, or the folder inside the run folder, of every wandb run of this process."""
        return {"wandb": dict(self._links)} if self._links else {}

    def _run(self, key: str) -> Any:
        """The wandb run of a fold or of the experiment; opened where it is not."""
        if key not in self._open:
            self._open[key] = self._init(key)
            if link := self._link(self._open[key]):
                self._links[key] = link
        return self._open[key]

    def _init(self, key: str) -> Any:
        with unpatched():
            self._choose_mode()
            id = f"{self._uid}-{key}"
            try:
                run = self._init_run(key, id)
            except Exception as error:
                if self._offline:
                    raise
                reason = redact(f"{type(error).__name__}: {error}")
                self._go_offline(f"wandb refuses to record ({reason})")
                # in this process the id itself stays taken
                run = self._init_run(key, f"{id}-offline")
        run.define_metric("epoch")
        run.define_metric("*", step_metric="epoch")
        return run

    def _init_run(self, key: str, id: str) -> Any:
        config = self._starts.get(key, {})
        settings = _SETTINGS | {"host": config.get("environment") or "unknown"}
        for name in settings.keys() - self._wandb.Settings.model_fields:
            del settings[name]  # names that begin with x_ may change
        return self._wandb.init(
            project=self._config.wandb_project,
            entity=self._config.wandb_entity,
            dir=str(self._folder),
            id=id,
            name=f"{self._experiment} {key.replace('_', ' ')}".removesuffix(f" {_RUN}"),
            group=self._experiment,
            job_type="cv" if key == _RUN else "fold",
            notes=config.get("comment") or None,
            config=plain(config),
            mode="offline" if self._offline else None,
            resume="allow",
            reinit="create_new",
            settings=self._wandb.Settings(**settings),
        )

    def _choose_mode(self) -> None:
        """Never let wandb ask for a key: without one it records offline."""
        self._offline |= self._config.wandb_offline
        if self._offline:
            return
        settings = self._wandb.setup().settings
        if settings.mode in ("offline", "dryrun", "disabled"):
            self._offline = settings.mode != "disabled"
        elif not has_credentials(settings):
            self._go_offline("wandb has no credentials (WANDB_API_KEY, or wandb login)")
        elif not is_reachable(settings):
            self._go_offline(f"wandb cannot be reached at {settings.base_url}")

    def _go_offline(self, why: str) -> None:
        self._offline = True
        text = "%s: recording offline; upload later with: wandb sync %s"
        _log.warning(text, why, self._folder / "wandb" / "offline-run-*")

    def _link(self, run: Any) -> str | None:
        if run.disabled:
            return None
        if not self._offline:
            return str(run.url)
        return os.path.relpath(run.settings.sync_dir, self._folder).replace(os.sep, "/")

    def _artifact(self, fold: int, summary: Mapping[str, Any], model: Path) -> Any:
        name = re.sub(r"[^\w.-]", "-", f"{self._experiment}-fold_{fold}")[-128:]
        artifact = self._wandb.Artifact(name, type="model", metadata=plain(summary))
        # Not copied anywhere: the best model stays where it is.
        artifact.add_file(str(model), policy="immutable", skip_cache=True)
        return artifact

    def _table(self, rows: list[dict[str, Any]]) -> Any:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        data = [[row.get(name) for name in columns] for row in rows]
        return self._wandb.Table(columns=columns, data=data, allow_mixed_types=True)

    def _finish(self, key: str, exit_code: int) -> None:
        if (run := self._open.pop(key, None)) is not None:
            run.finish(exit_code=exit_code)


_TIMEOUT = 10.0
_QUIET = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}


def has_credentials(settings: Any) -> bool:
    """Whether wandb can log in without asking, from where it looks itself."""
    if settings.api_key or settings.identity_token_file or os.environ.get("WANDB_API_KEY"):
        return True
    places = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    hosts = {urlsplit(settings.base_url).hostname or "", "api.wandb.ai"}
    for place in filter(None, places):
        try:
            if hosts & netrc.netrc(Path(place).expanduser()).hosts.keys():
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def is_reachable(settings: Any) -> bool:
    """Whether the server of wandb answers at all; with proxies and time limit."""
    try:
        with urllib.request.urlopen(settings.base_url, timeout=_TIMEOUT):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError) as error:
        # A certificate that we do not trust: wandb may know better.
        return isinstance(getattr(error, "reason", None), ssl.SSLError)


@contextmanager
def unpatched() -> Iterator[None]:
    """Take back what wandb changes in the process: exit hooks, and variables that children would inherit."""
    leave, hook = sys.exit, sys.excepthook
    names = (*_QUIET, "WANDB_SERVICE")
    before = {name: os.environ.get(name) for name in names}
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        sys.exit, sys.excepthook = leave, hook
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old


_START_FACTS = (
    "training", "validation", "data_hash", "folds_hash", "environment", "host", "comment",
)  # fmt: skip
"""What of the start of a fold is config in wandb."""
_FACTS = (
    "experiment", "comment", "environment", "host", "versions", "data", "split", "policy",
    "config_hash", "debug",
)  # fmt: skip
"""What of metadata.json is config in wandb."""


def _facts(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Those of some values that are known, the host without what is private."""
    found = {name: values[name] for name in names if values.get(name) is not None}
    if isinstance(host := found.get("host"), Mapping):
        found["host"] = without_private_facts(host)
    return found


def _key(fold: int) -> str:
    return f"fold_{fold}"


def _threshold_rows(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for all types together and one per type."""
    thresholds = metadata.get("thresholds") or {}
    groups = {"all types": thresholds.get("all types"), **(thresholds.get("per_type") or {})}
    return [{"cell type": name} | plain(values) for name, values in groups.items() if values]


def _fold_rows(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per fold: its best model and its cross-validation."""
    folds = (metadata.get("model") or {}).get("folds") or []
    scores = (metadata.get("cv") or {}).get("per_fold") or {}
    return [plain({**item, **(scores.get(str(item.get("fold"))) or {})}) for item in folds]


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of nested values, by their paths."""
    return {name: value for name, value in flatten(values, "/") if value is not None}

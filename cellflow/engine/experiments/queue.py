"""Experiments one after the other, each in a process of its own, so that none takes the others with it."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cellflow.config import FoldsConfig, QueueConfig, check_config, config_to_dict
from cellflow.engine.experiments.chain import chain_problems
from cellflow.engine.experiments.experiment_file import Experiment, read_experiments
from cellflow.engine.runs.catalog import is_trained_now
from cellflow.engine.runs.state import overall_cv, run_state
from cellflow.errors import ConfigError
from cellflow.storage.atomic import write_json
from cellflow.storage.config_file import write_config_file
from cellflow.storage.hashing import hash_json
from cellflow.storage.locks import hold_lock, is_locked
from cellflow.storage.records import dict_or_empty, number_or_none, read_json
from cellflow.storage.run_folder import RunFolder, debug_name
from cellflow.types import one_line

__all__ = ["QueueResult", "run_queue"]

_log = logging.getLogger(__name__)

WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"
LOCK = ".lock"
PATIENCE_SECONDS = 120.0
"""How long a queue waits for a run that somebody else is training, such as what a killed queue left."""
MAX_NAMES = 5
"""Experiments that are named where all have one problem."""
LAST_LINES = 5
"""Lines of an experiment's output that are shown when it fails."""


@one_line
@dataclass(frozen=True)
class QueueResult:
    """How a queue ended.

    Attributes
    ----------
    table : pandas.DataFrame
        A row per experiment: name, status, cv_raw, cv_post (nan where there is none), minutes, run, log.
    """

    table: pd.DataFrame

    @property
    def failed(self) -> list[str]:
        """Names of experiments that failed."""
        return [str(name) for name in self.table.loc[self.table["status"] == FAILED, "name"]]


def run_queue(config: QueueConfig) -> QueueResult:
    """Run the experiments of a file. What is done is skipped, what was stopped goes on.

    An experiment that fails does not stop the others; the same command tries it again.

    Raises
    ------
    ConfigError
        If the file or any of its experiments does not fit, or their data, images, folds or start models
        cannot be used: nothing is started then, and all that is wrong is reported.
    RunError
        If the same queue is running already.

    Examples
    --------
    Two experiments, which are only checked and listed with ``dry_run``:

    >>> from pathlib import Path
    >>> from cellflow import QueueConfig, run_queue
    >>> file = Path("season.yaml")
    >>> _ = file.write_text("experiments: [{name: sgd, optimizer: sgd}, {name: adam, optimizer: adamw}]")
    >>> result = run_queue(QueueConfig(file, dry_run=True))
    >>> result.table[["name", "status"]]
       name   status
    0   sgd  waiting
    1  adam  waiting
    """
    check_config(config)
    experiments = read_experiments(config.file, debug=config.debug)
    folder = config.queues_dir / config.file.stem
    queue = _Queue(folder, experiments)
    _check_all(
        [item for item in experiments if config.again or not queue.is_done(item)], config.file
    )
    if config.dry_run:
        return QueueResult(queue.table())
    with hold_lock(folder / LOCK, f"Queue {folder}"):
        for place, experiment in enumerate(experiments, 1):
            where = f"{experiment.name} ({place} of {len(experiments)})"
            if queue.is_done(experiment) and not config.again:
                _log.info("%s is done", where)
                continue
            _log.info("%s starts", where)
            queue.run(experiment)
    return QueueResult(queue.table())


def _check_all(experiments: Sequence[Experiment], file: Path) -> None:
    """Check experiments before the first of them starts; what several of them share is reported once."""
    problems: dict[str, list[str]] = {}
    for experiment in experiments:
        for text in chain_problems(experiment.config):
            problems.setdefault(text, []).append(experiment.name)
    problems |= _split_problems(experiments)
    if not problems:
        return
    lines = [f"{file}: nothing was started, as some experiments would fail:"]
    for text, names in problems.items():
        shown = ", ".join(names[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")
        lines.append(f"  - {shown}: {text}".replace("\n", "\n    "))
    raise ConfigError("\n".join(lines))


def _split_problems(experiments: Sequence[Experiment]) -> dict[str, list[str]]:
    """Experiments on one dataset without folds that ask for another split than the first would make."""
    problems: dict[str, list[str]] = {}
    first: dict[Path, Experiment] = {}
    for experiment in experiments:
        data = experiment.config.train.data
        if experiment.config.train.debug or (data / "folds.csv").exists():
            continue
        maker = first.setdefault(data.resolve(), experiment)
        for name in ("k", "group", "calibration"):
            mine, theirs = (getattr(item.config, name) for item in (experiment, maker))
            theirs = getattr(FoldsConfig(), name) if theirs is None else theirs
            if mine is not None and mine != theirs:
                text = f"--{name} {mine}: {data} has no folds yet, and {maker.name} would make them otherwise"
                problems.setdefault(text, []).append(experiment.name)
    return problems


class _Queue:
    """States of experiments, kept in ``queue.json``."""

    def __init__(self, folder: Path, experiments: Sequence[Experiment]):
        self._folder, self._experiments = folder, experiments
        self._path = folder / "queue.json"
        self._states: dict[str, dict[str, Any]] = {}
        states = dict_or_empty(dict_or_empty(read_json(self._path)).get("experiments"))
        self._states = {name: state for name, state in states.items() if isinstance(state, dict)}

    def is_done(self, experiment: Experiment) -> bool:
        """Whether it was done with these very settings, and its run is still there."""
        state = self._states.get(experiment.name, {})
        same = state.get("config_hash") == _hash(experiment)
        return state.get("status") == DONE and same and _run(experiment).exists()

    def run(self, experiment: Experiment) -> None:
        """Run an experiment to its end, however it ends; an interruption of the queue stops it."""
        started = time.monotonic()
        before = number_or_none(self._states.get(experiment.name, {}).get("seconds")) or 0.0
        self._keep(experiment, RUNNING, before, "")
        status, message = STOPPED, ""
        try:
            _wait_for(_run(experiment))
            code, lines = _run_apart(experiment, self._settings(experiment), self._log(experiment))
            if code == 0:  # also where a --time_budget has ended before the training
                status = DONE if run_state(_run(experiment)).calibrated else STOPPED
            else:
                status, message = FAILED, "\n".join(lines)
        finally:
            seconds = before + time.monotonic() - started
            self._keep(experiment, status, seconds, message)
        if status == FAILED:
            _log.warning(
                "%s failed with exit code %d, see %s; the queue goes on. Its last lines:\n%s",
                experiment.name, code, self._log(experiment), message,
            )  # fmt: skip

    def table(self) -> pd.DataFrame:
        """A row per experiment."""
        table = pd.DataFrame([self._row(experiment) for experiment in self._experiments])
        for name in ("cv_raw", "cv_post", "minutes"):
            table[name] = pd.to_numeric(table[name])
        return table

    def _row(self, experiment: Experiment) -> dict[str, Any]:
        state, run = self._states.get(experiment.name, {}), _run(experiment)
        cv = overall_cv(run)
        status = str(state.get("status", WAITING))
        if status == DONE and not self.is_done(experiment):
            status = WAITING
        if status == RUNNING and not is_locked(self._folder / LOCK):
            status = STOPPED
        return {
            "name": experiment.name,
            "status": status,
            "cv_raw": cv.get("best_epoch"),
            "cv_post": cv.get("cross_fitted"),
            "minutes": state["seconds"] / 60 if "seconds" in state else None,
            "run": str(run.path),
            "log": str(self._log(experiment)),
        }

    def _settings(self, experiment: Experiment) -> Path:
        path = self._folder / f"{experiment.name}.yaml"
        write_config_file(path, "run", experiment.config)
        return path

    def _log(self, experiment: Experiment) -> Path:
        return self._folder / f"{experiment.name}.log"

    def _keep(self, experiment: Experiment, status: str, seconds: float, message: str) -> None:
        self._states[experiment.name] = {
            "status": status,
            "config_hash": _hash(experiment),
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "message": message,
        }
        write_json(self._path, {"format": "cellflow-queue", "experiments": self._states})


def _hash(experiment: Experiment) -> str:
    return hash_json(config_to_dict(experiment.config))


def _run(experiment: Experiment) -> RunFolder:
    training = experiment.config.train
    name = debug_name(training.name) if training.debug else training.name
    return RunFolder(training.runs_dir / name)


def _wait_for(run: RunFolder) -> None:
    """Give a process that was left behind by a kill the time to save and to end."""
    until = time.monotonic() + PATIENCE_SECONDS
    if _is_busy(run):
        _log.info("another process works on %s; waiting for it to end", run.path)
    while _is_busy(run) and time.monotonic() < until:
        time.sleep(0.5)


def _is_busy(run: RunFolder) -> bool:
    return is_locked(run.lock) or is_trained_now(run)


def _run_apart(experiment: Experiment, settings: Path, log: Path) -> tuple[int, list[str]]:
    """Run an experiment in a process of its own; its output goes to the log and to ours.

    Returns
    -------
    int
        Exit code.
    list of str
        Last lines of its output.
    """
    command = [sys.executable, "-m", "cellflow", "run", "--config", str(settings)]
    lines: list[str] = []
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C is ours to pass on, once
            preexec_fn=partial(_end_with, os.getpid()) if sys.platform == "linux" else None,
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                file.flush()
                lines = [*lines, line.rstrip()][-LAST_LINES:]
                _log.info("%s | %s", experiment.name, line.rstrip())
            return process.wait(), lines
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                file.writelines(process.stdout or [])  # what it says while it saves
                process.wait()


def _end_with(parent: int) -> None:
    """Ask Linux to send this process SIGTERM when its parent dies, by whatever cause."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:  # it has died already
        os.kill(os.getpid(), signal.SIGTERM)

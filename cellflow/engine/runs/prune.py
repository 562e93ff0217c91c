"""What is redundant in runs: shown first, removed when asked. Best models and tables always stay."""

from __future__ import annotations

import glob
import os
import re
import shutil
import stat
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from cellflow.config.catalog import PruneConfig
from cellflow.config.checks import check_config
from cellflow.engine.runs.catalog import find_runs, is_trained_now
from cellflow.engine.runs.prune_kaggle import DatasetItem, plan_datasets, remove_datasets
from cellflow.engine.runs.prune_remote import Remote
from cellflow.engine.runs.prune_wandb import (
    RecordItem,
    offline_records,
    plan_records,
    remove_records,
)
from cellflow.engine.runs.state import RunState, is_debug, run_state
from cellflow.errors import RunError
from cellflow.storage.locks import hold_lock, is_locked
from cellflow.storage.run_folder import RunFolder, find_run
from cellflow.types import one_line

__all__ = ["PrunePlan", "PruneResult", "Redundant", "plan_prune", "prune"]

LEFTOVER_SECONDS = 3600.0
"""A temporary file that nothing has written to for so long is taken for one that a killed process left."""

Kind = Literal["leftover", "state", "flows", "cache", "record", "debug"]

_LEFTOVER = re.compile(
    r"\.[0-9a-f]{8}\.tmp(\.[^.]+)?|\.(?P<target>.+)\.[0-9a-f]{8}\.(tmp|old|lock)"
)
_SAMPLE = re.compile(r"[0-9a-f]{32}\.npy|\.[0-9a-f]{8}\.tmp\.npy")
_NAMES: dict[Kind, re.Pattern[str]] = {
    "leftover": _LEFTOVER,
    "state": re.compile(r"(last|good)\.pt"),
    "flows": re.compile(r"flows\.zarr"),
    "cache": re.compile(r"cache"),
    "record": re.compile(r"offline-run-.+"),
    "debug": re.compile(r".+"),
}
"""What is removed must be called so, whatever a plan says."""


@dataclass(frozen=True)
class Redundant:
    """A file or folder that can go.

    Attributes
    ----------
    path : Path
        Where it lies.
    bytes : int
        Its size.
    why : str
        Why it is redundant, and what is lost with it.
    kind : {"leftover", "state", "flows", "cache", "record", "debug"}
        What it is. Of a cache only the samples go.
    root : Path
        Folder that it lies in, with no link on the way.
    run : Path or None
        Run that it belongs to; it must still be complete, and trained by no one, when it is removed.
    """

    path: Path
    bytes: int
    why: str
    kind: Kind
    root: Path
    run: Path | None = None


@one_line
@dataclass(frozen=True)
class PrunePlan:
    """What can go of this disk and, where it was asked for, elsewhere; and what is left alone and why."""

    items: tuple[Redundant, ...]
    kept: tuple[str, ...]
    remote: tuple[Remote, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of all that can go."""
        return sum(item.bytes for item in self.items)


@one_line
@dataclass(frozen=True)
class PruneResult:
    """What was removed from this disk and elsewhere, and what was not and why."""

    removed: tuple[Redundant, ...]
    kept: tuple[str, ...]
    remote: tuple[Remote, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of all that was removed."""
        return sum(item.bytes for item in self.removed)


def plan_prune(config: PruneConfig) -> PrunePlan:
    """Find what is redundant; nothing is changed.

    Runs that are being trained or not trained to their end, damaged ones, and links are left alone. Only with
    ``wandb`` or ``kaggle`` is anything asked on the network.

    Raises
    ------
    ConfigError, RunError
        If a run is named twice or unknown.
    CellflowError
        If wandb or Kaggle is to be asked and cannot be.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cellflow import plan_prune, PruneConfig
    >>> plan = plan_prune(PruneConfig(runs_dir=Path("no runs yet")))
    >>> plan.items, plan.bytes
    ((), 0)
    """
    check_config(config)
    everything = list(find_runs(config.runs_dir)) if config.runs_dir.is_dir() else []
    chosen = [find_run(name, config.runs_dir) for name in config.runs] or everything
    items: list[Redundant] = []
    kept: list[str] = []
    finished: list[RunState] = []
    for run in chosen:
        state = run_state(run)
        why_not = _why_not(run, state)
        if why_not:
            kept.append(f"{run.path} is left alone: {why_not}")
            continue
        found = list(_of_run(run, state, config))
        items += found
        if not any(item.kind == "debug" for item in found):  # with its run its data go too
            finished.append(state)
    if config.caches:
        items += _caches(finished, [*everything, *chosen], kept)
    for folder in (config.ensembles_dir, config.predictions_dir):
        items += _leftovers(folder, None)
    remote = _plan_remote(config, chosen, everything, kept)
    return PrunePlan(tuple(items), tuple(kept), remote)


def prune(plan: PrunePlan) -> PruneResult:
    """Remove what a plan lists. What has changed since in a way that matters is left alone.

    What is elsewhere goes first: files of the run may be all that says where it is. The folds of a run are
    locked while its files go, so no training can begin on it.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cellflow import PruneConfig, plan_prune, prune
    >>> prune(plan_prune(PruneConfig(runs_dir=Path("no runs yet")))).removed
    ()
    """
    removed: list[Redundant] = []
    kept: list[str] = []
    gone = _remove_remote(plan.remote, kept)
    for run, items in groupby(plan.items, key=lambda item: item.run):
        with ExitStack() as stack:
            try:
                if run is not None:
                    _hold(RunFolder(run), stack)
                for item in items:
                    _remove(item)
                    removed.append(item)
            except (OSError, RunError) as error:
                kept.append(str(error))
    return PruneResult(tuple(removed), tuple(kept), gone)


def _plan_remote(
    config: PruneConfig, chosen: list[RunFolder], everything: list[RunFolder], kept: list[str]
) -> tuple[Remote, ...]:
    """What can go beyond this disk, where that is asked for."""
    every = not config.runs
    items: list[Remote] = []
    if config.wandb:
        records, alone = plan_records(chosen, [*everything, *chosen], all_names=every)
        items += records
        kept += alone
    if config.kaggle:
        datasets, alone = plan_datasets(chosen, all_names=every)
        items += datasets
        kept += alone
    return tuple(items)


def _remove_remote(items: Sequence[Remote], kept: list[str]) -> tuple[Remote, ...]:
    records = remove_records([item for item in items if isinstance(item, RecordItem)], kept)
    datasets = remove_datasets([item for item in items if isinstance(item, DatasetItem)], kept)
    return (*records, *datasets)


def _why_not(run: RunFolder, state: RunState) -> str:
    """Why nothing of a run is touched; empty where it may be."""
    if run.path.is_symlink():
        return "it is a link; name the folder that it leads to"
    if state.problem:
        return state.problem
    if is_trained_now(run):
        return "it is being trained"
    left = [str(fold.fold) for fold in state.folds if not fold.complete]
    return f"fold {', '.join(left)} is not trained to its end" if left else ""


def _of_run(run: RunFolder, state: RunState, config: PruneConfig) -> Iterator[Redundant]:
    """What is redundant in a run whose folds are all complete."""
    root = run.path.resolve()
    run = RunFolder(root)
    if config.debug_runs and is_debug(state.record or {}):
        why = "a debug run, models and all"
        yield Redundant(root, _bytes(root), why, "debug", root.parent, root)
        return
    yield from _leftovers(root, root)
    if config.wandb and is_debug(state.record or {}):
        why = "recorded offline for wandb, of a debug run: `wandb sync` has nothing to upload without it"
        for path in filter(lambda path: _inside(path, root), offline_records(run)):
            yield Redundant(path, _bytes(path), why, "record", root, root)
    if config.states:
        why = "training state of a finished fold: without it the fold cannot be trained further, and need not be"
        for files in (run.fold(fold.fold) for fold in state.folds):
            for path in (files.last, files.good):
                if path.is_file() and zipfile.is_zipfile(files.best) and _inside(path, root):
                    yield Redundant(path, _bytes(path), why, "state", root, root)
    if config.flows and run.flows.is_dir() and _inside(run.flows, root):
        why = "out-of-fold flows: calibrate would need cellflow oof again"
        yield Redundant(run.flows, _bytes(run.flows), why, "flows", root, root)


def _leftovers(folder: Path, run: Path | None) -> Iterator[Redundant]:
    """Temporary files and folders of writes that were killed, in a folder and all below it."""
    root = folder.resolve()
    for place, folders, names in os.walk(root):
        here = Path(place)
        if run is None and is_locked(here / ".lock"):  # a prediction that is being written
            folders.clear()
            continue
        for name in [*folders, *names]:
            path = here / name
            if _is_leftover(path):
                why = "left by a write that was killed"
                yield Redundant(path, _bytes(path), why, "leftover", root, run)
        folders[:] = [name for name in folders if not _LEFTOVER.fullmatch(name)]


def _is_leftover(path: Path) -> bool:
    """Whether it is called so, nothing writes to it, and it is not the only copy of what it replaces."""
    found = _LEFTOVER.fullmatch(path.name)
    if found is None or path.is_symlink() or _newest(path) > time.time() - LEFTOVER_SECONDS:
        return False
    target = found["target"]
    return target is None or path.with_name(target).exists() or not _has_old(path, target)


def _has_old(path: Path, target: str) -> bool:
    """Whether a replacement was killed between its two renames, so that the old one has only this name."""
    return any(path.parent.glob(f".{glob.escape(target)}.????????.old"))


def _caches(
    states: Iterable[RunState], everything: Iterable[RunFolder], kept: list[str]
) -> Iterator[Redundant]:
    """Training samples of data that no run still trains on."""
    folders = {folder for state in states if (folder := _data(state)) is not None}
    busy: set[Path] = set()
    for run in everything:
        state = run_state(run)
        folder = _data(state)
        if folder is None:
            text = f"cached samples are left alone: what {run.path} trains on is not known"
            kept += [text] if folders else []
            return
        if not state.complete or is_trained_now(run):
            busy.add(folder)
    for folder in sorted(folders - busy):
        cache = folder / "cache"
        if not (folder / "dataset.json").is_file() or cache.is_symlink():
            continue
        size = sum(_bytes(path) for path in _samples(cache))
        if size:
            why = "cached training samples: computed again when needed"
            yield Redundant(cache, size, why, "cache", folder)


def _data(state: RunState) -> Path | None:
    return None if state.record is None else Path(state.record["data"]).resolve()


def _samples(cache: Path) -> list[Path]:
    """Files of a cache that are samples by their names."""
    files = (path for path in cache.glob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if _SAMPLE.fullmatch(path.name)]


def _hold(run: RunFolder, stack: ExitStack) -> None:
    """Lock all folds of a run, and make sure that it is still complete."""
    for fold in run.fold_folders():
        stack.enter_context(hold_lock(fold.lock, f"{run.path} is left alone: {fold.path.name}"))
    if not run_state(run).complete:
        raise RunError(f"{run.path} is left alone: it is not trained to its end any more")


def _remove(item: Redundant) -> None:
    """Remove one item, after a last look at it."""
    if not (_NAMES[item.kind].fullmatch(item.path.name) and _inside(item.path, item.root)):
        raise RunError(f"{item.path} is left alone: it is no {item.kind} in {item.root}")
    if item.kind == "cache":
        for path in _samples(item.path):
            path.unlink(missing_ok=True)
        if not any(item.path.iterdir()):
            item.path.rmdir()
    elif item.path.is_dir():
        shutil.rmtree(item.path)
    else:
        item.path.unlink(missing_ok=True)


def _inside(path: Path, root: Path) -> bool:
    """Whether a path lies below a folder, with no link on the way and none itself."""
    return path.resolve() == path and root in path.parents


def _bytes(path: Path) -> int:
    """Size of a file, or of all files in a folder; links count for nothing."""
    return sum(info.st_size for info in _infos(path) if stat.S_ISREG(info.st_mode))


def _newest(path: Path) -> float:
    """When a file, or anything in a folder, was last changed."""
    return max((info.st_mtime for info in _infos(path)), default=0.0)


def _infos(path: Path) -> Iterator[os.stat_result]:
    paths = [path]
    for place, folders, names in os.walk(path):
        paths += [Path(place, name) for name in [*folders, *names]]
    for item in paths:
        try:
            yield item.lstat()
        except OSError:  # gone meanwhile
            continue

"""Settings of `runs`, `compare` and `prune`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cellflow.config.checks import NOT_NEGATIVE, named_twice
from cellflow.config.metrics import MetricWord


@dataclass(frozen=True)
class RunsConfig:
    """List runs with their status, cross-validation score, date and comment.

    Examples
    --------
    >>> from cellflow import RunsConfig
    >>> from cellflow.config import check_config
    >>> check_config(RunsConfig(most=-1))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --most must not be negative, found -1
    """

    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    sort: Literal["date", "cv", "name"] = "date"
    """date: newest first. cv: best first, by the cross-fitted score, before calibration by the raw one."""
    most: Annotated[int, NOT_NEGATIVE] = 0
    """Show at most this many; 0: all."""


@dataclass(frozen=True)
class CompareConfig:
    """Compare two runs: what differs in their settings, and in their scores on the images both have.

    Examples
    --------
    >>> from cellflow import CompareConfig
    >>> from cellflow.config import check_config
    >>> check_config(CompareConfig("exp", "exp"))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: a run is compared with itself: exp
    """

    a: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="A")]
    """Run folder or name."""
    b: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="B")]
    """The other one; differences are B minus A."""
    metrics: tuple[MetricWord, ...] = ()
    """More metrics of the out-of-fold masks of both, or all, as for cellflow score, whose help says what each is."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    out: Path | None = None
    """CSV to write, a row per image."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        return [f"a run is compared with itself: {self.a}"] if self.a == self.b else []


@dataclass(frozen=True)
class PruneConfig:
    """Show what is redundant in runs, and with --yes remove it. Best models and tables of runs always stay.

    Examples
    --------
    >>> from cellflow import PruneConfig
    >>> config = PruneConfig(runs=("exp",), flows=True)
    >>> config.flows, config.yes  # nothing is removed yet
    (True, False)
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[RUN ...]")] = ()
    """Run folders or names; without any all of RUNS_DIR. Runs that are trained now, or not to their end, are
    left alone."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    ensembles_dir: Path = Path("ensembles")
    """Folder with calibrations of ensembles, for leftovers of writes that were killed."""
    predictions_dir: Path = Path("predictions")
    """Folder with results of predictions, for leftovers of such writes there."""
    yes: bool = False
    """Remove it; without this, nothing is removed."""
    states: bool = True
    """Training states (last.pt, good.pt) of finished folds, which are needed only to go on training."""
    caches: bool = True
    """Training samples beside the data, where no run of RUNS_DIR still trains on it. They are computed again
    when they are needed. Runs elsewhere that train on the same data now would fail."""
    flows: bool = False
    """Out-of-fold flows. cellflow calibrate needs them: it would take cellflow oof first."""
    debug_runs: bool = False
    """Whole runs that were made with --debug."""
    wandb: bool = False
    """Records in wandb too, in the projects that runs of RUNS_DIR were recorded in: those of debug runs, and those
    of folds that were recorded again later, with all their epochs. Needs WANDB_API_KEY."""
    kaggle: bool = False
    """Your datasets on Kaggle too: those that debug runs were published as, and those whose run was published
    again under another name. Needs a key of Kaggle."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        return named_twice(self.runs)

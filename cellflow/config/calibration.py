"""Settings of `calibrate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from cellflow.config.checks import COUNT, NOT_NEGATIVE, POSITIVE, SEED, named_twice
from cellflow.config.metrics import SelectMetric
from cellflow.config.shared import MAX_LOGIT, RuntimeConfig

MAX_SETTINGS = 200_000


@dataclass(frozen=True)
class GridConfig:
    """Thresholds that are tried, all with all.

    Examples
    --------
    >>> from cellflow import GridConfig
    >>> from cellflow.config import check_config
    >>> GridConfig(start_threshold=-1, threshold_step=0.5, n_thresholds=3).cellprob_thresholds
    (-1.0, -0.5, 0.0)
    >>> check_config(GridConfig(min_sizes=()))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --min_sizes needs at least one value
    """

    start_threshold: float = -3.0
    """First cellprob threshold."""
    threshold_step: Annotated[float, POSITIVE] = 0.5
    """Step between cellprob thresholds."""
    n_thresholds: Annotated[int, COUNT] = 13
    """Number of cellprob thresholds."""
    flow_thresholds: Annotated[tuple[float, ...], NOT_NEGATIVE] = (
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
        0.8,
        1.0,
        1.3,
        1.7,
        0.0,
    )
    """Flow thresholds; 0 is no check."""
    min_sizes: Annotated[tuple[int, ...], NOT_NEGATIVE] = (15, 25, 40, 60, 90, 130, 190, 280, 400)
    """Minimum sizes in pixels."""
    extras: bool = True
    """After that also try, one by one, a minimum of score_per_pixel, a maximum size, and hollow masks."""

    @property
    def cellprob_thresholds(self) -> tuple[float, ...]:
        """The cellprob thresholds."""
        places = range(self.n_thresholds)
        return tuple(round(self.start_threshold + self.threshold_step * at, 6) for at in places)

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = []
        rise = self.threshold_step * (self.n_thresholds - 1)
        ends = self.start_threshold, self.start_threshold + rise
        if not max(map(abs, ends)) <= MAX_LOGIT:
            found.append(
                "--start_threshold, --threshold_step and --n_thresholds must stay within "
                f"+-{MAX_LOGIT:g}, found {ends[0]:g} to {ends[1]:g}"
            )
        for name in ("flow_thresholds", "min_sizes"):
            if not getattr(self, name):
                found.append(f"--{name} needs at least one value")
        count = self.n_thresholds * len(self.flow_thresholds) * len(self.min_sizes)
        if count > MAX_SETTINGS:
            found.append(
                f"the grid may have {MAX_SETTINGS} settings, found {count}; make it coarser"
            )
        return found


@dataclass(frozen=True)
class CalibrateConfig:
    """Find thresholds per cell type from out-of-fold flows, with an honest score.

    Examples
    --------
    >>> from cellflow import CalibrateConfig
    >>> from cellflow.config import check_config
    >>> check_config(CalibrateConfig(runs=("exp", "exp")))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: a run is named twice: exp exp
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[RUN ...]")] = ()
    """Run folder or name; without it the newest run. Several runs of one split (other seeds): thresholds for
    their ensemble too, from the mean of their out-of-fold flows."""
    data: Annotated[Path | None, tyro.conf.arg(aliases=["--dir"])] = None
    """Dataset folder, when it is not where the run found it."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    ensembles_dir: Path = Path("ensembles")
    """Folder for thresholds of ensembles: ENSEMBLES_DIR/NAME/ensemble.json."""
    shrinkage: Annotated[float, NOT_NEGATIVE] = 10.0
    """How many images the optimum of all types counts for in that of one type; larger: small types are trusted less."""
    smoothing: Annotated[float, NOT_NEGATIVE] = 0.7
    """Width, in steps of the grid, of the smoothing of scores before their maximum is taken; 0 is none."""
    select_metric: SelectMetric = "competition"
    """What thresholds are to make best, as a mean over images: competition score; ap50, ap75: competition precision
    TP / (TP + FP + FN) at that IoU; f1_50, f1_75; pq; seg. Tables give the competition score all the same."""
    greedy: bool = False
    """Of several runs, keep in their ensemble only those that raise the score of its out-of-fold predictions: the best
    one, then whichever helps most, and so on. What this choice flatters is measured and said."""
    reserved: bool = True
    """Where images are reserved from all folds, fit the ensemble's thresholds on them (runs the network)."""
    seed: Annotated[int, SEED] = 0
    """Seed of the intervals."""
    unfinished: bool = False
    """Accept folds whose training has stopped before its last epoch."""
    grid: GridConfig = field(default_factory=GridConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = named_twice(self.runs)
        if self.greedy and len(self.runs) < 2:
            found.append(
                "--greedy chooses among runs of one split: name two or more, such as exp and exp_seed1"
            )
        return found

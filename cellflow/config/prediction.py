"""Settings of `oof`, `ensemble` and `demo`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from cellflow.config.checks import at_least_one, name_problems, positive, seed_problems
from cellflow.config.shared import MaskOverrides, RuntimeConfig


@dataclass(frozen=True)
class OofConfig:
    """Predict every image with the fold model that never saw it, and score it."""

    run: tyro.conf.Positional[str | None] = None
    """Run folder or name; without it the newest run."""
    data: Annotated[Path | None, tyro.conf.arg(aliases=["--dir"])] = None
    """Dataset folder, when it is not where the run found it."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    batch_size: int = 8
    """Tiles per network call."""
    unfinished: bool = False
    """Accept folds whose training has stopped before its last epoch, with their best model so far."""
    mask: MaskOverrides = field(default_factory=MaskOverrides)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        return at_least_one("batch_size", self.batch_size)


@dataclass(frozen=True)
class EnsembleConfig:
    """Average the flows of all fold models, then make masks once."""

    images: Path
    """Image, folder of images, or dataset folder."""
    runs: tyro.conf.Positional[tuple[str, ...]] = ()
    """Run folders or names; without any the newest run. All folds of all of them are members."""
    name: str | None = None
    """Name of the result; without it the names of the runs joined by +."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    out: Path = Path("predictions")
    """Folder for results: OUT/NAME/masks/ID.tif and OUT/NAME/submission.csv."""
    ensembles_dir: Path = Path("ensembles")
    """Folder for the record of members and thresholds: ENSEMBLES_DIR/NAME/ensemble.json."""
    diameter: float | None = None
    """Cell diameter in pixels; without it each member's mean training diameter."""
    batch_size: int = 8
    """Tiles per network call."""
    unfinished: bool = False
    """Accept folds whose training has stopped before its last epoch, with their best model so far."""
    overwrite: bool = False
    """Replace an earlier result of this name."""
    mask: MaskOverrides = field(default_factory=MaskOverrides)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = at_least_one("batch_size", self.batch_size)
        if self.diameter is not None:
            found += positive("diameter", self.diameter)
        return found + (name_problems(self.name) if self.name is not None else [])


@dataclass(frozen=True)
class DemoConfig:
    """The whole job on built-in images: prepare, folds, train, oof, ensemble, submission."""

    out: Path = Path("cellflow-demo")
    """Folder to write; an earlier demo there is replaced."""
    images: int = 24
    """Annotated images."""
    unseen: int = 6
    """Further images that no fold sees, for the ensemble."""
    n_epochs: int = 30
    """Epochs of each fold."""
    k: int = 3
    """Folds."""
    seed: int = 0
    """Seed of images and training."""
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = []
        if self.k < 2:
            found.append(f"--k must be at least 2, found {self.k}")
        found += at_least_one("unseen", self.unseen) + at_least_one("n_epochs", self.n_epochs)
        found += seed_problems(self.seed)
        if self.images % 2:
            found.append(f"--images must be even: they come in wells of two, found {self.images}")
        if self.images < 3 * self.k:
            found.append(
                f"--images must be at least 3 per fold, found {self.images} for {self.k} folds"
            )
        return found

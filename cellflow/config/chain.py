"""Settings of `run`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cellflow.config.checks import listed_paths
from cellflow.config.prediction import FilesConfig
from cellflow.config.publishing import MAX_TITLE
from cellflow.config.training import TrainConfig


@dataclass(frozen=True)
class ChainConfig:
    """The whole chain for one experiment: folds, train all, oof, calibrate, ensemble.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cellflow import ChainConfig, TrainConfig
    >>> from cellflow.config import check_config
    >>> config = ChainConfig(images=Path("new"), train=TrainConfig(name="sgd"))
    >>> config.images[0].name, config.train.name
    ('new', 'sgd')
    >>> check_config(ChainConfig(train=TrainConfig(fold=("0",))))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: cellflow run trains all folds; for one fold use cellflow train --fold
    """

    images: tuple[Path, ...] = ()
    """Images for the ensemble at the end, as cellflow predict takes them; without any the chain ends with
    the calibration."""
    k: int | None = None
    """Number of folds; without it as many as folds.csv has, or 5 where the dataset has none yet."""
    group: str | None = None
    """Column of what must not be split over folds; without it as folds.csv was made, or see cellflow folds."""
    calibration: float | None = None
    """Share of the images reserved from all folds for thresholds of the ensemble; without it as in folds.csv,
    or none."""
    policy: Literal["auto", "dataset", "type", "image"] = "auto"
    """Where diameters come from, see cellflow oof."""
    tta: bool = False
    """Flip images at the end, see cellflow ensemble."""
    predictions_dir: Path = Path("predictions")
    """Folder for results of the ensemble."""
    ensembles_dir: Path = Path("ensembles")
    """Folder for thresholds of the ensemble."""
    publish: Literal["no", "kaggle"] = "no"
    """Publish the run at the end, see cellflow publish; a debug run only lists what would go."""
    notebook: bool = False
    """Write a notebook for Kaggle at the end, RUN/NAME-kaggle.ipynb, see cellflow kaggle-notebook."""
    files: FilesConfig = field(default_factory=FilesConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        listed_paths(self, "images")

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = []
        if self.train.fold != ("all",):
            found.append("cellflow run trains all folds; for one fold use cellflow train --fold")
        if self.train.dry_run:
            found.append("--dry_run is for cellflow train; cellflow run has no plan of its own")
        longest = MAX_TITLE - len("-debug_0.1234")
        if self.publish != "no" and len(self.train.name) > longest:
            found.append(
                f"--name may have {longest} characters where the run is published, as Kaggle takes "
                f"{MAX_TITLE} with the score; found {len(self.train.name)}: {self.train.name}"
            )
        return found

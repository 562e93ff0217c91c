"""Settings of `pseudo` and `distil`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from cellflow.config.checks import (
    COUNT,
    FOLDER_NAME,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    Rule,
    listed_paths,
)
from cellflow.config.prediction import NO_IMAGES, FilesConfig
from cellflow.config.shared import MaskOverrides, RuntimeConfig

PART = Rule("must lie between 0 and 1", lambda value: 0 <= value <= 1)


@dataclass(frozen=True, kw_only=True)
class PseudoConfig:
    """Let models label images without annotation, for a further training to learn from.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cellflow import PseudoConfig
    >>> from cellflow.config import check_config
    >>> check_config(PseudoConfig(runs=("exp",), images=(Path("new"),), min_agreement=1.5))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --min_agreement must lie between 0 and 1, found 1.5
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[RUN ...]")] = ()
    """Runs by name or folder, all of one split; without any the newest. What a fold is to learn from is labelled by the
    models of that fold alone, one a run: the others have seen the images that it validates on."""
    images: tuple[Path, ...]
    """Images, folders of images, datasets, patterns in quotes (`'a/*.tif'`), or text files with one path a line. Those
    of the runs' dataset, in whatever form, are left out."""
    name: Annotated[str | None, FOLDER_NAME] = None
    """Name of the round; without it round1, or the next number that is free."""
    out: Path = Path("pseudo")
    """Folder for rounds: OUT/NAME/fold_0/labels/ and others."""
    overwrite: bool = False
    """Replace an earlier round of this name."""
    min_confidence: Annotated[float, PART] = 0.6
    """Cells of lower confidence (0 to 1, as in cells.csv of a prediction) are ignored, as if they were not there to be
    seen: neither cell nor background."""
    min_agreement: Annotated[float, PART] = 0.7
    """The same for cells that flipped views and runs see less alike: mean over them of the largest IoU."""
    max_disagreement: Annotated[float, NOT_NEGATIVE] = 0.5
    """Pixels where flows of views and runs are further apart are ignored; in unit flows, 1 is everywhere."""
    data: Annotated[Path | None, tyro.conf.arg(aliases=["--dir"])] = None
    """Dataset folder, when it is not where the run found it."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    unfinished: bool = False
    """Also take folds whose training has stopped before its last epoch, with their best model so far."""
    batch_size: Annotated[int, COUNT] = 8
    """Tiles per network call."""
    mask: MaskOverrides = field(default_factory=MaskOverrides)
    files: FilesConfig = field(default_factory=FilesConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        listed_paths(self, "images")

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        return [] if self.images else [NO_IMAGES]


@dataclass(frozen=True, kw_only=True)
class DistilConfig:
    """Train one network on the averaged flows of several.

    Examples
    --------
    >>> from cellflow import DistilConfig
    >>> from cellflow.config import check_config
    >>> check_config(DistilConfig(runs=("exp", "second"), name="exp"))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --name exp is one of the runs that teach; the student needs a name of its own
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[RUN ...]")] = ()
    """Runs that teach, by name or folder, all of one split; without any the newest. Each fold is taught by the models
    of that fold alone, one a run, at four flips: the others have seen the images that it validates on."""
    images: tuple[Path, ...] = ()
    """Images without annotation to learn from as well: folders, files, patterns in quotes, or text files with one path
    a line."""
    name: Annotated[str, FOLDER_NAME] = "student"
    """Name of the student's run, and of its targets; with --final NAME-final."""
    final: bool = False
    """Train one network on all images, taught by all folds of all runs, as run NAME-final. It is for new images only:
    no score on the dataset is honest, and none is made; the students of each fold, NAME, vouch for it if there are
    any."""
    out: Path = Path("distilled")
    """Folder for targets: OUT/NAME/fold_0/flows.zarr and others."""
    overwrite: bool = False
    """Replace earlier targets of this name."""
    n_epochs: Annotated[int | None, COUNT] = None
    """Epochs of the student; without it as many as its first teacher's. All other settings are those of that run."""
    pretrained_model: Annotated[str | None, tyro.conf.arg(aliases=["--init"])] = None
    """Model to start from, as in `train`; none: from new weights. Without it the first run's model of that fold. From a
    model the learning rate is a fifth of the first run's, unless that started from one itself."""
    seed: Annotated[int | None, SEED] = None
    """Seed of the student; without it that of its first teacher."""
    pseudo_weight: Annotated[float, POSITIVE] = 0.5
    """How often images without annotation are drawn, all of them together, for each time that annotated ones are."""
    time_budget: str | None = None
    """Time for the training, such as 8h; the same command goes on."""
    data: Annotated[Path | None, tyro.conf.arg(aliases=["--dir"])] = None
    """Dataset folder, when it is not where the run found it."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    unfinished: bool = False
    """Also take folds whose training has stopped before its last epoch, with their best model so far."""
    batch_size: Annotated[int, COUNT] = 8
    """Tiles per network call."""
    files: FilesConfig = field(default_factory=FilesConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        listed_paths(self, "images")

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        own = f"{self.name.removesuffix('-final')}-final" if self.final else self.name
        if any(Path(run).name == own for run in self.runs):
            return [
                f"--name {self.name} is one of the runs that teach; the student needs a name of its own"
            ]
        return []

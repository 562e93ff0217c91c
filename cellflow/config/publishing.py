"""Settings of `publish` and `kaggle-notebook`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cellflow.config.prediction import InferenceConfig
from cellflow.config.shared import MaskOverrides

MAX_TITLE = 50
"""Characters that Kaggle takes in the name of a dataset."""
COMPETITION = "sartorius-cell-instance-segmentation"


@dataclass(frozen=True)
class PublishConfig:
    """Publish a run, or prepared data with its folds, as a private dataset on Kaggle.

    This needs the package kaggle, and an API key in the environment or in ~/.kaggle.

    Examples
    --------
    >>> from cellflow import PublishConfig
    >>> from cellflow.config import check_config
    >>> check_config(PublishConfig(title="mine"))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --title must have 6 to 50 characters, as Kaggle wants it, found 'mine'
    """

    what: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[WHAT]")] = None
    """Run by name or folder, or a dataset folder; without it the newest run."""
    title: str | None = None
    """Name of the dataset. Without it EXPERIMENT_CV such as exp_0.3124, for data the name of its folder. If
    a dataset of this name is there, it gets a new version; another CV makes another dataset."""
    owner: str | None = None
    """Kaggle user or organisation that owns the dataset; without it the owner of the API key, which the package
    kaggle looks for in the environment and in ~/.kaggle."""
    public: bool = False
    """Everybody may see it."""
    unfinished: bool = False
    """Accept a run with missing folds, and folds whose training has stopped before its last epoch, with
    their best model so far."""
    state: bool = False
    """Also the full training state, last.pt, so that training can go on elsewhere."""
    flows: bool = False
    """Also the out-of-fold flows, oof/flows.zarr."""
    wheels: Literal["missing", "all", "none"] = "missing"
    """Python wheels for notebooks without internet. missing: all that cellflow needs but torch and what only torch
    needs, which Kaggle has. all: those too. none: no wheels."""
    wheels_python: str | None = None
    """Python of the notebooks, such as 3.12, where it is not this one; such wheels are downloaded."""
    message: str = ""
    """What is new in this version; without it the title and cellflow's version."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    ensembles_dir: Path = Path("ensembles")
    """Folder with calibrations of ensembles."""
    dry_run: bool = False
    """Send nothing: list what would go."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = []
        if self.title is not None and not 6 <= len(self.title.strip()) <= MAX_TITLE:
            found.append(
                f"--title must have 6 to {MAX_TITLE} characters, as Kaggle wants it, found {self.title!r}"
            )
        if self.owner is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", self.owner):
            found.append(f"--owner is the name in the owner's Kaggle address, found {self.owner!r}")
        if self.wheels_python is not None:
            if not re.fullmatch(r"3\.\d+", self.wheels_python):
                found.append(
                    f"--wheels_python is a version such as 3.12, found {self.wheels_python!r}"
                )
            if self.wheels == "none":
                found.append("--wheels_python needs wheels: leave out --wheels none")
        return found


@dataclass(frozen=True)
class NotebookConfig:
    """Write a Kaggle notebook that segments test images with a published run, without internet.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cellflow import NotebookConfig
    >>> from cellflow.config import check_config
    >>> check_config(NotebookConfig("exp", out=Path("exp.py")))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --out is a file that ends in .ipynb, found 'exp.py'
    """

    run: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[RUN]")] = None
    """Run by name or folder; without it the newest run."""
    images: str = f"{COMPETITION}/test"
    """Folder of images below /kaggle/input, as Kaggle shows it."""
    out: Path | None = None
    """File to write; without it RUN-kaggle.ipynb here."""
    overwrite: bool = False
    """Replace a file of other content."""
    unfinished: bool = False
    """Accept a run with missing folds, and folds whose training has stopped before its last epoch, with
    their best model so far."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    mask: MaskOverrides = field(default_factory=MaskOverrides)

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = []
        path = Path(self.images)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            found.append(
                f"--images is a folder below /kaggle/input such as {COMPETITION}/test, found "
                f"{self.images!r}"
            )
        if self.out is not None and self.out.suffix != ".ipynb":
            found.append(f"--out is a file that ends in .ipynb, found {str(self.out)!r}")
        return found

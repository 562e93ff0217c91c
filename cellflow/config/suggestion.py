"""Settings of `suggest`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from cellflow.config.checks import COUNT, FOLDER_NAME, POSITIVE, listed_paths
from cellflow.config.prediction import NO_IMAGES, FilesConfig
from cellflow.config.shared import RuntimeConfig


@dataclass(frozen=True, kw_only=True)
class SuggestConfig:
    """Choose from images without annotation those to annotate next, by what they would teach.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cellflow import SuggestConfig
    >>> config = SuggestConfig(run="exp", images=(Path("new"),), n=50)
    >>> config.out.name, config.n
    ('suggestions', 50)
    """

    run: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[RUN]")] = None
    """Run by name or folder, archive or model file; without it the newest run. All folds look at the images."""
    images: tuple[Path, ...]
    """Images, folders of images, datasets, patterns in quotes (`'a/*.tif'`), or text files with one path a line."""
    n: Annotated[int, COUNT] = 20
    """Images to suggest. The first ones are the same whatever this number is."""
    data: Annotated[Path | None, tyro.conf.arg(aliases=["--dir"])] = None
    """Dataset folder with what is annotated already, when it is not where the run found it."""
    name: Annotated[str | None, FOLDER_NAME] = None
    """Name of the result; without it that of the run."""
    out: Path = Path("suggestions")
    """Folder for results: OUT/NAME/suggest.html, OUT/NAME/suggest.csv and others."""
    overwrite: bool = False
    """Replace an earlier result of this name."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    unfinished: bool = False
    """Also take folds whose training has stopped before its last epoch, with their best model so far."""
    diameter: Annotated[float | None, POSITIVE] = None
    """Cell diameter in pixels; without it what the run's diameter policy says."""
    batch_size: Annotated[int, COUNT] = 8
    """Tiles per network call."""
    files: FilesConfig = field(default_factory=FilesConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        listed_paths(self, "images")

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        return [] if self.images else [NO_IMAGES]

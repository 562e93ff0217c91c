"""Settings of the commands that make pages to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cellflow.config.checks import COUNT, SEED

__all__ = ["EdaConfig"]


@dataclass(frozen=True)
class EdaConfig:
    """A first look at a dataset before training, as one page: its images, cells, folds, faults, and what to do.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cellflow import EdaConfig
    >>> EdaConfig(Path("cellflow-data")).page.as_posix()
    'cellflow-data/eda.html'
    """

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="[DATA]")] = Path(
        "cellflow-data"
    )
    """Dataset folder made by `cellflow prepare`."""
    out: Path | None = None
    """Page to write, ends in .html; without it DATA/eda.html."""
    samples: Annotated[int, COUNT] = 24
    """Images that are shown with their cells, shared evenly by the cell types."""
    seed: Annotated[int, SEED] = 0
    """Seed of the choice of images that are shown."""

    @property
    def page(self) -> Path:
        """The page that is written."""
        return self.out if self.out is not None else self.data / "eda.html"

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        if self.page.suffix.lower() not in (".html", ".htm"):
            return [f"--out must end in .html, found {self.page.name}"]
        return []

"""Settings of `report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cellflow.config.checks import POSITIVE, named_twice


@dataclass(frozen=True)
class ReportConfig:
    """Write an HTML page that shows a run, at any moment, or several runs side by side.

    Examples
    --------
    >>> from cellflow import ReportConfig
    >>> from cellflow.config import check_config
    >>> check_config(ReportConfig(("a", "b"), watch=True))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --watch takes one run, found 2
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[RUN ...]")] = ()
    """Run folders or names; without any the newest run. Of several, each is compared with the first."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    data: Annotated[Path | None, tyro.conf.arg(aliases=["--dir"])] = None
    """Dataset folder of the run, when it is not where the run found it."""
    ensembles_dir: Path | None = None
    """Folder with calibrations of ensembles; without it ensembles beside RUNS_DIR."""
    predictions_dir: Path | None = None
    """Folder with results of predictions; without it predictions beside RUNS_DIR."""
    out: Path | None = None
    """File to write, ends in .html; without it report.html in the folder of the run, or compare-A-B.html in
    that of all runs."""
    watch: bool = False
    """Write the page again whenever something has changed, until the training has ended or Ctrl-C. A run
    that is not there yet is waited for."""
    interval: Annotated[float, POSITIVE] = 10.0
    """Seconds between two looks of --watch, after which an open page also loads itself again."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = named_twice(self.runs)
        if self.watch and len(self.runs) > 1:
            found.append(f"--watch takes one run, found {len(self.runs)}")
        if self.out is not None and self.out.suffix.lower() not in (".html", ".htm"):
            found.append(f"--out must end in .html, found {str(self.out)!r}")
        return found

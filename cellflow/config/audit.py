"""Settings of `audit`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cellflow.config.checks import NOT_NEGATIVE, SHARE


@dataclass(frozen=True)
class AuditConfig:
    """Rank annotations that are probably wrong, by out-of-fold predictions, on a page to mark them.

    Examples
    --------
    >>> from cellflow import AuditConfig
    >>> from cellflow.config import check_config
    >>> check_config(AuditConfig(n=-1))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --n must not be negative, found -1
    """

    run: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[RUN]")] = None
    """Run folder or name, with out-of-fold predictions; without it the newest run."""
    runs_dir: Path = Path("runs")
    """Folder that holds all runs."""
    data: Annotated[Path | None, tyro.conf.arg(aliases=["--dir"])] = None
    """Dataset folder of the run, when it is not where the run found it."""
    n: Annotated[int, NOT_NEGATIVE] = 200
    """The page shows this many, the most suspicious first; the table has all."""
    least: Annotated[float, SHARE] = 0.1
    """Suspicions below this, from 0 to 1, are left out."""
    out: Path | None = None
    """Folder for audit.html and audit.csv; without it that of the run."""

"""Settings of `queue`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class QueueConfig:
    """Run a file of experiments one after the other; the same command again goes on.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cellflow import QueueConfig
    >>> QueueConfig(Path("season.yaml"), dry_run=True).queues_dir.name
    'queues'
    """

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """YAML with experiments (a list) or grid (lists of values), and defaults for all of them; settings are
    those of cellflow run, by the names of their flags."""
    queues_dir: Path = Path("queues")
    """Folder for settings, logs and states: QUEUES_DIR/NAME_OF_FILE/EXPERIMENT.yaml, EXPERIMENT.log, queue.json."""
    debug: bool = False
    """Run all of them as debug runs: few images, few steps, no upload."""
    again: bool = False
    """Also repeat experiments that are done; every step then finds its earlier results."""
    dry_run: bool = False
    """Run nothing: show the experiments and how far each one is."""

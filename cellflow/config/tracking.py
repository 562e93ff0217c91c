"""Settings of where experiments are recorded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from cellflow.config.checks import NOT_EMPTY

_NOT_IN_PROJECTS = set("/\\#?%:")
"""What wandb does not take in the name of a project."""


@dataclass(frozen=True)
class TrackingConfig:
    """Where a run records itself, besides its own folder.

    Examples
    --------
    >>> from cellflow import TrackingConfig
    >>> from cellflow.config import check_config
    >>> check_config(TrackingConfig(wandb_offline=True))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --wandb_offline needs --wandb
    """

    wandb: bool = False
    """Record in Weights & Biases: settings, losses, scores, example pictures, thresholds, best models. With
    WANDB_MODE=offline, or where wandb cannot be reached, into RUN/wandb, for `wandb sync` later."""
    wandb_project: str = "cellflow"
    """Project in wandb."""
    wandb_offline: bool = False
    """Record for wandb in RUN/wandb only, whatever WANDB_MODE says; `wandb sync` uploads it."""
    wandb_entity: Annotated[str | None, NOT_EMPTY] = None
    """User or team in wandb; without it the account's own."""
    sheet: Annotated[str | None, NOT_EMPTY] = None
    """URL or name of a Google Sheet that gets a row per fold and one per run. Credentials come from
    GOOGLE_APPLICATION_CREDENTIALS or from gspread's own places."""
    slack: bool = False
    """Tell Slack when a run ends or fails; the webhook comes from SLACK_WEBHOOK_URL."""
    comment: str = ""
    """What the experiment is about, for every record."""
    environment: Annotated[str | None, NOT_EMPTY] = None
    """What the host is called in records; without it what was detected."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        found = []
        project = self.wandb_project
        if not project.strip() or len(project) > 128 or _NOT_IN_PROJECTS & set(project):
            found.append(
                "--wandb_project must have 1 to 128 characters and none of / \\ # ? % :, "
                f"found {project!r}"
            )
        if self.wandb_offline and not self.wandb:
            found.append("--wandb_offline needs --wandb")
        if self.sheet and "://" in self.sheet and not _holds_key(self.sheet):
            found.append(
                "--sheet must be the name of a Google Sheet, or a URL such as "
                f"https://docs.google.com/spreadsheets/d/KEY/edit, found {self.sheet!r}"
            )
        return found


def _holds_key(url: str) -> bool:
    """Whether a URL names a sheet, by the rules of gspread."""
    return re.search(r"/spreadsheets/d/[\w-]+|[?&]key=[^&#]+", url) is not None

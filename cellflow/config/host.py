"""Settings of `checks`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ChecksConfig:
    """Show what cellflow finds here: versions, device, host, folders, optional parts.

    Examples
    --------
    >>> from cellflow import ChecksConfig
    >>> from cellflow.config import check_config
    >>> check_config(ChecksConfig(json=True, report=True))
    Traceback (most recent call last):
        ...
    cellflow.errors.ConfigError: --json and --report exclude each other; give one of them
    """

    json: bool = False
    """Print JSON instead of a table."""
    report: bool = False
    """Print one text to paste into an issue: the same and the versions of all packages, without names of files,
    folders, people and hosts, and without values of variables that could be secret."""

    def problems(self) -> list[str]:
        """What does not make sense, one sentence each."""
        both = self.json and self.report
        return ["--json and --report exclude each other; give one of them"] if both else []

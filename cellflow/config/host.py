"""Settings of `checks`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ChecksConfig:
    """Show what cellflow finds here: versions, device, host, folders, optional parts.

    Examples
    --------
    >>> from cellflow import ChecksConfig
    >>> ChecksConfig(json=True)
    ChecksConfig(json=True)
    """

    json: bool = False
    """Print JSON instead of a table."""

"""Settings of `checks`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ChecksConfig:
    """Show what cellflow finds here: versions, device, host, folders, optional parts."""

    json: bool = False
    """Print JSON instead of a table."""

"""What is redundant in runs, as `cellflow prune` prints it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellflow.storage.sizes import size_text

__all__ = ["prune_text", "removed_text"]


def prune_text(items: Sequence[Any], kept: Sequence[str]) -> str:
    """What can go, with its size and why, and what is left alone."""
    lines = [f"{size_text(item.bytes):>10}  {item.path}  ({item.why})" for item in items]
    lines.append(f"{size_text(sum(item.bytes for item in items)):>10}  in all")
    return "\n".join([*lines, *kept])


def removed_text(size: int, kept: Sequence[str]) -> str:
    """What could not go, and how many bytes are gone."""
    return "\n".join([*kept, f"Removed: {size_text(size)}"])

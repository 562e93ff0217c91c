"""What is redundant in runs, as `cellflow prune` prints it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cellflow.storage.sizes import plural, size_text

__all__ = ["prune_text", "removed_text"]


class Item(Protocol):
    """Something that can go."""

    @property
    def path(self) -> Path: ...
    @property
    def bytes(self) -> int: ...
    @property
    def why(self) -> str: ...


class Remote(Protocol):
    """Something elsewhere that can go."""

    @property
    def what(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def why(self) -> str: ...


def prune_text(items: Sequence[Item], kept: Sequence[str], remote: Sequence[Remote] = ()) -> str:
    """What can go, with its size and why, and what is left alone."""
    lines = [f"{size_text(item.bytes):>10}  {item.path}  ({item.why})" for item in items]
    lines.append(f"{size_text(sum(item.bytes for item in items)):>10}  in all")
    lines += [f"{'elsewhere':>10}  {item.what}, {item.url}  ({item.why})" for item in remote]
    return "\n".join([*lines, *kept])


def removed_text(size: int, kept: Sequence[str], remote: Sequence[Remote] = ()) -> str:
    """What could not go, and how much is gone."""
    there = [f"Removed elsewhere: {plural(len(remote), 'item')}"] if remote else []
    return "\n".join([*kept, f"Removed: {size_text(size)}", *there])

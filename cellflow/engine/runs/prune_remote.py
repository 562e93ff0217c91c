"""What can go beyond this disk."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from cellflow.storage.sizes import few_text

__all__ = ["LeftAlone", "Remote"]


@dataclass(frozen=True)
class Remote:
    """A record or a dataset on a server that can go.

    Attributes
    ----------
    what : str
        What it is.
    url : str
        Its page.
    why : str
        Why it can go, and what is lost with it.
    """

    what: str
    url: str
    why: str


class LeftAlone:
    """Collects what is left alone, by the reason."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = defaultdict(list)

    def add(self, name: str, why: str) -> None:
        """Something is left alone because..."""
        self._names[why].append(name)

    def texts(self, of: str) -> list[str]:
        """A sentence per reason; `of` says what they are and where."""
        return [
            f"{len(names)} {of} left alone, {why}: {few_text(names)}"
            for why, names in self._names.items()
        ]

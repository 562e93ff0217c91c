"""Time that a command may take."""

from __future__ import annotations

import math
import time

from cellflow.config.checks import seconds_of

__all__ = ["Budget"]


class Budget:
    """Time from now on; infinite for no limit."""

    def __init__(self, seconds: float = math.inf):
        self._end = time.monotonic() + seconds

    @classmethod
    def of(cls, text: str | None) -> Budget:
        """The budget of a duration such as 8h, or none."""
        return cls() if text is None else cls(seconds_of(text) or 0.0)

    @property
    def left(self) -> float:
        """Seconds that are left; negative once it is used up."""
        return self._end - time.monotonic()

    def part(self, shares: int) -> Budget:
        """An even part of what is left, for one of so many tasks to come."""
        return Budget(self.left / shares)

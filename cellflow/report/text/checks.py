"""What was found on a machine, as `cellflow checks` prints it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["checks_text"]

_SIGNS = {"ok": " ", "note": "-", "problem": "!"}


class Check(Protocol):
    """One thing that was looked at; the verdict is ok, note or problem."""

    @property
    def what(self) -> str: ...
    @property
    def found(self) -> str: ...
    @property
    def verdict(self) -> str: ...
    @property
    def advice(self) -> str: ...


def checks_text(checks: Sequence[Check]) -> str:
    """Checks as aligned lines, with what to do below each line that needs it."""
    width = max(len(check.what) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{_SIGNS[check.verdict]} {check.what:{width}}  {check.found}")
        if check.advice:
            lines.append(f"  {'':{width}}  -> {check.advice}")
    problems = sum(check.verdict == "problem" for check in checks)
    lines += ["", f"{problems} problem(s), marked with !" if problems else "No problems."]
    return "\n".join(lines)
